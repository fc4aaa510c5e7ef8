"""Gates: what a candidate must show, each with its numbers."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from biasline.errors import BiaslineError
from biasline.evaluation.statistics import CONFIDENCE, paired_interval, row_scores
from biasline.params import Gates

# Metrics that are means of a score per row; of the others, pairs of rows are compared by right answers, or by
# squared errors.
_PER_ROW = ("exact_match", "accuracy", "token_accuracy")
_WHAT = dict.fromkeys(("pearson", "spearman"), "squared error saved")


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
        tuned, plain = (_per_row(predictions, who, metric) for who in ("tuned", "base"))
        mean, low, high = paired_interval(tuned, plain)
        what = "difference" if metric in _PER_ROW else f"of {_WHAT.get(metric, 'right answers')}, row by row,"
        told = (
            f"base {base:.4f}, tuned {value:.4f}; {what} {mean:+.4f}, {CONFIDENCE:.0%} paired interval "
            f"[{low:+.4f}, {high:+.4f}] over {len(tuned)} rows"
        )
        found.append(Gate("better than the untuned base", low > 0, told))
    return Verdict(metric, tuple(found))


def _per_row(predictions: pl.DataFrame, who: str, metric: str) -> np.ndarray:
    """A model's score on each row; rows that have none (left out by tokenization) are dropped for both models alike."""
    if metric != "token_accuracy":
        return row_scores(predictions, who)
    scored = predictions.filter(pl.col("tokens").is_not_null())
    return (scored[f"{who}_hits"] / scored["tokens"]).to_numpy()
