"""Regression: the tuned model's scores beside the mean, and beside what the frozen base knows already."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import polars as pl

from biasline.bitfit.pretrained import PretrainedModel
from biasline.evaluation.cells import MISTAKES, cell, prompt_of
from biasline.evaluation.heads import features, head_outputs
from biasline.evaluation.measure import measure
from biasline.evaluation.statistics import mean_interval
from biasline.kinds.columns import Columns
from biasline.metrics.metric import Predictions
from biasline.metrics.table import metrics_of
from biasline.progress import Advance

_DIGITS = 6


def scores(
    model: PretrainedModel,
    rows: Sequence[dict[str, Any]],
    pad: int,
    batch_size: int,
    scale: Mapping[str, float],
    advance: Advance = lambda _: None,
) -> np.ndarray:
    """The model's score of each row, (rows,), in the data's own units.

    Args:
        model: the model, in eval mode.
        rows: the model's inputs.
        pad: token id to pad with.
        batch_size: rows of one forward pass.
        scale: `mean` and `std` of the training rows' scores, which the head's output is in units of.
        advance: told of each batch how many rows it had.
    """
    outputs = head_outputs(model, rows, pad, batch_size, advance)[:, 0]
    return scale["mean"] + scale["std"] * outputs.astype(np.float64)


def probed(
    model: PretrainedModel,
    train: Sequence[dict[str, Any]],
    test: Sequence[dict[str, Any]],
    pad: int,
    batch_size: int,
    advance: Advance = lambda _: None,
) -> np.ndarray:
    """Scores that a ridge regression on the frozen base's mean hidden states gives to test rows, (rows,).

    Args:
        model: the frozen base.
        train: training rows with their scores as `labels`.
        test: test rows.
        pad: token id to pad with.
        batch_size: rows of one forward pass.
        advance: told of each batch how many rows it had.
    """
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), RidgeCV(alphas=np.logspace(0, 5, 11)))
    probe.fit(features(model, train, pad, batch_size, advance), [row["labels"] for row in train])
    return probe.predict(features(model, test, pad, batch_size, advance))


def score_metrics(kind: str, reference: np.ndarray, given: np.ndarray) -> dict[str, float]:
    """All metrics of scores, with their intervals; errors in the data's own units.

    Args:
        kind: of task, whose metrics they are.
        reference: the right scores, (rows,).
        given: the model's, (rows,).
    """
    return measure(metrics_of(kind), Predictions(reference, given, {"error": given - reference})).values


def predictions(test: pl.DataFrame, given: np.ndarray, mean: float) -> pl.DataFrame:
    """Test rows with the training mean as `base`, the model's score as `tuned`, and what each is off by (`…_error`)."""
    reference = test["score"].cast(pl.Float64)
    base, tuned = pl.repeat(mean, test.height, eager=True), pl.Series(given)
    return test.with_columns(
        base.round(_DIGITS).alias("base"),
        tuned.round(_DIGITS).alias("tuned"),
        (base - reference).round(_DIGITS).alias("base_error"),
        (tuned - reference).round(_DIGITS).alias("tuned_error"),
    )


def score_slices(frame: pl.DataFrame, slices: tuple[str, ...]) -> pl.DataFrame:
    """Mean absolute error of the mean and of the tuned model per value of each slice column.

    Args:
        frame: predictions with `base_error` and `tuned_error`.
        slices: names of the slice columns.

    Returns:
        columns as `scoring.slice_table`; one row alone has no interval.
    """
    rows = []
    for name in slices:
        for (value,), part in sorted(frame.group_by(name), key=lambda item: str(item[0][0])):
            off = part["tuned_error"].abs()
            mean, low, high = mean_interval(off.to_numpy())
            base = cast(float, part["base_error"].abs().mean())
            rows.append([name, str(value), part.height, base, mean, low, high])
    schema = {"slice": pl.String, "value": pl.String, "rows": pl.Int64, "base": pl.Float64, "tuned": pl.Float64}
    schema |= {"tuned_low": pl.Float64, "tuned_high": pl.Float64}
    return pl.DataFrame(rows, schema=schema, orient="row")


def closeness(predictions: pl.DataFrame, who: str) -> np.ndarray:
    """How near each score is, (rows,): less its squared error.

    Args:
        predictions: test rows with both models' scores.
        who: `base` or `tuned`.
    """
    return -(predictions[f"{who}_error"].to_numpy() ** 2)


def in_variance(predictions: pl.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Less the squared errors of `tuned` and `base`, (rows,) each, in units of the scores' variance.

    Their means differ by what more of the variance `tuned` explains, R².
    """
    reference = predictions["score"].cast(pl.Float64)
    variance = max(cast(float | None, reference.var(ddof=0)) or 0.0, 1e-12)
    return closeness(predictions, "tuned") / variance, closeness(predictions, "base") / variance


def furthest(predictions: pl.DataFrame, count: int) -> pl.DataFrame:
    """The rows whose score the model is furthest from, furthest first."""
    order = predictions.with_columns(pl.col("tuned_error").abs().alias("off"))
    return order.sort(["off", "row"], descending=[True, False]).drop("off").head(count)


def score_sections(predictions: pl.DataFrame, columns: Columns) -> list[str]:
    """The rows that the model is furthest off."""
    lines = ["", "## Furthest off", "", "| row | text | score | given |", "|---:|---|---:|---:|"]
    for row in furthest(predictions, MISTAKES).iter_rows(named=True):
        lines.append(f"| {row['row']} | {cell(prompt_of(row, columns))} | {cell(row['score'])} | {row['tuned']:.3f} |")
    return lines
