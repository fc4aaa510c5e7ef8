import pytest

from biasline.errors import BiaslineError
from biasline.registry import ledger


def champions(path):
    return [move["fingerprint"] for move in ledger.champions(path)]


def test_lines_are_appended_and_read_back(tmp_path):
    path = tmp_path / "a" / "promotions.jsonl"
    ledger.append(path, ledger.PROMOTED, fingerprint="a", by="ann", reason="grün")
    first = path.read_bytes()
    ledger.append(path, ledger.REFUSED, fingerprint="b", by="bob", reason="")
    ledger.append(path, ledger.PROMOTED, fingerprint="c", by="bob", reason="")
    ledger.append(path, ledger.NOMINATED, fingerprint="d", by="bob", reason="")
    assert path.read_bytes().startswith(first)
    assert [entry["fingerprint"] for entry in ledger.entries(path)] == ["a", "b", "c", "d"]
    assert champions(path) == ["a", "c"]
    assert ledger.nominee(path) == "d"


def test_a_rollback_takes_the_last_champion_away(tmp_path):
    path = tmp_path / "promotions.jsonl"
    for decision, fingerprint in [("promoted", "a"), ("promoted", "b"), ("refused", "c"), ("rolled back to", "a")]:
        ledger.append(path, decision, fingerprint=fingerprint)
    assert champions(path) == ["a"]
    ledger.append(path, ledger.PROMOTED, fingerprint="c")
    assert champions(path) == ["a", "c"]


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
    assert champions(path) == ["a", "b"]


def test_no_ledger_is_no_decision(tmp_path):
    assert list(ledger.entries(tmp_path / "none")) == []
    assert ledger.nominee(tmp_path / "none") is None


@pytest.mark.parametrize("line", ["{", "[]", '{"fingerprint": "a"}', '{"decision": "promoted"}', ""])
def test_a_line_that_is_no_entry_is_named(tmp_path, line):
    path = tmp_path / "promotions.jsonl"
    path.write_text('{"decision": "promoted", "fingerprint": "a"}\n' + line + "\n")
    with pytest.raises(BiaslineError, match="line 2 is no entry"):
        list(ledger.entries(path))


@pytest.mark.parametrize("share", [0.02, 0.3, 0.99])
def test_a_line_that_a_crash_cut_off_was_never_decided(tmp_path, share):
    path = tmp_path / "promotions.jsonl"
    ledger.append(path, ledger.PROMOTED, fingerprint="a")
    whole = path.read_bytes()
    ledger.append(path, ledger.PROMOTED, fingerprint="b")
    written = len(path.read_bytes()) - len(whole)
    path.write_bytes(path.read_bytes()[: len(whole) + int(share * written)])
    assert champions(path) == ["a"]
    ledger.append(path, ledger.PROMOTED, fingerprint="c")
    assert champions(path) == ["a", "c"] and path.read_bytes().startswith(whole)


def test_a_last_line_of_someone_elses_is_not_cut_off(tmp_path):
    path = tmp_path / "promotions.jsonl"
    ledger.append(path, ledger.PROMOTED, fingerprint="a")
    path.write_bytes(path.read_bytes() + b"<<<<<<< HEAD")
    with pytest.raises(BiaslineError, match="line 2 is no entry of a ledger.*both sides' lines stay"):
        list(ledger.entries(path))


def test_what_was_withdrawn_never_counted(tmp_path):
    path = tmp_path / "promotions.jsonl"
    ledger.append(path, ledger.PROMOTED, fingerprint="a")
    lost = ledger.append(path, ledger.PROMOTED, fingerprint="b")
    ledger.append(path, ledger.WITHDRAWN, fingerprint="b", of=lost["id"])
    assert champions(path) == ["a"] and len(list(ledger.entries(path))) == 3


def test_entries_of_the_first_ledgers_have_an_id_too(tmp_path):
    path = tmp_path / "promotions.jsonl"
    path.write_text('{"decision": "promoted", "fingerprint": "a"}\n{"decision": "promoted", "fingerprint": "b"}\n')
    ids = [entry["id"] for entry in ledger.entries(path)]
    assert len(set(ids)) == 2 and ids == [entry["id"] for entry in ledger.entries(path)]


def test_trainings_that_were_erased_are_champions_no_more(tmp_path):
    path = tmp_path / "promotions.jsonl"
    for fingerprint in ("a", "b", "c"):
        ledger.append(path, ledger.PROMOTED, fingerprint=fingerprint)
    ledger.append(path, ledger.NOMINATED, fingerprint="b")
    ledger.append(path, ledger.ERASED, fingerprint="c", gone=["a", "b"])
    assert champions(path) == ["c"] and ledger.nominee(path) is None
    ledger.append(path, ledger.PROMOTED, fingerprint="a")  # made again, of rows that it may have
    assert champions(path) == ["c", "a"] and ledger.holders(path)[ledger.PREVIOUS]["fingerprint"] == "c"
