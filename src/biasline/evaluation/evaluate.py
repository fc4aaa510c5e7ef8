"""The evaluate stage: base and tuned model on the same test rows → metrics, predictions, slices, pages."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import torch

from biasline.bases.match import check_base
from biasline.bases.pin import file_sha256, verified_folder
from biasline.data.clean import read_split
from biasline.errors import BiaslineError
from biasline.evaluation.card import model_card, samples_page
from biasline.evaluation.compared import Compared
from biasline.evaluation.intervals import format_interval
from biasline.evaluation.measure import has_row_values, measured_rows, over_cheaper, row_metric, row_values
from biasline.evaluation.references import Decisive, decisive_metric
from biasline.evaluation.scoring import LENGTH, with_lengths
from biasline.evaluation.statistics import paired_interval
from biasline.evaluation.tenants import Values, means_told, tenant_lines, tenant_numbers, tenant_table, tenants_page
from biasline.evaluation.tuned import owners_in
from biasline.jsonfile import dump_json, load_json
from biasline.kinds.answering import find_answering
from biasline.kinds.learning import columns_of
from biasline.kinds.protocols import Answering, Cheaper
from biasline.layout import TaskPlace, replacing, write_parquet, write_text
from biasline.metrics.metric import Metric
from biasline.metrics.table import deciding
from biasline.params import Task
from biasline.tokens.saved import read_summary


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
    report = load_json(place.train_report, f"dvc repro train@{place.task}")
    check_base(report["base"], pin, "model")
    summary = read_summary(place)
    labels = summary.get("labels", [])
    answering = find_answering(task.kind)
    references = answering.references(test)
    decisive = decisive_metric(task, references)
    found = answering.compare(task, place, pin, folder, test)
    metric = _declared(task, decisive.name, found)

    quality = load_json(place.quality, f"dvc repro validate@{place.task}")
    sliced = with_lengths(found.predictions, answering.learning.columns.prompt)
    table = answering.slices(sliced, tuple(dict.fromkeys((*task.evaluate.slices, LENGTH))), metric)
    sections = answering.sections(found.predictions, labels, report.get("settled", {}))
    metrics = _metrics(test, task, answering, decisive, metric, report["fingerprint"], found)
    with replacing(place.by_tenant) as draft:
        draft.mkdir()
        if task.tenants.many:
            alone = answering.compare(task.of_one(), place, pin, folder, test).predictions
            told = _by_tenant(task, place, test, metric, found.predictions, alone, draft)
            metrics["tenants"] = told
    with replacing(place.predictions) as draft:
        write_parquet(found.predictions, draft)
    write_text(place.slices, table.write_csv(float_precision=6))
    write_text(place.bias_change, found.change.write_csv(float_precision=8))
    write_text(place.samples, samples_page(found.predictions, answering, task.evaluate.samples))
    if task.tenants.many:
        sections = [*sections, *tenant_lines(metrics["tenants"])]
    write_text(place.card, model_card(place.task, task, metrics, report, quality, table, summary, sections))
    with replacing(place.confusion) as draft:
        draft.mkdir()
        if (pairs := answering.confusion(found.predictions)) is not None:
            pairs.write_csv(draft / "labels.csv")
    write_text(place.metrics, dump_json(metrics))
    beside = _beside_cheaper(metrics, answering.cheaper)
    observed = {f"{who}.latency_ms": round(value, 3) for who, value in found.timed.items()}
    if references:
        print(f"judged by {metric.label}: {decisive.reason}")
    rows = measured_rows(found.predictions, metric).height
    if task.tenants.many:
        beside += f"; {_tenants_told(metrics['tenants'])}"
    return Evaluated(f"{_in_short(task, metric, rows, found)}{beside}; see {place.card}", observed)


def _by_tenant(
    task: Task,
    place: TaskPlace,
    test: pl.DataFrame,
    metric: Metric,
    served: pl.DataFrame,
    shared: pl.DataFrame,
    draft: Path,
) -> dict[str, Any]:
    """Write table and page of a fleet's tenants; gives what they come to.

    Args:
        task: its parameters.
        place: where its model lies.
        test: the test rows.
        metric: the one that decides.
        served: predictions of what serves each tenant.
        shared: those of the shared delta alone.
        draft: the folder that they are written to.
    """
    counted = row_metric(served, metric, task.kind)
    sign = 1.0 if counted.higher_is_better else -1.0
    base, tuned = (row_values(served, who, counted, task.kind) for who in ("base", "tuned"))
    values = Values(base, row_values(shared, "tuned", counted, task.kind), tuned, sign)
    table = tenant_table(owners_in(task, test), values, pl.read_parquet(place.own_report))
    numbers = {"metric": counted.name, "label": counted.label, **tenant_numbers(table)}
    write_parquet(table, draft / "table.parquet")
    numbers["table_sha256"] = file_sha256(draft / "table.parquet")
    (draft / "page.md").write_text(tenants_page(table, numbers, counted.label), encoding="utf-8")
    return numbers


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


def _declared(task: Task, name: str, found: Compared) -> Metric:
    """The metric that decides, once it is sure that models can be compared by it."""
    if name not in found.tuned:
        raise BiaslineError(
            f"gates.metric: {name} is no metric of this task; it has: {', '.join(found.tuned)}", "mend gates.metric"
        )
    metric = task.declared(name)
    if not metric.decides or (metric.is_mean and not has_row_values(found.predictions, metric)):
        raise BiaslineError(
            f"gates.metric: {name} is no score of single answers, so models cannot be compared by it row by row",
            f"take {', '.join(deciding(task.kind))} or one of evaluate.metrics",
        )
    return metric


def rows_sha256(test: pl.DataFrame, task: Task) -> str:
    """Hash of the test rows' texts in their order: numbers compare only where it is equal."""
    rows = test.select(columns_of(task.kind).columns).rows()
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()


def _metrics(
    test: pl.DataFrame,
    task: Task,
    answering: Answering,
    decisive: Decisive,
    metric: Metric,
    fingerprint: str,
    found: Compared,
) -> dict[str, Any]:
    sliced = row_metric(found.predictions, metric, task.kind)
    name, tuned, base = answering.gain(found.predictions, metric)
    gain = zip((name, f"{name}_low", f"{name}_high"), paired_interval(tuned, base), strict=True)
    over = over_cheaper(found.predictions, metric, task.kind, found.positive)
    names = (metric.name, f"{metric.name}_low", f"{metric.name}_high")
    return {
        "fingerprint": fingerprint,
        "rows": test.height,
        "test_sha256": rows_sha256(test, task),
        "metric": decisive.name,
        "metric_reason": decisive.reason,
        "sliced_by": sliced.name,
        **({"signatures": found.signatures} if found.signatures else {}),
        **({"left_out": found.left_out} if found.left_out else {}),
        "base": found.base,
        **({"probe": found.probe} if found.probe else {}),
        "tuned": found.tuned,
        "gain": {key: round(value, 6) for key, value in gain},
        **(
            {answering.cheaper.gain: {key: round(value, 6) for key, value in zip(names, over, strict=True)}}
            if over
            else {}
        ),
        **({"positive_label": found.positive} if found.positive else {}),
    }
