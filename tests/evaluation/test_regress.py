import numpy as np
import polars as pl
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from biasline.evaluation.regress import (
    closeness,
    furthest,
    in_variance,
    predictions,
    probed,
    score_metrics,
    score_sections,
    score_slices,
    scores,
)
from biasline.kinds.learning import columns_of


def test_metrics_by_hand():
    metrics = score_metrics("regression", np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0, 8.0]))
    assert metrics["spearman"] == 1.0
    assert metrics["pearson"] == pytest.approx(11 / (5 * 29) ** 0.5, abs=1e-6)
    assert metrics["rmse"] == 2.0 and metrics["mae"] == 1.0
    assert metrics["pearson_low"] < metrics["pearson"] < metrics["pearson_high"]


def test_a_constant_is_correlated_with_nothing():
    metrics = score_metrics("regression", np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0]))
    assert (metrics["pearson"], metrics["spearman"]) == (0.0, 0.0)
    assert (metrics["pearson_low"], metrics["pearson_high"]) == (-1.0, 1.0)  # three rows say nothing
    assert score_metrics("regression", np.array([2.0, 2.0]), np.array([1.0, 3.0]))["pearson"] == 0.0


TEST = pl.DataFrame({"row": [1, 2, 3], "text": ["x", "y", "z"], "score": ["1", "2.5", "4"], "kind": ["a", "a", "b"]})


def test_predictions_hold_both_scores_and_what_they_are_off_by():
    table = predictions(TEST, np.array([1.5, 2.5, 1.0]), 2.0)
    assert table.select("base", "tuned", "base_error", "tuned_error").rows() == [
        (2.0, 1.5, 1.0, 0.5),
        (2.0, 2.5, -0.5, 0.0),
        (2.0, 1.0, -2.0, -3.0),
    ]
    assert closeness(table, "tuned").tolist() == [-0.25, 0.0, -9.0]
    assert furthest(table, 2)["row"].to_list() == [3, 1]
    rows = score_slices(table, ("kind",)).rows()
    assert [(row[1], row[2], row[3], row[4]) for row in rows] == [("a", 2, 0.75, 0.25), ("b", 1, 2.0, 3.0)]
    assert rows[0][5] == 0.0 < 0.25 < rows[0][6]  # two rows say little, and no error is below 0
    assert rows[1][5] is rows[1][6] is None  # one row says nothing


def test_values_of_rows_in_units_of_variance_differ_by_what_is_explained():
    score = TEST["score"].cast(pl.Float64)
    table = predictions(TEST, np.array([1.5, 2.5, 3.0]), score.mean())
    tuned, base = in_variance(table)
    squares = (score - table["tuned"]) ** 2
    assert tuned.mean() - base.mean() == pytest.approx(1 - squares.sum() / (score.var(ddof=0) * 3))
    constant = predictions(TEST.with_columns(score=pl.lit("2")), np.array([1.5, 2.5, 1.0]), 2.0)
    assert np.isfinite(np.concatenate(in_variance(constant))).all()


def test_the_rows_that_are_furthest_off_are_told_with_their_texts():
    table = predictions(TEST.with_columns(text_pair=pl.lit("a|b")), np.array([1.5, 2.5, 1.0]), 2.0)
    assert score_sections(table, columns_of("regression"))[-3:] == [
        "| 3 | z / a\\|b | 4 | 1.000 |",
        "| 1 | x / a\\|b | 1 | 1.500 |",
        "| 2 | y / a\\|b | 2.5 | 2.500 |",
    ]


@pytest.fixture
def bert():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64}
    return BertForSequenceClassification(BertConfig(**sizes, vocab_size=100, num_labels=1)).eval()


def test_scores_are_in_the_datas_own_units(bert):
    rows = [{"input_ids": list(range(5, 5 + size)), "token_type_ids": [0] * size} for size in (3, 9, 1, 6)]
    plain = scores(bert, rows, 0, 2, {"mean": 0.0, "std": 1.0})
    assert scores(bert, rows, 0, 2, {"mean": 3.0, "std": 10.0}) == pytest.approx(3 + 10 * plain)
    alone = np.concatenate([scores(bert, [row], 0, 1, {"mean": 0.0, "std": 1.0}) for row in rows])
    assert plain == pytest.approx(alone, abs=1e-6)


def test_the_probe_of_the_frozen_base_is_fitted_on_training_rows(bert):
    rows = [{"input_ids": [5 + n % 7, 20 + 10 * (n % 4)], "labels": float(n % 4)} for n in range(80)]
    given = probed(bert, rows[:60], rows[60:], 0, 8)
    assert np.corrcoef(given, [row["labels"] for row in rows[60:]])[0, 1] > 0.9
