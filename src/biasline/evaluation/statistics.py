"""Intervals: for one proportion, one correlation, and for the difference of two models on the same rows."""

import math
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import polars as pl
from scipy.optimize import brentq
from scipy.stats import norm, rankdata
from scipy.stats import t as student

from biasline.params import LOG_LIKELIHOOD

CONFIDENCE = 0.95
_RESAMPLES = 10_000
# So many rows at least for a bootstrap.
_FEW = 50
# Row numbers of resamples that are in memory together.
_DRAWN_AT_ONCE = 2_000_000


def wilson_interval(successes: int, rows: int) -> tuple[float, float]:
    """Wilson's score interval of a proportion at `CONFIDENCE` (Wilson 1927); holds near 0 and 1 too.

    Args:
        successes: rows that succeeded, 0 … rows.
        rows: at least 1.
    """
    z = norm.ppf((1 + CONFIDENCE) / 2)
    share = successes / rows
    middle = (share + z**2 / (2 * rows)) / (1 + z**2 / rows)
    half = z / (1 + z**2 / rows) * np.sqrt(share * (1 - share) / rows + z**2 / (4 * rows**2))
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def fisher_interval(correlation: float, rows: int) -> tuple[float, float]:
    """Interval of a correlation at `CONFIDENCE`, by Fisher's transformation (Fisher 1921); all of it below 4 rows."""
    if rows < 4:
        return -1.0, 1.0
    middle = np.arctanh(np.clip(correlation, -1 + 1e-12, 1 - 1e-12))
    half = norm.ppf((1 + CONFIDENCE) / 2) / np.sqrt(rows - 3)
    return float(np.tanh(middle - half)), float(np.tanh(middle + half))


def mean_interval(values: np.ndarray) -> tuple[float, float | None, float | None]:
    """Mean of values that are not negative, with Student's interval at `CONFIDENCE`; None where one value is all.

    Returns:
        mean, low, high.
    """
    mean = float(values.mean())
    if len(values) < 2:
        return mean, None, None
    half = student.ppf((1 + CONFIDENCE) / 2, len(values) - 1) * float(values.std(ddof=1)) / np.sqrt(len(values))
    return mean, max(0.0, mean - half), mean + half


# Metrics that are a quotient of columns: name → what stands above the number of tokens, and its sign.
PER_TOKEN = {"token_accuracy": ("hits", 1.0), LOG_LIKELIHOOD: ("nll", -1.0)}


def is_per_row(predictions: pl.DataFrame, metric: str) -> bool:
    """Whether single rows have a value of a metric, see `row_scores`."""
    if metric in PER_TOKEN:
        return f"tuned_{PER_TOKEN[metric][0]}" in predictions.columns
    return metric in ("exact_match", "accuracy") or f"tuned_{metric}" in predictions.columns


def with_values(predictions: pl.DataFrame, metric: str) -> pl.DataFrame:
    """The rows that have a value of a metric: tokenization leaves rows out whose reference is too long."""
    if metric not in PER_TOKEN:
        return predictions
    name = PER_TOKEN[metric][0]
    return predictions.drop_nulls(["tokens", *(f"{who}_{name}" for who in ("base", "tuned"))])


def is_share(predictions: pl.DataFrame, metric: str) -> bool:
    """Whether a metric is a share of rows that are right, so that Wilson's interval holds."""
    return metric not in PER_TOKEN and f"tuned_{metric}" not in predictions.columns


def row_scores(predictions: pl.DataFrame, who: str, metric: str = "") -> np.ndarray:
    """How good each row's answer is, (rows,).

    Args:
        predictions: test rows as evaluation leaves them; NaN for those that `with_values` would leave out.
        who: `base` or `tuned`.
        metric: one that rows have values of, such as `rouge_l`; any other: 1 where the answer is right, else 0; of a
            score, less its squared error.
    """
    if f"{who}_{metric}" in predictions.columns:
        return predictions[f"{who}_{metric}"].to_numpy()
    if metric in PER_TOKEN:
        name, sign = PER_TOKEN[metric]
        return sign * (predictions[f"{who}_{name}"] / predictions["tokens"]).to_numpy()
    if f"{who}_exact" in predictions.columns:
        return predictions[f"{who}_exact"].to_numpy()
    return -(predictions[f"{who}_error"].to_numpy() ** 2)


def paired_interval(
    tuned: np.ndarray, other: np.ndarray, seed: int = 0, confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """Mean of tuned - other over the same rows, with its interval.

    Of right and wrong answers Tango's score interval, see `paired_proportions`; of other scores the percentile
    bootstrap, and below `_FEW` rows Student's interval: a bootstrap of a few rows is far too narrow, of one it has no
    width at all.

    Args:
        tuned: scores per row, (rows,).
        other: scores of the same rows, (rows,).
        seed: of the resampling.
        confidence: how often such intervals hold the truth.

    Returns:
        mean, low, high.
    """
    tuned, other = np.asarray(tuned, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if np.isin(tuned, (0.0, 1.0)).all() and np.isin(other, (0.0, 1.0)).all():
        gained, lost = int((tuned > other).sum()), int((tuned < other).sum())
        low, high = paired_proportions(gained, lost, len(tuned), confidence)
        return (gained - lost) / len(tuned), low, high
    difference = tuned - other
    if len(difference) >= _FEW:
        return bootstrap_mean(difference, seed, confidence)
    mean = float(difference.mean())
    if len(difference) < 2:
        return mean, -math.inf, math.inf
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference))
    half = float(student.ppf((1 + confidence) / 2, len(difference) - 1)) * error
    return mean, mean - half, mean + half


