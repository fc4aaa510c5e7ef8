"""Metrics against the libraries that define them, and the table that everyone reads."""

import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest
from sklearn import metrics as sklearn

from biasline.errors import BiaslineError
from biasline.evaluation.classify import class_metrics
from biasline.evaluation.classify import predictions as labelled
from biasline.glue import GLUE
from biasline.metrics import table
from biasline.metrics.metric import Metric, Predictions, of_confusion, of_counts
from biasline.metrics.table import declare, find_metric, main_metric, metrics_of
from biasline.params import Task
from biasline.registry.gates import Shown, judge

FILES = {"base": "base.json", "data": "rows.json"}


@pytest.fixture
def open_table(monkeypatch):
    """The table, for metrics that go with the test."""
    monkeypatch.setattr(table, "_TABLE", {kind: dict(known) for kind, known in table._TABLE.items()})


def of_labels(reference, predicted, positive=""):
    reference, predicted = (np.array(list(values), dtype=object) for values in (reference, predicted))
    columns = {"exact": (reference == predicted).astype(bool)}
    return Predictions(reference, predicted, columns, positive=positive)


def of_scores(reference, predicted):
    return Predictions(reference, predicted, {"error": predicted - reference})


SKLEARN = {
    "accuracy": lambda one, other, _: sklearn.accuracy_score(one, other),
    "f1_macro": lambda one, other, _: sklearn.f1_score(one, other, average="macro", zero_division=0.0),
    "mcc": lambda one, other, _: sklearn.matthews_corrcoef(one, other) if len({*one, *other}) > 1 else 0.0,
    "f1": lambda one, other, label: sklearn.f1_score(one, other, labels=[label], average="macro", zero_division=0.0),
}
LABELS = [("a", "b"), ("a", "b", "c", "never"), ("b",), ("a", "很", "é", "z", "y", "x")]


