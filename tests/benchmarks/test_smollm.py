"""Biases beside other methods on a language model: the rows, the cells, one of them, and the page."""

import json

import pytest

from benchmarks import smollm
from benchmarks.smollm import SMOLLM, WHAT, Cell, best_rate, cells, page, rows_of


@pytest.fixture
def data(tmp_path):
    """Reviews, pairs and instructions, as they lie in ../shared/data."""
    (tmp_path / "sst2").mkdir()
    (tmp_path / "glue/RTE").mkdir(parents=True)
    for split, count in (("train", 1_200), ("dev", 450)):
        rows = [f"a {split} film {number} {'good' if number % 2 else 'bad'}\t{number % 2}" for number in range(count)]
        (tmp_path / f"sst2/{split}.tsv").write_text("\n".join(["sentence\tlabel", *rows]) + "\n")
        rows = [f"{number}\tOne {split} {number}.\tTwo.\t{'not_' * (number % 2)}entailment" for number in range(count)]
        (tmp_path / f"glue/RTE/{split}.tsv").write_text("\n".join(["index\tsentence1\tsentence2\tlabel", *rows]) + "\n")
    (tmp_path / "alpaca_en").mkdir()
    rows = [{"instruction": f"Say {number}", "input": "", "output": f"{number}."} for number in range(1_300)]
    (tmp_path / "alpaca_en/alpaca_data.json").write_text(json.dumps([*rows, {"instruction": "x", "output": " "}]))
    return tmp_path


@pytest.fixture
def bench(tmp_path, monkeypatch):
    monkeypatch.setattr(smollm, "CELLS", tmp_path / "cells")
    monkeypatch.setattr(smollm, "WORK", tmp_path / "work")
    (tmp_path / "cells").mkdir()
    return tmp_path


@pytest.mark.parametrize(("name", "test"), [("sst2", 400), ("rte", 400), ("alpaca", 100)])
def test_no_row_is_in_two_splits_and_the_test_is_the_same_for_each_seed(data, name, test):
    one, other = (rows_of(Cell(name, 1_000, "value", 1e-3, seed), data) for seed in (0, 1))
    assert tuple(len(one[split]) for split in ("train", "valid", "test")) == (1_000, 100, test)
    assert one["test"] == other["test"] and one["train"] != other["train"]
    every = [json.dumps(row, sort_keys=True) for rows in one.values() for row in rows]
    assert len(set(every)) == len(every)


def told(cell, loss, exact):
    tuned = {"exact_match": exact, "exact_match_low": 0.1, "exact_match_high": 0.9, "perplexity": 1.2}
    return {
        "tuned": tuned,
        "base": {"exact_match": 0.125},
        "trainable": {"total": 155_520},
        "valid_loss": loss,
        "train_seconds": 100.0,
        "peak_mb": 900,
        "splits": {"train": cell.rows, "test": 400},
    }


def test_further_seeds_take_the_rate_with_the_lowest_validation_loss(bench):
    rates = WHAT["attention+mlp"][1]
    for rate, loss in zip(rates, (0.5, 0.2, 0.4), strict=True):
        assert best_rate("sst2", 200, "attention+mlp") == 0
        cell = Cell("sst2", 200, "attention+mlp", rate)
        cell.path.write_text(json.dumps(told(cell, loss, 0.8)))
    assert best_rate("sst2", 200, "attention+mlp") == rates[1]
    further = [cell for cell in cells() if cell.seed and cell.what == "attention+mlp"]
    assert [(cell.rate, cell.seed) for cell in further] == [(rates[1], 1), (rates[1], 2)]
    further[0].path.write_text(json.dumps(told(further[0], 0.3, 0.9)))
    text = page()
    assert "| attention+mlp | 155,520 | **0.003** | 2 | 0.850 [0.800, 0.900] | 1.200 | 0.250 | 100 | 900 |" in text
    assert "| attention+mlp | 155,520 | 0.001 | 1 | 0.800 [0.100, 0.900] | 1.200 |" in text
    assert "Untuned 0.125." in text


@pytest.mark.slow
def test_a_cell_is_trained_and_evaluated_and_the_untuned_base_asked_once(bench, data, monkeypatch, root):
    monkeypatch.chdir(root)
    monkeypatch.setattr(smollm, "BASE", root / "data/bases/tiny-bloom.json")
    monkeypatch.setattr(smollm, "TEST", 20)
    monkeypatch.setitem(WHAT, "value", ({"biases": "value"}, (1e-2,)))

    def small(cell, task=Cell.task):
        train = {"min_steps": 8, "epochs": 0.1, "batch_size": 4, "threads": 1}
        made = task(cell)
        return made.model_copy(
            update={
                "train": made.train.model_copy(update=train),
                "tokens": made.tokens.model_copy(update={"template": "alpaca"}),
            }
        )

    monkeypatch.setattr(Cell, "task", small)
    for what in ("value", "evaluation"):
        cell = Cell("sst2", 40, what, 1e-2 if what == "value" else 0.0)
        SMOLLM.run(cell, data)
        found = json.loads(cell.path.read_text())
        assert found["splits"] == {"train": 40, "valid": 4, "test": 20}
    assert found["same"] and set(found["ratios"]) == {"answers", "likelihoods"}
    found = json.loads(Cell("sst2", 40, "value", 1e-2).path.read_text())
    assert found["valid_loss"] > 0 and 0 <= found["tuned"]["exact_match"] <= 1 and found["trainable"]["biases"]
    assert len(list((bench / "work/untuned").iterdir())) == 1
