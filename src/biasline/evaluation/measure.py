"""Metrics of one model with their intervals, and of two models on the same rows, as `metrics` declares them."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from biasline.errors import BiaslineError
from biasline.evaluation.statistics import (
    bootstrap_interval,
    bootstrap_mean,
    fisher_interval,
    paired_interval,
    wilson_interval,
)
from biasline.kinds.learning import columns_of
from biasline.metrics.metric import TOKENS, Metric, Predictions
from biasline.metrics.table import metrics_of

_DIGITS = 6
_WHO = ("base", "tuned")
# What one would do instead of training gives to test rows: a head alone, fitted on the frozen base, or examples before
# each question.
CHEAPER = "probe"
# Columns of predictions that are of a row, or of the tuned model alone: they have no prefix.
_PLAIN = (TOKENS, "probability")


@dataclass(frozen=True)
class Measured:
    """Metrics of one model.

    Attributes:
        values: by name, with the ends of intervals as `…_low` and `…_high`.
        signatures: of the metrics that a library signs.
        left_out: metrics that say nothing about these rows, each with the reason.
    """

    values: dict[str, float] = field(default_factory=dict)
    signatures: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def measure(metrics: Iterable[Metric], predictions: Predictions) -> Measured:
    """Metrics of a model's predictions, in their order."""
    found = Measured()
    for metric in metrics:
        reason = metric.left_out(predictions) if metric.left_out is not None else None
        if reason is not None:
            if reason:
                found.left_out[metric.name] = reason
            continue
        values = dict(zip((metric.name, *metric.ends), with_interval(metric, predictions), strict=True))
        found.values.update({name: round(float(value), _DIGITS) for name, value in values.items()})
        if metric.signature is not None:
            found.signatures[metric.name] = metric.signature(predictions)
    return found


def with_interval(metric: Metric, predictions: Predictions) -> tuple[float, ...]:
    """The value of a metric, and the ends of its interval where it has one."""
    if metric.interval == "bootstrap":
        if metric.is_mean:
            return bootstrap_mean(metric.of_each_row(predictions))
        _, low, high = bootstrap_interval(metric.of_rows(predictions), len(predictions))
        return metric.value(predictions), low, high
    value = metric.value(predictions)
    if metric.interval == "wilson":
        hits = metric.of_each_row(predictions)
        return value, *wilson_interval(int(hits.sum()), len(hits))
    if metric.interval == "fisher":
        return value, *fisher_interval(value, len(predictions))
    return (value,)


def predictions_of(frame: pl.DataFrame, who: str, kind: str, positive: str = "") -> Predictions:
    """One model's predictions, from a frame as evaluation leaves it.

    Args:
        frame: test rows with both models' answers.
        who: `base`, `tuned` or `CHEAPER`.
        kind: the task's.
        positive: the second of two labels.
    """
    predicted = frame[who] if who in frame.columns else pl.Series([None] * frame.height)
    answer = columns_of(kind).answer
    reference = frame[answer] if answer in frame.columns else pl.Series([None] * frame.height)
    if predicted.dtype.is_numeric():  # scores are kept as they were written
        reference = reference.cast(pl.Float64)
    prefix = f"{who}_"
    columns = {name.removeprefix(prefix): frame[name].to_numpy() for name in frame.columns if name.startswith(prefix)}
    if "probability" in frame.columns and who == "tuned":
        columns["probability"] = frame["probability"].to_numpy()
    tokens = frame[TOKENS].to_numpy() if TOKENS in frame.columns else None
    return Predictions(reference.to_numpy(), predicted.to_numpy(), columns, tokens, positive)


def metrics_in(frame: pl.DataFrame, who: str, kind: str) -> dict[str, float]:
    """All metrics of what a model gave, with their intervals; arguments as `predictions_of`."""
    return measure(metrics_of(kind), predictions_of(frame, who, kind)).values


def has_row_values(frame: pl.DataFrame, metric: Metric) -> bool:
    """Whether single rows have a value of a metric: an earlier evaluation may lack the columns."""
    return metric.row_values is not None and set(_read(metric, "tuned", frame)) <= set(frame.columns)


def _read(metric: Metric, who: str, frame: pl.DataFrame) -> list[str]:
    """The columns of predictions that row values of a metric come from."""
    own = f"{who}_{metric.name}"
    if metric.stored or own in frame.columns:
        return [own]
    return [name if name in _PLAIN else f"{who}_{name}" for name in metric.columns]


