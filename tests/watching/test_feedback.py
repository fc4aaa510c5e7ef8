"""What people say of answers, matched with what a server kept."""

import json
from datetime import UTC, datetime

import polars as pl
import pytest

from biasline.errors import BiaslineError
from biasline.serving.traffic import SCHEMA
from biasline.watching import feedback
from biasline.watching.feedback import matched, said_in_file, said_in_folder

AT = datetime(2026, 3, 8, tzinfo=UTC)


def kept(folder, rows, name="one"):
    """A server's file: rows of (request, task, tenant, asked, answer)."""
    names = ("request", "task", "tenant", "asked", "answer")
    rows = [{"at": AT, "fingerprint": "f" * 16, **dict(zip(names, row, strict=True))} for row in rows]
    folder.mkdir(exist_ok=True)
    pl.DataFrame(rows, schema=SCHEMA).write_parquet(folder / f"{name}.parquet")


def told(folder, *rows, task="mood"):
    """What clients said to the server."""
    (folder / "feedback").mkdir(parents=True, exist_ok=True)
    empty = {"at": "2026-03-09", "task": task, "tenant": "", "index": 0, "right": None, "thumb": None, "key": ""}
    text = "".join(json.dumps(empty | row) + "\n" for row in rows)
    (folder / "feedback" / "one.jsonl").write_text(text, encoding="utf-8")


@pytest.fixture
def traffic(tmp_path):
    folder = tmp_path / "traffic"
    label = json.dumps({"label": "good", "probability": 0.7})
    kept(
        folder,
        [
            ("a1", "mood", "", json.dumps({"text": "a fine film"}), label),
            ("a1", "mood", "", json.dumps({"text": "a dull film"}), label),
            ("b2", "mood", "", json.dumps({"text": "a long film"}), label),
            ("c3", "mood", "", None, None),
            ("d4", "tone", "", json.dumps({"text": "another task"}), label),
        ],
    )
    return folder


def test_corrections_and_confirmations_become_rows(traffic):
    told(
        traffic,
        {"request": "a1", "index": 1, "right": "bad"},
        {"request": "b2", "thumb": "up"},
        {"request": "a1", "index": 0, "right": {"label": "good"}},
        {"request": "d4", "right": "bad", "task": "tone"},
    )
    said, notes = said_in_folder(traffic, "mood")
    found = matched(said, traffic, "mood", "classification")
    assert [(row.name, row.row, row.right, row.answered) for row in found.rows] == [
        ("a1:1", {"text": "a dull film"}, "bad", "good"),
        ("b2:0", {"text": "a long film"}, "good", "good"),
        ("a1:0", {"text": "a fine film"}, "good", "good"),
    ]
    assert (found.confirmed, found.left_out, notes) == (2, {}, [])
    assert found.rows[0].fingerprint == "f" * 16 and found.rows[0].at.startswith("2026-03-08")


def test_what_comes_to_no_row_is_counted_by_its_reason(traffic, tmp_path):
    path = tmp_path / "fixes.csv"
    path.write_text(
        "request,row,right,thumb\nclassify-a1,1,bad,\nzz,0,bad,\na1,7,bad,\nc3,0,bad,\nd4,0,bad,\nb2,,,down\na1,1,good,\n"
    )
    found = matched(said_in_file(path, ""), traffic, "mood", "classification")
    assert [(row.name, row.right) for row in found.rows] == [("a1:1", "good")]
    assert {reason: len(said) for reason, said in found.left_out.items()} == {
        feedback.CHANGED_MIND: 1,
        feedback.UNKNOWN: 1,
        feedback.NO_SUCH_ROW: 1,
        feedback.NO_TEXT: 1,
        feedback.OF_ANOTHER_TASK: 1,
        feedback.ONLY_WRONG: 1,
    }
    assert found.left_out[feedback.UNKNOWN] == [f"zz ({path}: row 2)"]


