"""A packaged model asked anew gives what its evaluation gave."""

from pathlib import Path

import polars as pl
import pytest

from biasline.bases.pin import read_pin
from biasline.bitfit import BiasDelta
from biasline.serving.package import Package
from biasline.serving.rescore import scored_on
from tests.conftest import run_other

OWN = "def words(row):\n    return len(row['answer'].split())\n"


def package(task, place):
    return Package(task, BiasDelta.load(place.delta), read_pin(Path(task.base)), Path(task.base))


def test_answers_and_all_their_scores_are_the_evaluations(trained, workspace):
    task, place = trained
    (workspace / "custom").mkdir()
    (workspace / "custom/own.py").write_text(OWN)
    evaluated = pl.read_parquet(place.predictions)
    other = evaluated.with_columns(tuned=pl.lit("another model's"), tuned_exact=~pl.col("tuned_exact"))
    found = scored_on(package(task, place), other, "custom/own.py")
    names = ["row", "skill", "tuned", "tuned_exact", "tuned_rouge_l", "tokens", "tuned_hits"]
    assert found.select(names).equals(evaluated.select(names))
    assert found["tuned_nll"].to_list() == pytest.approx(evaluated["tuned_nll"].to_list(), rel=1e-5)
    assert found["tuned_words"].to_list() == [len(text.split()) for text in evaluated["tuned"]]


@pytest.mark.parametrize("kind", ["classification", pytest.param("regression", marks=pytest.mark.slow)])
def test_labels_and_scores_are_the_evaluations(workspace, kind):
    task, place = run_other(workspace, kind)
    evaluated = pl.read_parquet(place.predictions)
    found = scored_on(package(task, place), evaluated)
    given = [name for name in evaluated.columns if name.startswith("tuned") and name in found.columns]
    assert len(given) == 2
    for name in given:
        if evaluated[name].dtype == pl.Float64:
            assert found[name].to_list() == pytest.approx(evaluated[name].to_list(), abs=1e-5)
        else:
            assert found[name].to_list() == evaluated[name].to_list()