def measured_rows(frame: pl.DataFrame, metric: Metric) -> pl.DataFrame:
    """The rows that both models have a value of a metric of: tokenization leaves out references that are too long."""
    read = {name for who in _WHO for name in _read(metric, who, frame)}
    return frame.drop_nulls([name for name in frame.columns if name in read])


def row_values(frame: pl.DataFrame, who: str, metric: Metric, kind: str) -> np.ndarray:
    """A metric's value of each row, (rows,); NaN for rows that `measured_rows` would leave out.

    Raises:
        BiaslineError: where rows have none.
    """
    if not has_row_values(frame, metric):
        raise BiaslineError(
            f"{metric.name}: the predictions have no value of single rows", "run the pipeline again, or take another"
        )
    return metric.of_each_row(predictions_of(frame, who, kind))


def paired_values(frame: pl.DataFrame, metric: Metric, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Row values of both models, (rows,) each, such that the first less the second is what `tuned` is better by."""
    tuned, base = (row_values(frame, who, metric, kind) for who in ("tuned", "base"))
    return (tuned, base) if metric.higher_is_better else (base, tuned)


def paired_statistic(frame: pl.DataFrame, metric: Metric, kind: str, positive: str = "") -> tuple[float, float, float]:
    """What `tuned` is better by in a metric that single rows have no value of, by a bootstrap: mean, low, high.

    Args:
        frame: test rows with both models' answers.
        metric: one with a statistic.
        kind: the task's.
        positive: the second of two labels.
    """
    tuned, base = (metric.of_rows(predictions_of(frame, who, kind, positive)) for who in ("tuned", "base"))
    sign = 1.0 if metric.higher_is_better else -1.0
    return bootstrap_interval(lambda rows: sign * (tuned(rows) - base(rows)), frame.height)


def with_cheaper(predictions: pl.DataFrame, alone: pl.DataFrame) -> pl.DataFrame:
    """Predictions with what one would do instead of training in further columns.

    Args:
        predictions: test rows with the answers of base and tuned model.
        alone: the same rows as if that were the tuned model.
    """
    given = [name for name in alone.columns if name.split("_")[0] == "tuned"]
    return predictions.with_columns(alone[name].alias(CHEAPER + name.removeprefix("tuned")) for name in given)


def in_place_of_base(frame: pl.DataFrame, other: pl.DataFrame, who: str) -> pl.DataFrame:
    """Predictions in which a model of another frame stands where the base stood.

    Args:
        frame: test rows with answers.
        other: the same rows, with answers of the other model.
        who: what its columns begin with there: `tuned`, or `CHEAPER`.
    """
    given = {name: "base" + name.removeprefix(who) for name in other.columns if name.split("_")[0] == who}
    kept = frame.drop(name for name in frame.columns if name.split("_")[0] == "base")
    return kept.with_columns(other[name].alias(alias) for name, alias in given.items())


def over_cheaper(
    frame: pl.DataFrame, metric: Metric, kind: str, positive: str = ""
) -> tuple[float, float, float] | None:
    """What the tuned model is better by than what would do without it: mean, low, high; None where that is unknown.

    Arguments as `paired_statistic`; of a metric that rows have values of, the interval is that of their differences.
    """
    if CHEAPER not in frame.columns:
        return None
    beside = in_place_of_base(frame, frame, CHEAPER)
    if metric.row_values is None:
        return paired_statistic(beside, metric, kind, positive)
    return paired_interval(*paired_values(measured_rows(beside, metric), metric, kind))


def row_metric(frame: pl.DataFrame, metric: Metric, kind: str) -> Metric:
    """The metric itself where rows have values of it, else the first of its kind that they have values of."""
    return next(one for one in (metric, *metrics_of(kind)) if has_row_values(frame, one))


def in_own_units(frame: pl.DataFrame, metric: Metric, kind: str) -> pl.DataFrame:
    """Predictions that another model's may stand beside, though that one's base may have other tokens.

    Row values of a metric that counts by each model's own tokens become a column; others stay to be computed from the
    tokens of the model that is judged.
    """
    if not metric.own_units or TOKENS not in metric.columns or not has_row_values(frame, metric):
        return frame
    values = row_values(frame, "tuned", metric, kind)
    return frame.with_columns(pl.Series(f"tuned_{metric.name}", values, dtype=pl.Float64).fill_nan(None))
