"""Searches beside the defaults: the rows, a cell, and the page."""

import json

import pytest

from benchmarks import tuning
from benchmarks.tuning import TUNING, Cell, cells, page, rows_of


@pytest.fixture
def data(tmp_path):
    """Forty intents and a thousand instructions, as they lie in ../shared/data."""
    (tmp_path / "banking77").mkdir()
    for split, count in (("train", 20), ("test", 6)):
        rows = [
            f"{split} question {number} about {intent},intent {intent}"
            for intent in range(40)
            for number in range(count)
        ]
        (tmp_path / f"banking77/{split}.csv").write_text("text,category\n" + "\n".join(rows) + "\n")
    (tmp_path / "alpaca_zh").mkdir()
    rows = [{"instruction": f"说 {number}", "input": "", "output": f"{number}。"} for number in range(1_000)]
    (tmp_path / "alpaca_zh/alpaca_zh_demo_1k.json").write_text(json.dumps(rows))
    return tmp_path


@pytest.mark.parametrize(("name", "counts"), [("intents", (100, 50, 60)), ("alpaca", (800, 100, 100))])
def test_no_row_is_in_two_splits_and_the_test_is_the_same_for_each_seed(data, name, counts):
    one, other = (rows_of(Cell(name, seed), data) for seed in (0, 1))
    assert tuple(len(one[split]) for split in ("train", "valid", "test")) == counts
    assert one["test"] == other["test"] and one["train"] != other["train"]
    every = [json.dumps(row, sort_keys=True) for rows in one.values() for row in rows]
    assert len(set(every)) == len(every)


def test_the_intents_are_ten_that_no_default_was_chosen_on(data):
    from random import Random

    labels = {row["label"] for row in rows_of(Cell("intents", 0), data)["test"]}
    assert len(labels) == 10
    assert not labels & set(Random("banking20").sample(sorted(f"intent {number}" for number in range(40)), 20))


@pytest.mark.slow
def test_a_cell_is_searched_and_trained_with_what_was_found(data, tmp_path, monkeypatch, root):
    monkeypatch.chdir(root)
    for name in ("CELLS", "WORK"):
        monkeypatch.setattr(tuning, name, tmp_path / name.lower())
    monkeypatch.setattr(tuning, "TRIALS", 3)
    monkeypatch.setitem(tuning.TASKS, "intents", {"kind": "classification", "base": "data/bases/tiny-bloom.json"})
    train = {"min_steps": 16, "epochs": 0.1, "batch_size": 8, "threads": 1}
    monkeypatch.setattr(Cell, "task", property(lambda cell, task=Cell.task.fget: small(task(cell), train)))
    cell = Cell("intents", 0)
    TUNING.run(cell, data)
    told = json.loads(cell.path.read_text())
    assert len(told["defaults"]["worth"]) == 60 and set(told["defaults"]["worth"]) <= {0.0, 1.0}
    assert told["search"]["trials"] == 3 and told["search"]["trainings"] <= 6
    assert ("found" in told) == told["search"]["better"]
    assert tuning.done(cell)


def small(task, train):
    return task.model_copy(update={"train": task.train.model_copy(update=train)})


def test_the_page_has_a_line_for_each_search(monkeypatch, tmp_path):
    monkeypatch.setattr(tuning, "CELLS", tmp_path)
    for number, cell in enumerate(cells()):
        told = {
            "defaults": {"worth": [0.0, 1.0] * 20, "seconds": 10.0},
            "search": {"trainings": 5.5, "best": {"train": {"learning_rate": 0.01}}, "seconds": 40.0},
            "splits": {"train": 100},
            "train": cell.task.train.model_dump(mode="json"),
        }
        if number == 0:
            told["found"] = {"worth": [1.0] * 40}
        cell.path.write_text(json.dumps(told))
    lines = [line for line in page().splitlines() if line.startswith(("| intents", "| alpaca"))]
    assert lines[0].startswith("| intents-0 | 100 | 0.5000 | 1.0000 | +0.5000 [") and "(learning_rate 0.01)" in lines[0]
    assert lines[1].endswith("| nothing beats the defaults, it says | 5.5 | 4.0 |")
