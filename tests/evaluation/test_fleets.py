"""Fleets of every kind: each test row is answered by the delta that serves its tenant."""

import json
import re

import polars as pl
import pytest

from biasline.bases.load import best_device
from biasline.bitfit import BiasDelta, Deltas
from biasline.data.clean import read_split
from biasline.evaluation.carried import measured_anew, write_carried
from biasline.evaluation.evaluate import evaluate
from biasline.kinds.answering import find_answering
from biasline.layout import TaskPlace
from biasline.params import Task
from biasline.serving.package import Package
from biasline.serving.predictor import Predictor, asked_rows
from tests.conftest import run_stages

pytestmark = pytest.mark.e2e  # whole runs of stages

_ANSWERS = {
    "classification": lambda number: {"label": ("low", "high")[number % 2]},
    "regression": lambda number: {"score": (1.5, 4.0)[number % 2]},
    "multilabel": lambda number: {"labels": (["low"], ["high", "odd"], ["odd"])[number % 3]},
}


def row(kind, shop, number):
    text = f"sample {number} of the day is {('low', 'high')[number % 2]} water"
    if kind == "tagging":
        words = text.split()
        return {"shop": shop, "tokens": words, "tags": ["O"] * (len(words) - 1) + [("B-A", "B-B")[number % 2]]}
    return {"shop": shop, "text": text, **_ANSWERS[kind](number)}


def lay(folder, kind, **others):
    rows = [row(kind, f"shop {shop}", number) for number in range(36) for shop in "ab"]
    rows += [row(kind, "few", number) for number in range(5)]
    (folder / "rows.json").write_text(json.dumps(rows))
    return Task(
        kind=kind,
        base="data/bases/tiny-bloom.json",
        data="rows.json",
        quality={"near_duplicate": 1.0, "off": ["leak"]},
        tenants={"column": "shop", "min_steps": 6, "epochs": 0.1, "evaluate_every": 3},
        train={"biases": "all", "min_steps": 6, "epochs": 0.1, "batch_size": 8, "learning_rate": 1e-2},
        **others,
    )


def of_all(monkeypatch):
    """Have the own delta serve whoever has one, however good it is after a few steps."""
    monkeypatch.setattr("biasline.training.own._better", lambda trained: True)


def answers_alone(task, place, rows):
    """Each row answered by its tenant's delta, applied by itself."""
    from biasline.bases.pin import read_pin

    shared, deltas = BiasDelta.load(place.delta), Deltas(place.own)
    pin_path = place.folder.parent.parent / task.base
    package = Package(task.of_one(), shared, read_pin(pin_path), pin_path)
    folder = package.base()
    model = package.load(folder).to(best_device())
    found = []
    for one in rows:
        delta = deltas.load(one["shop"]) if one["shop"] in deltas.own else shared
        with delta.applied(model):
            found += Predictor.of(task.of_one(), delta.manifest, model, package.pin, folder)([one])
    return found


@pytest.mark.parametrize(
    "kind",
    [
        "classification",
        pytest.param("regression", marks=pytest.mark.slow),
        pytest.param("multilabel", marks=pytest.mark.slow),
        pytest.param("tagging", marks=pytest.mark.slow),
    ],
)
def test_each_row_is_answered_by_its_own_tenants_delta(kind, workspace, monkeypatch):
    of_all(monkeypatch)
    task, place = lay(workspace, kind), TaskPlace("fleet")
    run_stages(task, place)
    assert set(Deltas(place.own).own) == {"shop a", "shop b"} and Deltas(place.own).shared == {"few"}
    predictions = pl.read_parquet(place.predictions)
    alone = answers_alone(task, place, asked_rows(task, read_split(place, "test")))
    evaluated = find_answering(kind).evaluated(predictions)
    shown = [json.dumps(one, default=float)[:300] for one in (alone, evaluated)]
    assert len(alone) == len(evaluated) == predictions.height
    for one, other in zip(alone, evaluated, strict=True):
        assert _near(one, other), shown
    numbers = json.loads(place.metrics.read_text())["tenants"]
    assert numbers["count"] == 3 and numbers["own"] == 2 and set(numbers["macro"]) == {"base", "shared", "tuned"}
    table = pl.read_parquet(place.by_tenant / "table.parquet")
    assert table["rows"].sum() == predictions.height
    first = predictions.row(0, named=True)
    assert f"| {first['row']} | {first['shop']} | {first['text']} | " in place.samples.read_text() or kind == "tagging"
    assert re.search("\nRow [0-9]+ of (shop a|shop b|few), [0-9]+ tokens:\n", place.preview.read_text())
    assert "# Tenants" in (place.by_tenant / "page.md").read_text()
    assert "## Tenants" in place.card.read_text()
    # Nothing is lost where an evaluation is told anew from its predictions.
    metrics = json.loads(place.metrics.read_text())
    assert measured_anew(task, metrics, predictions).values == metrics["tuned"]
    before = {path: path.read_bytes() for path in place.evaluation.rglob("*") if path.is_file()}
    write_carried(task, place, predictions, [])
    assert {path: path.read_bytes() for path in place.evaluation.rglob("*") if path.is_file()} == before


def _near(one, other):
    if isinstance(one, dict):
        return all(_near(one[name], other[name]) for name in other)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_near, one, other))
    return one == pytest.approx(other, abs=1e-3) if isinstance(one, float) else one == other


@pytest.mark.slow
def test_augmented_rows_are_their_parents_tenants(workspace):
    from biasline.tokens.saved import read_summary, read_token_set

    task, place = lay(workspace, "classification", augment={"eda": 1}), TaskPlace("fleet")
    run_stages(task, place)
    names, tokens = read_summary(place)["tenants"], read_token_set(place, "train")
    owners = dict(read_split(place, "train").select("row", "shop").iter_rows())
    made = pl.read_parquet(place.augmented)
    assert made.height > 10
    for row, shop, parent in made.select("row", "shop", "parent").iter_rows():
        assert shop == owners[parent]
        owners[row] = shop
    assert [names[number] for number in tokens["tenant"]] == [owners[row] for row in tokens["row"]]


def test_a_task_of_one_has_an_empty_folder_of_tenants(trained, workspace):
    task, place = trained
    assert place.by_tenant.is_dir() and not list(place.by_tenant.iterdir())
    assert "tenants" not in json.loads(place.metrics.read_text())
    assert not place.own.exists()
    evaluate(task, place)
