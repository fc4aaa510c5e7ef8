"""A score for a text, or two: through every stage, into the registry and out again."""

import json

import numpy as np
import polars as pl
import pytest
from safetensors import safe_open

from biasline.bitfit import BiasDelta
from biasline.data.augment import augment
from biasline.data.validate import validate
from biasline.errors import BiaslineError
from biasline.layout import TaskPlace
from biasline.params import Task
from biasline.registry.gates import Shown, judge
from biasline.registry.sync import register
from biasline.tokens.saved import read_summary
from biasline.tokens.sets import tokenize
from biasline.tracking.record import record_of_workspace
from biasline.tracking.store import connect
from tests.conftest import run_stages

WORDS = {"dreadful": 1, "poor": 2, "fair": 3, "good": 4, "superb": 5}
THINGS = ("hotel", "meal", "film", "book", "shop", "trip", "phone", "chair", "song", "game", "coat", "lamp")


def rows():
    for number, thing in enumerate(THINGS * 3):
        for word, score in WORDS.items():
            yield {"text": f"The {thing} was {word}, visit {number}.", "score": 10 * score + number % 3, "thing": thing}


def task_of(**more):
    settings = {"min_steps": 120, "epochs": 1, "batch_size": 16, "learning_rate": 1e-2, "head_learning_rate": 1e-2}
    return Task(
        kind="regression",
        base="data/bases/tiny-bloom.json",
        data="stars.json",
        quality={"near_duplicate": 1.0, "off": ["leak"]},
        train={**settings, **more},
        evaluate={"slices": ["thing"]},
        gates={"head_margin": 0.05},  # a word says it all: a head alone is nearly perfect
    )


@pytest.fixture
def stars(workspace):
    (workspace / "stars.json").write_text(json.dumps(list(rows())))
    return TaskPlace("stars")


@pytest.mark.slow
@pytest.mark.draws
def test_a_regression_goes_through_every_stage_and_is_served(stars, workspace):
    task = task_of()
    told = run_stages(task, stars)
    metrics = json.loads(stars.metrics.read_text())
    assert told.startswith(f"pearson on {metrics['rows']} held-out rows")
    assert metrics["tuned"]["pearson"] > 0.5 > metrics["base"]["pearson"] == 0.0
    assert {"pearson", "pearson_low", "spearman", "rmse", "mae"} <= set(metrics["tuned"])
    assert set(metrics["probe"]) == set(metrics["tuned"])
    scores = read_summary(stars)["score"]
    assert 25 < scores["mean"] < 37 and 10 < scores["std"] < 20  # the head's first output is 0: far from all of them
    assert BiasDelta.load(stars.delta).manifest.score == scores
    assert "standard deviation" in stars.card.read_text() and "## Furthest off" in stars.card.read_text()
    assert "| score | rows" in stars.quality_page.read_text()

    predictions = pl.read_parquet(stars.predictions)
    verdict = judge(task, Shown("v", metrics, predictions))
    names = ["floor", "better than the untuned base", "nearer than the training rows' mean"]
    assert [gate.name for gate in verdict.gates][:3] == names
    assert verdict.gates[3].name == "better than a head alone" and "margin 0.05" in verdict.gates[3].told
    assert metrics["over_head_alone"]["pearson"] == pytest.approx(verdict.gates[3].numbers["mean"], abs=1e-6)
    assert verdict.passed and f"tuned {metrics['tuned']['pearson']:.4f}; difference" in verdict.gates[1].told

    import mlflow

    client = connect()
    register(client, record_of_workspace("stars"))
    model = mlflow.pyfunc.load_model("models:/biasline-stars@candidate")
    given = model.predict(predictions.select("text").to_dicts())
    assert [row["score"] for row in given] == pytest.approx(predictions["tuned"].to_list(), abs=1e-4)


@pytest.mark.slow
def test_twice_gives_the_same_bytes(stars):
    task, seen = task_of(min_steps=10), []
    for _ in range(2):
        run_stages(task, stars)
        seen.append([path.read_bytes() for path in sorted(stars.evaluation.rglob("*")) if path.is_file()])
    assert seen[0] == seen[1]


@pytest.mark.slow
@pytest.mark.parametrize("method", ["head", "lora", "prefix", "full"])
def test_every_method_learns_scores(stars, method):
    rate = None if method == "prefix" else 1e-3
    run_stages(task_of(method=method, learning_rate=rate, min_steps=60), stars)
    metrics = json.loads(stars.metrics.read_text())
    assert metrics["tuned"]["rmse"] < metrics["base"]["rmse"]


def test_scores_that_are_none_are_quarantined(stars, workspace):
    broken = [{"text": "No number at all.", "score": "many"}, {"text": "Nothing.", "score": ""}]
    broken += [{"text": "Endless.", "score": "inf"}, {"text": "Not one.", "score": "nan"}]
    broken += [{"text": "Too much for the loss.", "score": 1e300}]
    (workspace / "stars.json").write_text(json.dumps([*rows(), *broken]))
    validate(task_of(), stars)
    assert json.loads(stars.quality.read_text())["reasons"] == {"empty_score": 1, "no_number": 4}


@pytest.mark.slow
def test_a_head_of_the_bases_own_is_no_score_in_these_units(stars, workspace):
    from transformers import AutoModelForSequenceClassification

    from biasline.bases.create import create_pin

    folder = workspace / "data/bases/tiny-bloom"
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1).save_pretrained(workspace / "scorer")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (workspace / "scorer" / name).write_bytes((folder / name).read_bytes())
    path = workspace / "scorer.json"
    path.write_text(create_pin(str(workspace / "scorer"), path).dumps())
    task = task_of(min_steps=2).model_copy(update={"base": "scorer.json"})
    with pytest.raises(BiaslineError, match="has a head of its own, whose scores are in units that nobody knows here"):
        run_stages(task, stars)
    run_stages(task.model_copy(update={"train": task.train.model_copy(update={"head": "new"})}), stars)


def test_one_score_for_all_rows_is_refused(stars, workspace):
    (workspace / "stars.json").write_text(json.dumps([row | {"score": 3} for row in rows()]))
    task = task_of()
    validate(task, stars)
    augment(task, stars)
    with pytest.raises(
        BiaslineError, match="all training rows have the score 3 → a regression needs scores that differ"
    ):
        tokenize(task, stars)


@pytest.mark.slow
def test_the_head_of_a_score_has_one_output(stars):
    run_stages(task_of(min_steps=2), stars)
    with safe_open(stars.delta, framework="np") as file:
        assert file.get_tensor("score.weight").shape[0] == 1
        assert np.isfinite(file.get_tensor("score.weight")).all()