def paired_proportions(gained: int, lost: int, rows: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Score interval for the difference of two proportions on the same rows (Tango 1998, equations 3 and 4).

    It holds its level where a bootstrap does not: a few rows, of which hardly any or none tells the two apart.

    Args:
        gained: rows that the first alone has right.
        lost: rows that the second alone has right.
        rows: all rows, at least 1.
        confidence: how often such intervals hold the truth.
    """
    critical, middle = norm.ppf((1 + confidence) / 2), (gained - lost) / rows

    def score(difference: float) -> float:
        """How many standard errors the rows are off, were this the true difference."""
        linear = (2 * rows - gained + lost) * difference - gained - lost
        constant = -lost * difference * (1 - difference)
        share = (np.sqrt(max(linear**2 - 8 * rows * constant, 0.0)) - linear) / (4 * rows)
        spread = rows * (2 * share + difference * (1 - difference))
        return (gained - lost - rows * difference) / np.sqrt(max(spread, 1e-300))

    edge = 1 - 1e-12
    low = -1.0 if middle <= -1 else brentq(lambda difference: score(difference) - critical, -edge, min(middle, edge))
    high = 1.0 if middle >= 1 else brentq(lambda difference: score(difference) + critical, max(middle, -edge), edge)
    return float(low), float(high)


def bootstrap_mean(values: np.ndarray, seed: int = 0, confidence: float = CONFIDENCE) -> tuple[float, float, float]:
    """Mean of values, (rows,), with its percentile bootstrap interval: mean, low, high."""
    generator, rows = np.random.default_rng(seed), len(values)
    block = max(1, _DRAWN_AT_ONCE // rows)
    means = [
        values[generator.integers(0, rows, (min(block, _RESAMPLES - start), rows))].mean(1)
        for start in range(0, _RESAMPLES, block)
    ]
    return float(values.mean()), *_middle(np.concatenate(means), confidence)


def bootstrap_interval(
    statistic: Callable[[np.ndarray], float], rows: int, seed: int = 0, confidence: float = CONFIDENCE
) -> tuple[float, float, float]:
    """A statistic of some rows with its percentile bootstrap interval (Efron 1979).

    Args:
        statistic: row numbers, (rows,), some of them more than once → value.
        rows: number of rows to draw from.
        seed: of the resampling.
        confidence: how often such intervals hold the truth.

    Returns:
        the value over all rows, low, high.
    """
    generator = np.random.default_rng(seed)
    values = [statistic(generator.integers(0, rows, rows)) for _ in range(_RESAMPLES)]
    return float(statistic(np.arange(rows))), *_middle(np.array(values), confidence)


def _middle(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """The range of the middle share of values."""
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def metric_of(predictions: pl.DataFrame, who: str, name: str, positive: str = "") -> Callable[[np.ndarray], float]:
    """A metric that is no mean over rows, as a function of row numbers: what a bootstrap asks for.

    The values are those of metrics.json, counted anew, since scikit-learn takes milliseconds each time.

    Args:
        predictions: test rows as evaluation leaves them.
        who: `base` or `tuned`.
        name: `mcc`, `f1`, `f1_macro`, `pearson` or `spearman`.
        positive: the label that f1 is of.
    """
    if name in ("pearson", "spearman"):
        reference, given = predictions["score"].cast(pl.Float64).to_numpy(), predictions[who].to_numpy()
        return partial(_correlation, reference, given, name == "spearman")
    return _label_metric(predictions["label"].to_list(), predictions[who].to_list(), name, positive)


def _correlation(reference: np.ndarray, given: np.ndarray, ranked: bool, rows: np.ndarray) -> float:
    one, other = reference[rows], given[rows]
    if ranked:
        one, other = rankdata(one), rankdata(other)
    return float(np.corrcoef(one, other)[0, 1]) if min(np.ptp(one), np.ptp(other)) > 0 else 0.0


def _label_metric(
    reference: Sequence[str], given: Sequence[str], name: str, positive: str
) -> Callable[[np.ndarray], float]:
    labels = sorted({*reference, *given})
    number = {label: index for index, label in enumerate(labels)}
    size = len(labels)
    cells = np.array([number[one] * size + number[other] for one, other in zip(reference, given, strict=True)])

    def statistic(rows: np.ndarray) -> float:
        table = np.bincount(cells[rows], minlength=size * size).reshape(size, size).astype(np.float64)
        hits, actual, said = table.diagonal(), table.sum(1), table.sum(0)
        if name == "mcc":
            total = table.sum()
            spread = (total**2 - said @ said) * (total**2 - actual @ actual)
            return float((hits.sum() * total - actual @ said) / np.sqrt(spread)) if spread > 0 else 0.0
        f1 = 2 * hits / np.maximum(actual + said, 1)
        if name == "f1":
            return float(f1[number[positive]]) if positive in number else 0.0
        return float(f1[(actual + said) > 0].mean())

    return statistic
