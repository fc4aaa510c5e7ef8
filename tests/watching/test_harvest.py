"""Corrected rows beside a task's data: what is kept, what is left out, and where the file goes."""

import json

import polars as pl
import pytest

from biasline.data.validate import deal
from biasline.errors import BiaslineError
from biasline.params import Task, read_params
from biasline.watching import harvest as room
from biasline.watching.feedback import Corrected, Matched
from biasline.watching.harvest import harvest

WORDS = ["slow", "quick", "long", "brief", "plain", "odd", "warm", "cold", "loud", "quiet"]
NOUNS = ["film", "play", "book", "song", "tale", "scene", "verse", "dance", "show", "match"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a task of a hundred rows in one file; harvests corrections of (text, right) there."""
    rows = [(f"a {word} {noun} of the year", "good" if len(word) % 2 else "bad") for word in WORDS for noun in NOUNS]
    (tmp_path / "data").mkdir()
    (tmp_path / "dvc.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    data = tmp_path / "data/mood.csv"
    data.write_text("review,mood\n" + "".join(f"{text},{label}\n" for text, label in rows))
    entry = {
        "kind": "classification",
        "base": "base.json",
        "data": "data/mood.csv",
        "source": {"columns": {"text": "review", "label": "mood"}},
    }
    (tmp_path / "params.yaml").write_text("# mine\n" + json.dumps({"tasks": {"mood": entry}}))
    return tmp_path


def task_of(project):
    return read_params(project / "params.yaml").tasks["mood"]


def corrected(*pairs, kind=str):
    return Matched(
        [
            Corrected(f"r{number}:0", {"text": text}, right, "good", "", "f" * 16, "2026-03-08")
            for number, (text, right) in enumerate(pairs)
        ]
    )


def harvested(project, *pairs, **options):
    return harvest("mood", task_of(project), corrected(*pairs), project, **options)


def absolute(project, **source):
    task = task_of(project)
    source = task.source.model_copy(update=source)
    return task.model_copy(update={"data": str(project / task.data), "source": source})


def dealt(project, **source):
    return deal(absolute(project, **source), project / "erased.txt")


def texts(frame):
    return sorted(frame["text"].to_list())


def test_rows_are_learned_from_and_the_test_rows_stay(project):
    before = dealt(project).splits
    found = harvested(project, *((f"what a {word} harvest this was, {word}", "bad") for word in WORDS))
    assert found.rows + len(found.left_out[room.IN_TEST]) == 10 and found.rows >= 5
    assert found.file == project / "data/mood/harvested-001.jsonl"
    assert not (project / "data/mood.csv").exists() and task_of(project).data == "data/mood"
    assert (project / "params.yaml").read_text().startswith("# mine\n")
    [first, *_] = map(json.loads, found.file.read_text().splitlines())
    assert set(first) == {"review", "mood", "harvested", "harvested_at", "harvested_from", "harvested_answer"}
    after = dealt(project)
    assert texts(after.splits["test"]) == texts(before["test"])
    assert sum(part["harvested"].is_not_null().sum() for part in after.splits.values()) == found.rows
    without = dealt(project, harvested=False)
    assert {name: texts(part) for name, part in without.splits.items()} == {
        name: texts(part) for name, part in before.items()
    }
    assert any("left out by source.harvested: harvested-001.jsonl" in note for note in without.examples.notes)


def test_each_row_that_cannot_be_learned_from_says_why(project):
    splits = dealt(project).splits
    held_out, trained = splits["test"]["text"][0], splits["train"].row(0, named=True)
    other = "bad" if trained["label"] == "good" else "good"
    found = harvested(
        project,
        (held_out, "good"),
        (trained["text"], trained["label"]),
        (trained["text"] + " ", other),
        ("a tale that nobody told before", "sideways"),
        ("call 4111 1111 1111 1111 for a tale", "good"),
    )
    assert found.rows == 0 and not found.file.exists() and (project / "data/mood.csv").is_file()
    reasons = {name: reason for reason, names in found.left_out.items() for name in names}
    assert reasons["r3:0"] in (room.NEW_LABEL, room.IN_TEST) and reasons["r4:0"].startswith("card: ")
    assert reasons["r2:0"].startswith("conflicting_duplicate: ")
    assert set(reasons) == {f"r{number}:0" for number in range(5)}


def test_a_row_nearly_like_a_test_row_is_left_out(project):
    splits = dealt(project).splits
    held_out = splits["test"]["text"][0]
    found = harvested(project, (held_out.replace(" of ", "  OF "), "good"))
    assert found.rows == 0 and len(found.left_out) == 1
    long = " ".join(f"{word} {noun}" for word in WORDS for noun in NOUNS[:2])
    rows = [(f"{long} {number}", "good") for number in range(60)]
    data = project / "data/mood.csv"
    data.write_text(data.read_text() + f"{long} first,good\n")
    place = {text: name for name, part in dealt(project).splits.items() for text in part["text"]}
    found = harvested(project, *rows)
    told = {room.NEAR_HELD_OUT, room.IN_TEST, room.NEAR_OTHER}
    assert place[f"{long} first"] and found.rows <= 2 and set(found.left_out) <= told


def test_again_nothing_is_taken_twice_and_the_next_file_has_the_next_number(project):
    first = harvested(project, *((f"{word} {word} {word} words", "good") for word in WORDS))
    again = harvested(project, *((f"{word} {word} {word} words", "good") for word in WORDS))
    assert again.rows == 0 and len(again.left_out[room.AGAIN]) == first.rows
    rows = [Corrected(f"s{n}:0", {"text": f"then {w} and {w}"}, "bad", "good", "", "", "") for n, w in enumerate(WORDS)]
    more = harvest("mood", task_of(project), Matched(rows), project)
    assert more.file.name == "harvested-002.jsonl" and more.moved is None and more.rows >= 5


def test_a_dry_run_writes_nothing(project):
    before = {path: path.read_bytes() for path in project.rglob("*") if path.is_file()}
    found = harvested(project, ("a tale of some words", "good"), ("another of more words", "bad"), dry_run=True)
    assert {path: path.read_bytes() for path in project.rglob("*") if path.is_file()} == before
    assert "would be in" in found.lines(True)[0]


def test_a_move_that_was_cut_off_is_finished(project, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    pairs = [(f"{word} {word} {word} words", "good") for word in WORDS]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(room, "set_data", killed)
        harvested(project, *pairs)
    assert (project / "data/mood/mood.csv").is_file() and not (project / "data/mood.csv").exists()
    assert task_of(project).data == "data/mood.csv"
    found = harvested(project, *pairs)
    assert found.rows and task_of(project).data == "data/mood" and not (project / "data/mood.csv").exists()


def test_a_folder_of_somebody_else_and_a_file_of_dvc_are_refused(project):
    (project / "data/mood").mkdir()
    (project / "data/mood/mine").write_text("mine")
    with pytest.raises(BiaslineError, match="is there already"):
        harvested(project, ("words of some kind", "good"))
    (project / "data/mood/mine").unlink()
    (project / "data/mood.csv.dvc").write_text("outs: []")
    with pytest.raises(BiaslineError, match="dvc move"):
        harvested(project, ("words of some kind", "good"))


def test_dialogues_and_tenants_keep_the_form_of_the_data(tmp_path, monkeypatch):
    (tmp_path / "dvc.yaml").write_text("")
    monkeypatch.chdir(tmp_path)
    rows = [
        {"messages": [{"role": "user", "content": f"{w} {n}?"}, {"role": "assistant", "content": f"{n}!"}], "shop": s}
        for s in ("one", "two")
        for w in WORDS
        for n in NOUNS
    ]
    (tmp_path / "said.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = Task.model_validate({"base": "b.json", "data": "said.jsonl", "tenants": {"column": "shop"}})
    entry = {"tasks": {"shops": {"base": "b.json", "data": "said.jsonl", "tenants": {"column": "shop"}}}}
    (tmp_path / "params.yaml").write_text(json.dumps(entry))
    history = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi there"}]
    made = [
        Corrected(f"r{n}:0", {"instruction": f"and {w} then?", "history": history}, f"{w}.", "x", "one", "f", "")
        for n, w in enumerate(WORDS)
    ]
    found = harvest("shops", task, Matched(made), tmp_path)
    assert found.rows >= 5
    first = json.loads(found.file.read_text().splitlines()[0])
    assert [turn["role"] for turn in first["messages"]] == ["user", "assistant", "user", "assistant"]
    assert first["shop"] == "one"
    after = deal(task.model_copy(update={"data": str(tmp_path / "said")}), tmp_path / "erased.txt")
    kept = pl.concat([after.splits["train"], after.splits["valid"]]).filter(pl.col("harvested").is_not_null())
    assert kept.height == found.rows and kept["history"].str.contains("hi there").all()


def test_raw_data_never_go_into_a_folder_that_the_pipeline_writes(project):
    (project / "data/mood.csv").rename(project / "data/clean.csv")
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(text.replace("data/mood.csv", "data/clean.csv"))
    found = harvested(project, *((f"{word} {word} {word} words", "good") for word in WORDS))
    assert found.file.parent.name == "clean-rows" and task_of(project).data == "data/clean-rows"


def test_data_of_two_tasks_get_no_rows_of_one(project):
    entry = json.loads((project / "params.yaml").read_text().partition("\n")[2])["tasks"]
    (project / "params.yaml").write_text(json.dumps({"tasks": entry | {"twin": entry["mood"]}}))
    with pytest.raises(BiaslineError, match=r"tasks\.twin in params\.yaml has the same data"):
        harvested(project, ("words of some kind", "good"))
    assert (project / "data/mood.csv").is_file()
