import pytest

from biasline.errors import BiaslineError
from biasline.registry import ledger


def test_lines_are_appended_and_read_back(tmp_path):
    path = tmp_path / "a" / "promotions.jsonl"
    ledger.append(path, ledger.PROMOTED, fingerprint="a", by="ann", reason="grün")
    first = path.read_bytes()
    ledger.append(path, ledger.REFUSED, fingerprint="b", by="bob", reason="")
    ledger.append(path, ledger.PROMOTED, fingerprint="c", by="bob", reason="")
    ledger.append(path, ledger.NOMINATED, fingerprint="d", by="bob", reason="")
    assert path.read_bytes().startswith(first)
    assert [entry["fingerprint"] for entry in ledger.entries(path)] == ["a", "b", "c", "d"]
    assert ledger.champions(path) == [("a", None), ("c", None)]
    assert ledger.nominee(path) == "d"


def test_a_rollback_takes_the_last_champion_away(tmp_path):
    path = tmp_path / "promotions.jsonl"
    for decision, fingerprint in [("promoted", "a"), ("promoted", "b"), ("refused", "c"), ("rolled back to", "a")]:
        ledger.append(path, decision, fingerprint=fingerprint)
    assert ledger.champions(path) == [("a", None)]
    ledger.append(path, ledger.PROMOTED, fingerprint="c")
    assert ledger.champions(path) == [("a", None), ("c", None)]


def test_a_reason_may_hold_any_character(tmp_path):
    path = tmp_path / "promotions.jsonl"
    for reason in ("one\u2028two\u0085three\x0c", "half a pair \ud800".encode("utf-8", "replace").decode()):
        ledger.append(path, ledger.NOMINATED, fingerprint="a", reason=reason)
    assert next(entry["reason"] for entry in ledger.entries(path)) == "one\u2028two\u0085three\x0c"


def test_a_lost_last_line_end_costs_no_entry(tmp_path):
    path = tmp_path / "promotions.jsonl"
    ledger.append(path, ledger.PROMOTED, fingerprint="a")
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    ledger.append(path, ledger.PROMOTED, fingerprint="b")
    assert [fingerprint for fingerprint, _ in ledger.champions(path)] == ["a", "b"]


def test_no_ledger_is_no_decision(tmp_path):
    assert list(ledger.entries(tmp_path / "none")) == []
    assert ledger.nominee(tmp_path / "none") is None


@pytest.mark.parametrize("line", ["{", "[]", '{"fingerprint": "a"}', '{"decision": "promoted"}', ""])
def test_a_line_that_is_no_entry_is_named(tmp_path, line):
    path = tmp_path / "promotions.jsonl"
    path.write_text('{"decision": "promoted", "fingerprint": "a"}\n' + line + "\n")
    with pytest.raises(BiaslineError, match="line 2 is no entry"):
        list(ledger.entries(path))