@pytest.mark.parametrize("name", SKLEARN)
@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("seed", [0, 1])
def test_metrics_of_labels_are_scikit_learns_over_all_rows_and_any_rows(name, labels, seed):
    """Labels that never occur, that only one side has, that a resample lacks, and one label alone."""
    generator, metric = np.random.default_rng(seed), find_metric("classification", name)
    reference = generator.choice(labels[: max(1, len(labels) - 1)], 60)
    predicted = generator.choice(labels[len(labels) // 3 :], 60)
    predictions = of_labels(reference, predicted, positive="b")
    assert metric.value(predictions) == pytest.approx(SKLEARN[name](reference, predicted, "b"), abs=1e-12)
    any_rows = metric.of_rows(predictions)
    resamples = [generator.integers(0, 60, 60) for _ in range(5)] + [generator.integers(0, 60, 3), np.zeros(60, int)]
    for rows in (np.arange(60), *resamples):
        expected = SKLEARN[name](reference[rows], predicted[rows], "b")
        assert any_rows(rows) == pytest.approx(expected, abs=1e-12)


def test_metrics_of_scores_are_scipys_and_scikit_learns():
    from scipy.stats import pearsonr, spearmanr

    generator = np.random.default_rng(0)
    score = generator.normal(size=40).round(1)  # with ties
    given = score + generator.normal(size=40)
    predictions = of_scores(score, given)
    values = {metric.name: metric.value(predictions) for metric in metrics_of("regression")}
    assert values["rmse"] == pytest.approx(sklearn.root_mean_squared_error(score, given), abs=1e-12)
    assert values["mae"] == pytest.approx(sklearn.mean_absolute_error(score, given), abs=1e-12)
    for name, statistic in (("pearson", pearsonr), ("spearman", spearmanr)):
        assert values[name] == pytest.approx(statistic(score, given).statistic, abs=1e-12)
        any_rows = find_metric("regression", name).of_rows(predictions)
        for rows in (np.arange(40), generator.integers(0, 40, 40)):
            assert any_rows(rows) == pytest.approx(statistic(score[rows], given[rows]).statistic, abs=1e-12)
        assert any_rows(np.zeros(40, int)) == 0.0


@pytest.mark.parametrize("kind", ["instruction", "classification", "regression"])
def test_without_a_quick_way_a_bootstrap_takes_rows_and_comes_to_the_same(kind):
    """Every statistic that has both."""
    generator = np.random.default_rng(0)
    if kind == "classification":
        predictions = of_labels(generator.choice(["a", "b"], 30), generator.choice(["a", "b"], 30), positive="b")
    else:
        predictions = of_scores(generator.normal(size=30), generator.normal(size=30))
    rows = generator.integers(0, 30, 30)
    for metric in metrics_of(kind):
        if metric.statistic is not None and metric.resampled is not None:
            assert metric.of_rows(predictions)(rows) == pytest.approx(metric.value(predictions.take(rows)), abs=1e-12)


def test_an_unknown_metric_is_an_error_that_names_the_known():
    with pytest.raises(
        BiaslineError, match="'kappa' is no metric of kind classification; there are: accuracy, f1_macro"
    ):
        find_metric("classification", "kappa")
    with pytest.raises(BiaslineError, match="'accuracy' is no metric of kind regression"):
        Task(**FILES, kind="regression").declared("accuracy")
    with pytest.raises(BiaslineError, match="'f1' is no metric of kind ranking; there are: none"):
        find_metric("ranking", "f1")


def test_an_own_metric_is_known_by_parameters_or_by_its_evaluation():
    with pytest.raises(BiaslineError, match="'brief' is no metric of kind instruction"):
        Task(**FILES).declared("brief")
    for own in (
        Task(**FILES, evaluate={"metrics": "custom/own.py"}).declared("brief"),
        Task(**FILES).declared("brief", {"exact_match": 1.0, "brief": 0.5}),
    ):
        assert own.ends == ("brief_low", "brief_high") and own.is_mean and own.stored


def test_a_name_is_declared_once_for_a_kind(open_table):
    with pytest.raises(ValueError, match="a classification has one of that name"):
        declare(Metric("f1", ("ranking", "classification"), statistic=lambda predictions: 0.0))
    with pytest.raises(BiaslineError, match="of kind ranking; there are: none"):
        find_metric("ranking", "f1")
    with pytest.raises(ValueError, match="nothing says how it is computed"):
        Metric("empty", ("classification",))
    with pytest.raises(ValueError, match="Wilson's interval"):
        Metric("share", ("classification",), statistic=lambda predictions: 0.0, interval="wilson")


def test_presets_are_judged_by_declared_metrics():
    for preset in GLUE.values():
        assert find_metric(preset.kind, preset.metric).decides
    assert [main_metric(kind).name for kind in ("instruction", "classification", "regression")] == [
        "exact_match",
        "accuracy",
        "pearson",
    ]


def test_declarations_load_no_library():
    """Every command reads parameters, and these the table."""
    libraries = ["numpy", "polars", "scipy", "sklearn", "sacrebleu", "torch"]
    code = f"import sys, biasline.params; print([name for name in {libraries} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_counts_of_rows_add_up_to_a_statistic(open_table):
    """F1 over spans, of a kind that there is not yet: hits, false alarms and misses of each row."""
    counts = {name: np.array(values) for name, values in {"tp": [2, 0, 1], "fp": [0, 1, 1], "fn": [1, 0, 0]}.items()}
    entity_f1 = Metric(
        "f1",
        ("ranking",),
        resampled=of_counts(
            lambda predictions: [predictions.columns[name] for name in ("tp", "fp", "fn")],
            lambda tp, fp, fn: 2 * tp / max(2 * tp + fp + fn, 1),
        ),
        interval="bootstrap",
    )
    declare(entity_f1)
    assert find_metric("ranking", "f1") is main_metric("ranking") is entity_f1
    predictions = Predictions(np.zeros(3), np.zeros(3), counts)
    assert entity_f1.value(predictions) == pytest.approx(6 / 9)
    assert entity_f1.of_rows(predictions)(np.array([0, 0, 1])) == pytest.approx(8 / 11)


def kappa_of_confusion(matrix):
    total, expected = matrix.sum(), matrix.sum(1) @ matrix.sum(0)
    spread = total**2 - expected
    return (matrix.trace() * total - expected) / spread if spread > 0 else 0.0


KAPPA = Metric(
    "kappa",
    ("classification",),
    statistic=lambda predictions: sklearn.cohen_kappa_score(predictions.reference, predictions.predicted),
    resampled=of_confusion(kappa_of_confusion),
    interval="bootstrap",
    bounds=(-1.0, 1.0),
    label="Cohen's kappa",
)


def evaluated(right, rows=200):
    """A classifier that is right on so many rows, beside one that always says "often"."""
    label = ["rare", "often"] * (rows // 2)
    said = np.array([[0.9, 0.1] if (word == "rare") == (row < right) else [0.2, 0.8] for row, word in enumerate(label)])
    test = pl.DataFrame({"text": ["a"] * rows, "text_pair": [""] * rows, "label": label})
    frame = labelled(test, ["rare", "often"], said, "often")
    values = {
        who: class_metrics("classification", label, frame[who].to_list(), ["rare", "often"])
        for who in ("base", "tuned")
    }
    return Shown(f"right on {right}", {**values, "positive_label": "often"}, frame, {"quarantine_rate": 0.0, "rows": 1})


def test_one_declaration_makes_a_metric_that_gates_judge_by(open_table):
    with pytest.raises(ValueError, match="kappa' is none of a classification: auto, accuracy"):
        Task(**FILES, kind="classification", gates={"metric": "kappa"})
    declare(KAPPA)
    with pytest.raises(ValueError, match="gates.floor: 2 is beyond 0 … 1, which kappa lies in"):
        Task(**FILES, kind="classification", gates={"metric": "kappa", "floor": 2})
    task = Task(**FILES, kind="classification", gates={"metric": "kappa", "floor": 0.5})
    good, poor = evaluated(180), evaluated(110)
    tuned = good.metrics["tuned"]
    expected = sklearn.cohen_kappa_score(good.predictions["label"], good.predictions["tuned"])
    assert tuned["kappa"] == pytest.approx(expected, abs=1e-6)
    assert tuned["kappa_low"] < tuned["kappa"] < tuned["kappa_high"] < tuned["accuracy"]
    verdict = judge(task, good, poor)
    assert verdict.passed and verdict.metric == "kappa" and verdict.standing == "better"
    assert "base 0.0000, tuned 0.8000; difference +0.8000" in verdict.as_markdown()
    assert not judge(task, poor, good).passed


HAMMING = Metric(
    "error_rate",
    ("classification",),
    row_values=lambda predictions: ~predictions.columns["exact"],
    columns=("exact",),
    interval="wilson",
    higher_is_better=False,
)


def test_where_lower_is_better_every_gate_turns_round(open_table):
    declare(HAMMING)
    task = Task(**FILES, kind="classification", gates={"metric": "error_rate", "floor": 0.2})
    good, poor = evaluated(180), evaluated(110)
    verdict = judge(task, good, poor)
    assert verdict.passed and verdict.standing == "better"
    assert "0.1000 ≤ 0.2000" in verdict.as_markdown() and "decrease +0.4000" in verdict.as_markdown()
    worse = judge(task, poor, good)
    assert worse.standing == "worse" and "0.4500 > 0.2000" in worse.as_markdown()
    assert not next(gate for gate in worse.gates if gate.name == "no slice fell").passed


def test_the_best_champion_so_far_has_the_lowest_value_where_lower_is_better():
    from biasline.registry.promote import _best

    made = [
        {"fingerprint": name, "metric": "error_rate", "value": value, "test_sha256": "t"}
        for name, value in {"a": 0.2, "b": 0.1, "c": 0.3}.items()
    ]
    candidate = Shown("v", {"test_sha256": "t"}, pl.DataFrame())
    assert _best(made, candidate, HAMMING)["fingerprint"] == "b"
    assert _best([{**entry, "metric": "kappa"} for entry in made[:2]], candidate, KAPPA)["fingerprint"] == "a"


@pytest.mark.slow
def test_views_and_the_card_show_a_declared_metric(open_table, workspace, store):
    from biasline.evaluation.evaluate import evaluate
    from biasline.tracking.store import connect, experiment_id
    from biasline.tracking.views import share_view_of
    from tests.conftest import run_other

    declare(KAPPA)
    declare(HAMMING)
    task, place = run_other(workspace, "classification")
    by_kappa = Task(**(task.model_dump() | {"gates": {"metric": "kappa"}}))
    assert evaluate(by_kappa, place).told.startswith("Cohen's kappa on ")
    metrics = json.loads(place.metrics.read_text())
    assert metrics["metric"] == "kappa" and metrics["sliced_by"] == "accuracy"
    assert {"kappa", "kappa_low", "kappa_high"} <= set(metrics["tuned"])
    card = place.card.read_text()
    assert "| | Cohen's kappa | accuracy |" in card and "Judged by Cohen's kappa: gates.metric names it." in card
    client = connect()
    experiment = experiment_id(client, "other")
    for name, ascending in (("kappa", False), ("error_rate", True)):
        share_view_of(client, experiment, task.declared(name))
        view = json.loads(client.get_experiment(experiment).tags["mlflow.sharedViewState.biasline"])
        state = json.loads(view["state"])
        assert state["orderByKey"] == f"metrics.`tuned.{name}`" and state["orderByAsc"] is ascending
        assert {f"metrics.`tuned.{name}_{end}`" for end in ("low", "high")} <= set(state["selectedColumns"])
