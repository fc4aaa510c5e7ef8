"""Intervals: for one proportion, one correlation, and for the difference of two models on the same rows."""

import math
from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm
from scipy.stats import t as student

CONFIDENCE = 0.95
_RESAMPLES = 10_000
_ALL_SIGNS = 13
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


def sign_flip_p(differences: np.ndarray, seed: int = 0) -> float:
    """How likely a mean so far from 0 is where each difference could as well have the other sign (Fisher 1935).

    All signs are tried up to `_ALL_SIGNS` differences, beyond that as many as a bootstrap has resamples.

    Args:
        differences: of two models on the same rows, (rows,).
        seed: of the signs that are drawn.

    Returns:
        two-sided, in (0, 1]; 1 where a difference is not finite, of which no mean says anything.
    """
    if not np.isfinite(differences).all():
        return 1.0
    differences = differences[differences != 0]
    rows = len(differences)
    if not rows:
        return 1.0
    seen = abs(differences.sum()) - 1e-9 * np.abs(differences).sum()
    if rows <= _ALL_SIGNS:
        signs = 1.0 - 2.0 * ((np.arange(2**rows)[:, None] >> np.arange(rows)) & 1)
        return float((np.abs(signs @ differences) >= seen).mean())
    signs = 1.0 - 2.0 * np.random.default_rng(seed).integers(0, 2, (_RESAMPLES, rows))
    return float((1 + (np.abs(signs @ differences) >= seen).sum()) / (1 + _RESAMPLES))


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
