"""The evaluate stage: base and tuned model on the same test rows → metrics, predictions, slices, pages."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from biasline.bases.match import check_base
from biasline.bases.pin import verified_folder
from biasline.data.clean import read_split
from biasline.errors import BiaslineError
from biasline.evaluation.compared import Compared
from biasline.evaluation.intervals import format_interval
from biasline.evaluation.measure import measured_rows, row_metric, row_values
from biasline.evaluation.outs import deciding_metric, write_outs
from biasline.evaluation.references import decisive_metric
from biasline.evaluation.scoring import LENGTH
from biasline.evaluation.tenants import Values, means_told, tenant_table
from biasline.evaluation.tuned import owners_in
from biasline.jsonfile import load_json
from biasline.kinds.answering import find_answering
from biasline.kinds.protocols import Cheaper
from biasline.layout import TaskPlace
from biasline.metrics.metric import Metric
from biasline.params import Task


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation came to.

    Attributes:
        told: one line.
        observed: what varies from run to run: `base.latency_ms`, `tuned.latency_ms`.
    """

    told: str
    observed: dict[str, float]


def evaluate(task: Task, place: TaskPlace) -> Evaluated:
    """Run the stage.

    Raises:
        BiaslineError: for an empty test split, a slice column that is absent, or a delta that does not fit.
    """
    torch.set_num_threads(task.train.threads)
    test = read_split(place, "test")
    if test.is_empty():
        raise BiaslineError(f"{place.split('test')}: no test rows", "raise split.test")
    if absent := [name for name in task.evaluate.slices if name not in (*test.columns, LENGTH)]:
        raise BiaslineError(
            f"evaluate.slices: no column {absent[0]!r} in the data; it has: {', '.join(test.columns)}",
            "mend evaluate.slices in params.yaml",
        )
    pin, folder = verified_folder(Path(task.base))
    check_base(load_json(place.train_report, f"dvc repro train@{place.task}")["base"], pin, "model")
    answering = find_answering(task.kind)
    references = answering.references(test)
    decisive = decisive_metric(task, references)
    found = answering.compare(task, place, pin, folder, test)
    metric = deciding_metric(task, decisive.name, found)
    tenants = None
    if task.tenants.many:
        alone = answering.compare(task.of_one(), place, pin, folder, test).predictions
        tenants = _by_tenant(task, place, test, metric, found.predictions, alone)
    metrics = write_outs(task, place, found, decisive, tenants)
    beside = _beside_cheaper(metrics, answering.cheaper)
    observed = {f"{who}.latency_ms": round(value, 3) for who, value in found.timed.items()}
    if references:
        print(f"judged by {metric.label}: {decisive.reason}")
    rows = measured_rows(found.predictions, metric).height
    if task.tenants.many:
        beside += f"; {_tenants_told(metrics['tenants'])}"
    return Evaluated(f"{_in_short(task, metric, rows, found)}{beside}; see {place.card}", observed)


def _by_tenant(
    task: Task, place: TaskPlace, test: pl.DataFrame, metric: Metric, served: pl.DataFrame, shared: pl.DataFrame
) -> pl.DataFrame:
    """The table of a fleet's tenants.

    Args:
        task: its parameters.
        place: where its model lies.
        test: the test rows.
        metric: the one that decides.
        served: predictions of what serves each tenant.
        shared: those of the shared delta alone.
    """
    counted = row_metric(served, metric, task.kind)
    sign = 1.0 if counted.higher_is_better else -1.0
    base, tuned = (row_values(served, who, counted, task.kind) for who in ("base", "tuned"))
    values = Values(base, row_values(shared, "tuned", counted, task.kind), tuned, sign)
    return tenant_table(owners_in(task, test), values, pl.read_parquet(place.own_report))


def _tenants_told(numbers: dict[str, Any]) -> str:
    told = f"better for {numbers['better']}, worse for {numbers['worse']}, undecided for {numbers['undecided']}"
    return f"{numbers['tested']} tenants: mean {means_told(numbers)}; own {told}"


def _in_short(task: Task, metric: Metric, rows: int, found: Compared) -> str:
    """The metric that decides, of the base, of what would do without training, and of the tuned model."""
    tuned, name = found.tuned, metric.name
    alone = f" {find_answering(task.kind).cheaper.label} {found.probe[name]:.3f}," if name in found.probe else ""
    interval = format_interval(tuned.get(f"{name}_low"), tuned.get(f"{name}_high"))
    told = f"base {found.base[name]:.3f},{alone} tuned {tuned[name]:.3f}{interval}"
    if metric.beside:
        title = task.declared(metric.beside).title
        told += f"; {title} {found.base[metric.beside]:.3f}, {tuned[metric.beside]:.3f}"
    return f"{metric.label} on {rows} held-out rows: {told}"


def _beside_cheaper(metrics: dict[str, Any], cheaper: Cheaper) -> str:
    """Where the tuned model is not shown to be better than what would do without it, as a part of a sentence."""
    name = metrics["metric"]
    gain = metrics.get(cheaper.gain, {})
    if not gain or gain[f"{name}_low"] > 0:
        return ""
    interval = format_interval(gain[f"{name}_low"], gain[f"{name}_high"], "+.3f")
    return f"; not shown to be better than {cheaper.told}: {gain[name]:+.3f}{interval}"
