import numpy as np
import polars as pl
import pytest

from biasline.evaluation import regress
from biasline.evaluation.classify import class_metrics
from biasline.params import Gates
from biasline.registry.gates import judge


def candidate(base, tuned):
    """metrics.json and predictions of a candidate that got `tuned` rows right where the base got `base`, of 100."""
    rows = {
        "base_exact": [True] * base + [False] * (100 - base),
        "tuned_exact": [True] * tuned + [False] * (100 - tuned),
    }
    metrics = {"base": {"exact_match": base / 100}, "tuned": {"exact_match": tuned / 100}}
    return metrics, pl.DataFrame(rows)


def names(verdict):
    return {gate.name: gate.passed for gate in verdict.gates}


def test_floor_and_base_are_two_gates():
    assert names(judge(Gates(floor=0.5), "exact_match", *candidate(0, 90))) == {
        "floor": True,
        "better than the untuned base": True,
    }
    assert names(judge(Gates(floor=0.95), "exact_match", *candidate(0, 90)))["floor"] is False


def test_better_than_the_base_must_be_more_than_chance():
    assert not judge(Gates(floor=0.5), "exact_match", *candidate(60, 61)).passed
    assert not judge(Gates(floor=0.5), "exact_match", *candidate(90, 60)).passed
    assert judge(Gates(floor=0.5), "exact_match", *candidate(60, 75)).passed


def test_the_base_gate_can_be_switched_off():
    assert judge(Gates(floor=0.5, better_than_base=False), "exact_match", *candidate(90, 60)).passed


def test_a_verdict_shows_its_numbers():
    page = judge(Gates(floor=0.95), "exact_match", *candidate(10, 90)).as_markdown()
    assert "| floor | FAILED | 0.9000 ≥ 0.9500 |" in page
    assert "base 0.1000, tuned 0.9000; difference +0.8000" in page


def test_token_accuracy_is_compared_row_by_row_where_it_is_known():
    frame = pl.DataFrame({"tokens": [4, 2, None], "base_hits": [1, 0, None], "tuned_hits": [4, 1, None]})
    metrics = {"base": {"token_accuracy": 0.2}, "tuned": {"token_accuracy": 0.8}}
    verdict = judge(Gates(floor=0.5), "token_accuracy", metrics, frame)
    assert verdict.passed
    assert "difference +0.6250" in verdict.gates[1].told
    assert "over 2 rows" in verdict.gates[1].told


def labelled(right, rows=200):
    """A test set of one rare label in ten, a base that always gives the other, a model right on so many of the rare."""
    rare = rows // 10
    label = ["rare"] * rare + ["often"] * (rows - rare)
    tuned = ["rare"] * right + ["often"] * (rows - right)
    frame = pl.DataFrame({"label": label, "base": ["often"] * rows, "tuned": tuned})
    frame = frame.with_columns((pl.col(who) == pl.col("label")).alias(f"{who}_exact") for who in ("base", "tuned"))
    values = {"base": class_metrics(label, ["often"] * rows, ["often", "rare"])}
    values["tuned"] = class_metrics(label, tuned, ["often", "rare"])
    return {**values, "positive_label": "rare"}, frame


@pytest.mark.parametrize("metric", ["mcc", "f1", "f1_macro"])
def test_a_benchmarks_own_metric_is_compared_on_the_same_rows(metric):
    good = judge(Gates(floor=0.1), metric, *labelled(right=15))
    assert good.passed
    gain = labelled(15)[0]["tuned"][metric] - labelled(15)[0]["base"][metric]
    assert f"difference {gain:+.4f}" in good.gates[1].told and "over 200 rows" in good.gates[1].told
    assert not judge(Gates(floor=0.0), metric, *labelled(right=0)).passed


@pytest.mark.parametrize(("scale", "passed"), [(1.0, True), (0.002, False)])
def test_scores_that_hardly_differ_are_refused_however_well_they_correlate(scale, passed):
    generator = np.random.default_rng(0)
    score = generator.normal(3.0, 1.0, 200)
    mean = float(score.mean()) + 0.05
    given = mean + scale * (score - score.mean()) + 0.1 * scale * generator.normal(size=200) + 0.06 * (scale < 1)
    frame = regress.predictions(pl.DataFrame({"score": [str(value) for value in score]}), given, mean)
    metrics = {who: regress.score_metrics(score, frame[who].to_numpy()) for who in ("base", "tuned")}
    verdict = judge(Gates(floor=0.5), "pearson", metrics, frame)
    assert names(verdict)["better than the untuned base"] and verdict.passed is passed
    assert verdict.gates[2].name == "nearer than the training rows' mean" and verdict.gates[2].passed is passed
