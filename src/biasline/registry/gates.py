"""Gates: what a candidate must show, each with its numbers."""

from dataclasses import asdict, dataclass
from typing import Any

import polars as pl

from biasline.errors import BiaslineError
from biasline.evaluation.statistics import (
    CONFIDENCE,
    bootstrap_interval,
    is_per_row,
    metric_of,
    paired_interval,
    row_scores,
)
from biasline.params import Gates

_OF_SCORES = ("pearson", "spearman")


@dataclass(frozen=True)
class Gate:
    """One demand, whether it is met, and the numbers that say so."""

    name: str
    passed: bool
    told: str


@dataclass(frozen=True)
class Verdict:
    """All gates of one candidate."""

    metric: str
    gates: tuple[Gate, ...]

    @property
    def passed(self) -> bool:
        return all(gate.passed for gate in self.gates)

    def as_data(self) -> dict[str, Any]:
        return {"passed": self.passed, **asdict(self)}

    def as_markdown(self) -> str:
        lines = [f"| gate on {self.metric} | | numbers |", "|---|---|---|"]
        lines += [f"| {gate.name} | {'passed' if gate.passed else 'FAILED'} | {gate.told} |" for gate in self.gates]
        return "\n".join(lines)


def judge(gates: Gates, metric: str, metrics: dict[str, Any], predictions: pl.DataFrame) -> Verdict:
    """Hold a candidate against the gates.

    Args:
        gates: the task's thresholds.
        metric: the metric that decides, see `Task.metric`.
        metrics: its metrics.json.
        predictions: its test rows, as evaluation left them.
    """
    if metric not in metrics["tuned"]:
        raise BiaslineError(
            f"the candidate was not evaluated by {metric}; it has: {', '.join(metrics['tuned'])}",
            "mend gates.metric, or run the pipeline again",
        )
    value, base = metrics["tuned"][metric], metrics["base"][metric]
    found = [Gate("floor", value >= gates.floor, f"{value:.4f} ≥ {gates.floor:.4f}")]
    if gates.better_than_base:
        # Rows that tokenization left out have no likelihood, of neither model.
        rows = predictions.filter(pl.col("tokens").is_not_null()) if metric == "token_accuracy" else predictions
        mean, low, high = _gain(metric, metrics, rows)
        told = (
            f"base {base:.4f}, tuned {value:.4f}; difference {mean:+.4f}, {CONFIDENCE:.0%} paired interval "
            f"[{low:+.4f}, {high:+.4f}] over {rows.height} rows"
        )
        found.append(Gate("better than the untuned base", low > 0, told))
        if metric in _OF_SCORES:
            # A correlation says nothing about being near: answers that hardly differ may have a high one.
            mean, low, high = paired_interval(*(row_scores(rows, who) for who in ("tuned", "base")))
            told = f"squared error less by {mean:.4g}, {CONFIDENCE:.0%} paired interval [{low:.4g}, {high:.4g}]"
            found.append(Gate("nearer than the training rows' mean", low > 0, told))
    return Verdict(metric, tuple(found))


def _gain(metric: str, metrics: dict[str, Any], predictions: pl.DataFrame) -> tuple[float, float, float]:
    """Tuned less base, on the same rows, with its interval."""
    if is_per_row(predictions, metric):
        return paired_interval(*(row_scores(predictions, who, metric) for who in ("tuned", "base")))
    positive = metrics.get("positive_label", "")
    tuned, base = (metric_of(predictions, who, metric, positive) for who in ("tuned", "base"))
    return bootstrap_interval(lambda rows: tuned(rows) - base(rows), predictions.height)
