"""The study of what trains best: its cells, the rows that they share, and its table."""

import json

import pytest
import torch

from benchmarks.study import cells as study
from benchmarks.study.cells import Cell, Change, cells
from benchmarks.study.page import page
from benchmarks.study.rows import SETS, Rows, dealt, task
from benchmarks.study.train import Altered
from biasline.bitfit import tune_biases


def test_cells_have_names_of_their_own_and_parameters_that_hold():
    every = list(cells())
    assert len({cell.name for cell in every}) == len(every)
    assert {cell.rows for cell in every} <= set(SETS)
    for cell in every:
        task(cell.train)


@pytest.mark.parametrize("each", [False, True])
def test_no_row_both_trains_and_judges_and_all_seeds_have_the_same_judges(each):
    found = [(f"text {number}", f"label {number % 5}") for number in range(600)]
    rows = Rows("", "text", "label", 10 if each else 200, 4 if each else 50, 200, each)
    one, other = (dealt(found, rows, seed) for seed in (0, 1))
    assert one["test"] == other["test"] and one["train"] != other["train"]
    for made in (one, other):
        parts = [set(made[name]) for name in ("train", "valid", "test")]
        assert sum(map(len, parts)) == len(set.union(*parts)) == sum(map(len, made.values()))
    assert len(one["train"]) == (50 if each else 200)


def test_steps_of_a_role_are_scaled_and_the_mean_is_that_of_the_values(bloom):
    tuning = tune_biases(bloom, "value+norm", head="keep")
    altered = Altered(tuning, Change(rates={"norm": 0.1}, average=0.5))
    before = tuning.master.detach().clone()
    with torch.no_grad():
        tuning.master.add_(1.0)
    altered.write()
    moved = tuning.master.detach() - before
    norm = torch.cat([torch.full((bias.count,), float(bias.role == "norm")) for bias in tuning.selection.biases])
    assert torch.allclose(moved, torch.where(norm > 0, 0.1, 1.0), atol=1e-5)
    decay = 2 / 11  # of so few steps a mean forgets faster
    assert torch.allclose(altered.mean[0], decay * before + (1 - decay) * tuning.master.detach(), atol=1e-5)
    altered.take_mean()
    assert torch.equal(tuning.master.detach(), altered.mean[0])


def test_the_table_has_paired_differences_to_the_start(monkeypatch, tmp_path):
    monkeypatch.setattr(study, "CELLS", tmp_path)
    rest = {"matthews": 0.5, "loss": 0.4, "calibration_error": 0.02, "kept_step": 7, "steps": 9, "seconds": 3.0}
    for change, right, accuracy in (("start", "f0", 0.5), ("scales", "fc", 0.75)):
        told = {
            "accuracy": accuracy,
            "right": right,
            "rows": {"judges": 8},
            "alone": {"accuracy": 0.25, **rest},
            **rest,
        }
        (tmp_path / f"cola-{change}-0.json").write_text(json.dumps(told))
    assert Cell("cola", "start", 0).path.parent == tmp_path
    lines = page().splitlines()
    assert any(line.startswith("| the fitted head alone | 0.2500 |") for line in lines)
    assert "## cola" in lines and not any("sst2" in line for line in lines)
    [scales] = [line for line in lines if line.startswith("| scales ")]
    assert "| 0.7500 | +25.00 ± " in scales and "| 7 of 9 | 3 |" in scales
