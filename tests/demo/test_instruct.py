import hashlib
import json
from collections import Counter

import pytest

from biasline.demo.instruct import make_rows
from biasline.demo.skills import all_skills


@pytest.fixture(scope="module")
def data():
    return make_rows()


@pytest.fixture(scope="module")
def rows(data):
    return [json.loads(line) for line in data.to_jsonl().splitlines()]


def ask(row):
    return row.get("instruction"), row["input"]


def test_a_seed_names_a_file(data):
    assert make_rows().to_jsonl() == data.to_jsonl()
    assert make_rows(seed=1).to_jsonl() != data.to_jsonl()


def test_there_are_enough_rows_of_every_skill(rows):
    assert 3000 <= len(rows) <= 4000
    counts = Counter(row["skill"] for row in rows)
    assert set(counts) == {skill.name for skill in all_skills()}
    assert min(counts.values()) >= 100


def test_both_languages_and_both_places_for_the_question(rows):
    chinese = sum(any("\u4e00" <= sign <= "\u9fff" for sign in str(ask(row))) for row in rows)
    assert 0.4 < chinese / len(rows) < 0.7
    assert 0.2 < sum(row["input"] == "" for row in rows) / len(rows) < 0.8


def test_nothing_marks_a_broken_row(rows):
    assert {frozenset(row) for row in rows} <= {
        frozenset({"instruction", "input", "output", "skill"}),
        frozenset({"input", "output", "skill"}),
    }


def test_broken_rows_of_many_kinds(data):
    assert len(data.broken) >= 10
    assert 60 <= sum(data.broken.values()) <= 80
    assert min(data.broken.values()) >= 3


@pytest.mark.parametrize(
    ("kind", "shows"),
    [
        ("output null", lambda row: row["output"] is None),
        ("output empty", lambda row: row["output"] == ""),
        ("output blank", lambda row: row["output"] in (" ", "\n", "\t \n")),
        ("output placeholder", lambda row: row["output"] in ("N/A", "无", "None.")),
        ("output not text", lambda row: isinstance(row["output"], (int, float, list))),
        ("no instruction", lambda row: not row.get("instruction")),
        ("output copies input", lambda row: len(row["input"]) >= 10 and row["input"] == row["output"]),
        ("records merged", lambda row: "Human: " in text_of(row) or "### Instruction" in text_of(row)),
        ("control characters", lambda row: any(sign in text_of(row) for sign in "\u0000\u0007\u001b")),
        ("mojibake", lambda row: "\ufffd" in text_of(row) or "æ" in text_of(row)),
        ("output loops", lambda row: loops(text_of(row))),
        ("input only an address", lambda row: row["input"].startswith("https://")),
        ("output too long", lambda row: len(text_of(row)) > 2000),
    ],
)
def test_each_kind_is_in_the_file_as_often_as_said(data, rows, kind, shows):
    assert sum(map(shows, rows)) == data.broken[kind]


def loops(text):
    words = text.split()
    return len(words) >= 40 and len(set(words)) <= 2


def text_of(row):
    return row["output"] if isinstance(row["output"], str) else ""


def test_only_planted_rows_come_twice(data, rows):
    asked = Counter(ask(row) for row in rows if row.get("instruction"))
    assert sum(count - 1 for count in asked.values()) == data.broken["exact duplicate"]
    whole = Counter(json.dumps(row, sort_keys=True) for row in rows)
    assert sum(count - 1 for count in whole.values()) == data.broken["exact duplicate"]


def test_broken_rows_are_spread_over_the_file(rows):
    """Every quarter has some of those that are broken at a glance."""
    plain = (None, "", " ", "\n", "\t \n", "N/A", "无", "None.")
    quarters = [rows[place : place + len(rows) // 4] for place in range(0, len(rows) - 4, len(rows) // 4)]
    assert all(any(row["output"] in plain for row in quarter) for quarter in quarters)


def test_held_cases_are_asked_too(rows):
    asked = {ask(row) for row in rows}
    for skill in all_skills():
        forms = [template.format(**case.slots) for template in skill.asks for case in skill.held]
        if forms:
            assert sum(form.partition("\n")[::2] in asked for form in forms) >= 12, skill.name


def test_the_committed_file_is_what_the_command_writes(data, pytestconfig):
    written = (pytestconfig.rootpath / "data/instruct/raw.jsonl").read_bytes()
    assert hashlib.sha256(written).hexdigest() == hashlib.sha256(data.to_jsonl().encode()).hexdigest()
