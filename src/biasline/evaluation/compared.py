"""Base and tuned model side by side on the test rows, whatever kind of task it is."""

from dataclasses import dataclass, field

import polars as pl
import torch

from biasline.bitfit import BiasDelta
from biasline.bitfit.pretrained import PretrainedModel
from biasline.layout import TaskPlace
from biasline.params import Task, method_spec


@dataclass(frozen=True)
class Compared:
    """Base and tuned model on the test rows.

    Attributes:
        base, tuned: metrics of each, under the same names.
        predictions: the test rows with both answers (`base`, `tuned`) and whether they are right (`…_exact`), or what
            they are off by (`…_error`).
        change: how far training moved the biases, see `bias_change`.
        probe: metrics of what one would do instead of training, see `Cheaper`; none where it was not asked.
        signatures: of BLEU and chrF, as sacreBLEU tells them.
        left_out: metrics that say nothing about these references, each with the reason.
        timed: milliseconds that each model takes for one row, see `latency_ms`.
        positive: the label that metrics of one label are of; empty where there are none.
    """

    base: dict[str, float]
    tuned: dict[str, float]
    predictions: pl.DataFrame
    change: pl.DataFrame
    probe: dict[str, float] = field(default_factory=dict)
    signatures: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    timed: dict[str, float] = field(default_factory=dict)
    positive: str = ""


def bias_change(task: Task, place: TaskPlace, model: PretrainedModel) -> pl.DataFrame:
    """How far training moved the biases: root mean square of the change per layer and role; no rows without a delta.

    Args:
        task: its parameters.
        place: where its delta lies.
        model: the base, before the delta is in it.
    """
    squares: dict[tuple[int, str], list[torch.Tensor]] = {}
    changes = BiasDelta.load(place.delta).change(model) if method_spec(task.train.method).makes_delta else []
    for bias, change in changes:
        squares.setdefault((-1 if bias.layer is None else bias.layer, bias.role), []).append(change.square())
    rows = [[layer, role, torch.cat(parts).mean().sqrt().item()] for (layer, role), parts in sorted(squares.items())]
    return pl.DataFrame(rows, schema={"layer": pl.Int64, "role": pl.String, "change": pl.Float64}, orient="row")
