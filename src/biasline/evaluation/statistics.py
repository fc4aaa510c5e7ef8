"""Intervals: for one proportion, one correlation, and for the difference of two models on the same rows."""

import numpy as np
import polars as pl
from scipy.stats import norm

CONFIDENCE = 0.95
_RESAMPLES = 10_000


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


def row_scores(predictions: pl.DataFrame, who: str) -> np.ndarray:
    """How good each row's answer is, (rows,): 1 where it is right, else 0; of a score, less its squared error.

    Args:
        predictions: test rows as evaluation leaves them.
        who: `base` or `tuned`.
    """
    if f"{who}_exact" in predictions.columns:
        return predictions[f"{who}_exact"].to_numpy()
    return -(predictions[f"{who}_error"].to_numpy() ** 2)


def paired_interval(tuned: np.ndarray, other: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """Mean of tuned - other over the same rows, with its percentile bootstrap interval at `CONFIDENCE`.

    Args:
        tuned, other: scores per row, (rows,).
        seed: of the resampling.

    Returns: mean, low, high.
    """
    difference = np.asarray(tuned, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    generator = np.random.default_rng(seed)
    means = np.empty(_RESAMPLES)
    for index in range(_RESAMPLES):
        means[index] = difference[generator.integers(0, len(difference), len(difference))].mean()
    low, high = np.quantile(means, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(difference.mean()), float(low), float(high)
