"""What the defaults are worth: the cells, the rows that methods share, and the table."""

import json

import pytest

from benchmarks import defaults
from benchmarks.defaults import DEFAULTS, METHODS, Cell, cells, drawn, page


@pytest.fixture
def bench(tmp_path, monkeypatch, root):
    """The benchmark on the demo base, with few rows and steps, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    for name in ("CELLS", "WORK"):
        monkeypatch.setattr(defaults, name, tmp_path / name.lower())
    monkeypatch.setattr(defaults, "BASE", root / "data/bases/tiny-bloom.json")
    for method in METHODS:
        monkeypatch.setitem(METHODS, method, METHODS[method] | {"epochs": 1, "min_steps": 5})
    rows = [f"the {'good' if number % 2 else 'bad'} film {number}\t{number % 2}" for number in range(90)]
    (tmp_path / "sst2").mkdir()
    for name, part in (("train", rows[:60]), ("dev", rows[60:])):
        (tmp_path / f"sst2/{name}.tsv").write_text("\n".join(["sentence\tlabel", *part]) + "\n")
    return tmp_path


@pytest.mark.slow
def test_a_cell_has_what_the_gates_say_and_which_rows_are_right(bench):
    for method in ("defaults", "before"):
        cell = Cell("sst2", "10-each", method, 1)
        DEFAULTS.run(cell, bench)
        told = json.loads(cell.path.read_text())
        assert told["splits"] == {"train": 20, "valid": 4, "test": 30}
        assert len(told["tuned_right"]) == len(told["probe_right"]) == 30
        assert told["tuned"]["accuracy"] == pytest.approx(told["tuned_right"].count("1") / 30, abs=1e-6)
        assert set(told["gates"]) == {"better than the untuned base", "better than a head alone"}
    assert told["train"]["biases"] == "all" and told["train"]["head_start"] == "random"


def test_cells_have_names_of_their_own_and_parameters_that_hold(monkeypatch):
    monkeypatch.setenv("SETFIT", "python")
    every = list(cells())
    assert len({cell.name for cell in every}) == len(every) and any(cell.method == "setfit" for cell in every)
    for cell in every:
        assert cell.task.train.seed == cell.seed
    monkeypatch.delenv("SETFIT")
    assert all(cell.method != "setfit" or cell.path.is_file() for cell in cells())


@pytest.mark.parametrize(("how_many", "train", "valid"), [("200", 200, 20), ("10-each", 50, 10), ("all", 540, 60)])
def test_no_row_both_trains_and_chooses_the_step(how_many, train, valid):
    rows = [[f"text {number}", f"label {number % 5}"] for number in range(600)]
    one, other = (drawn(rows, how_many, seed, 1) for seed in (0, 1))
    assert [len(part) for part in one] == [len(part) for part in other] == [train, valid]
    assert one != other and not {row[0] for row in one[0]} & {row[0] for row in one[1]}


def test_the_table_has_paired_differences_of_the_defaults(monkeypatch, tmp_path):
    monkeypatch.setattr(defaults, "CELLS", tmp_path)
    for method, right, passed in (("defaults", "1110", True), ("lora", "1100", False)):
        for seed in (0, 1):
            value = right.count("1") / 4
            told = {
                "tuned": {"accuracy": value, "calibration_error": 0.02},
                "probe": {"accuracy": 0.25},
                "splits": {"train": 200, "test": 4},
                "trainable": {"total": 1_000},
                "tuned_right": right,
                "gates": {"better than a head alone": passed},
            }
            told["train"] = Cell("sst2", "200", method, seed).task.train.model_dump(mode="json")
            Cell("sst2", "200", method, seed).path.write_text(json.dumps(told))
    lines = page().splitlines()
    assert "## sst2, 200 training rows, 4 test rows" in lines
    [lora] = [line for line in lines if line.startswith("| lora ")]
    assert "| 0.500 [0.500, 0.500] |" in lora and "| +25.0 [" in lora and lora.endswith("| 2 of 2 |")
    [own] = [line for line in lines if line.startswith("| defaults ")]
    assert own.endswith("| 0 of 2 |")