def test_a_tenant_says_nothing_of_another(traffic, tmp_path):
    kept(
        traffic,
        [
            ("t1", "shops", "one", json.dumps({"instruction": "hello"}), "hi"),
            ("t2", "shops", "two", json.dumps({"instruction": "hello"}), "hi"),
            ("t3", "shops", "two", "a prompt without a template", "hi"),
        ],
        "two",
    )
    told(traffic, *({"request": f"t{number}", "right": "hey", "tenant": "one"} for number in (1, 2)), task="shops")
    found = matched(said_in_folder(traffic, "shops")[0], traffic, "shops", "instruction")
    assert [(row.tenant, row.row, row.right) for row in found.rows] == [("one", {"instruction": "hello"}, "hey")]
    assert list(found.left_out) == [feedback.OF_ANOTHER_TENANT]
    (tmp_path / "fixes.json").write_text(json.dumps([{"request": "t3", "right": "hey"}]))
    found = matched(said_in_file(tmp_path / "fixes.json", "shop"), traffic, "shops", "instruction")
    assert list(found.left_out) == [feedback.NO_TEMPLATE] and not found.rows


def test_a_line_that_is_cut_off_is_told_and_left_out(traffic):
    told(traffic, {"request": "b2", "thumb": "up"})
    with (traffic / "feedback" / "one.jsonl").open("a") as file:
        file.write('{"at": "2026-03-09", "request": "a')
    said, notes = said_in_folder(traffic, "mood")
    assert len(said) == 1 and notes[0].endswith("line 2 is cut off: left out")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("text,right\nx,y\n", "the columns `request`, and `right` or `thumb`, were expected, got 'text', 'right'"),
        ("request,right\n,y\n", "row 1: no request"),
        ("request,thumb\na,maybe\n", "row 1: thumb: 'maybe' → up or down was expected"),
        ("request,right,thumb\na,,\n", "row 1: neither right nor thumb is filled in"),
        ("request,row,right\na,-1,x\n", "row 1: row: '-1' is no number of a row"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_with_its_row(tmp_path, text, word):
    (tmp_path / "fixes.csv").write_text(text)
    with pytest.raises(BiaslineError) as error:
        said_in_file(tmp_path / "fixes.csv", "")
    assert word in str(error.value)


def test_a_score_that_is_no_number_is_told(traffic, tmp_path):
    kept(traffic, [("s1", "stars", "", json.dumps({"text": "fine"}), json.dumps({"score": 3.5}))], "three")
    (tmp_path / "fixes.csv").write_text("request,right\ns1,many\n")
    with pytest.raises(BiaslineError, match="row 1: 'many' is no score"):
        matched(said_in_file(tmp_path / "fixes.csv", ""), traffic, "stars", "regression")


def test_a_file_of_somebody_else_is_named(traffic):
    (traffic / "zz.parquet").write_bytes(b"PAR1 and no more")
    told(traffic, {"request": "b2", "thumb": "up"})
    with pytest.raises(BiaslineError, match=r"zz\.parquet: not a file of a server's traffic"):
        matched(said_in_folder(traffic, "mood")[0], traffic, "mood", "classification")


def test_what_one_client_says_stops_nobody_elses(traffic):
    kept(traffic, [("s1", "stars", "", json.dumps({"text": "fine"}), json.dumps({"score": 3.5}))] * 2, "three")
    told(
        traffic,
        {"request": "s1", "index": 0, "right": "five"},
        {"request": ["s1"], "right": 4},
        {"request": "s1", "index": 1, "thumb": "sideways"},
        {"request": "s1", "index": 1, "right": 4},
        {"request": "s1", "index": 1, "thumb": "down"},
        {"request": "s1", "index": 1, "right": 1, "tenant": "somebody"},
        task="stars",
    )
    said, notes = said_in_folder(traffic, "stars")
    found = matched(said, traffic, "stars", "regression")
    assert [(row.name, row.right) for row in found.rows] == [("s1:1", 4.0)] and len(notes) == 2
    assert {reason: len(what) for reason, what in found.left_out.items()} == {
        feedback.OF_ANOTHER_TENANT: 1,
        feedback.NO_ANSWER: 1,
        feedback.CHANGED_MIND: 1,
    }
