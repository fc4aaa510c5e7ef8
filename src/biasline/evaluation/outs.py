"""What an evaluation leaves: metrics, predictions, slices, the tenants' table, pages; from answers that were given."""

import hashlib
import json
from typing import Any

import polars as pl

from biasline.bases.pin import file_sha256
from biasline.errors import BiaslineError
from biasline.evaluation.card import model_card, samples_page
from biasline.evaluation.compared import Compared
from biasline.evaluation.measure import has_row_values, over_cheaper, row_metric
from biasline.evaluation.references import Decisive
from biasline.evaluation.scoring import LENGTH, with_lengths
from biasline.evaluation.statistics import paired_interval
from biasline.evaluation.tenants import tenant_lines, tenant_numbers, tenants_page
from biasline.jsonfile import dump_json, load_json
from biasline.kinds.answering import find_answering
from biasline.kinds.learning import columns_of
from biasline.kinds.protocols import Answering
from biasline.layout import TaskPlace, replacing, write_parquet, write_text
from biasline.metrics.metric import Metric
from biasline.metrics.table import deciding
from biasline.params import Task
from biasline.tokens.saved import read_summary


def write_outs(
    task: Task, place: TaskPlace, found: Compared, decisive: Decisive, tenants: pl.DataFrame | None = None
) -> dict[str, Any]:
    """Write all that the stage writes.

    Args:
        task: its parameters.
        place: where the reports of training, data and tokens lie, and the outs are to.
        found: both models on the test rows.
        decisive: the metric that models are judged by.
        tenants: of a fleet, see `tenant_table`.

    Returns:
        metrics.json.

    Raises:
        BiaslineError: where models cannot be compared by the metric.
    """
    answering = find_answering(task.kind)
    report = load_json(place.train_report, f"dvc repro train@{place.task}")
    quality = load_json(place.quality, f"dvc repro validate@{place.task}")
    summary = read_summary(place)
    metric = deciding_metric(task, decisive.name, found)
    sliced = with_lengths(found.predictions, answering.learning.columns.prompt)
    table = answering.slices(sliced, tuple(dict.fromkeys((*task.evaluate.slices, LENGTH))), metric)
    sections = answering.sections(found.predictions, summary.get("labels", []), report.get("settled", {}))
    metrics = _metrics(task, answering, decisive, metric, report["fingerprint"], found)
    with replacing(place.by_tenant) as draft:
        draft.mkdir()
        if tenants is not None:
            counted = row_metric(found.predictions, metric, task.kind)
            numbers = {"metric": counted.name, "label": counted.label, **tenant_numbers(tenants)}
            write_parquet(tenants, draft / "table.parquet")
            numbers["table_sha256"] = file_sha256(draft / "table.parquet")
            (draft / "page.md").write_text(tenants_page(tenants, numbers, counted.label), encoding="utf-8")
            metrics["tenants"] = numbers
            sections = [*sections, *tenant_lines(numbers)]
    with replacing(place.predictions) as draft:
        write_parquet(found.predictions, draft)
    write_text(place.slices, table.write_csv(float_precision=6))
    write_text(place.bias_change, found.change.write_csv(float_precision=8))
    write_text(place.samples, samples_page(found.predictions, answering, task))
    write_text(place.card, model_card(place.task, task, metrics, report, quality, table, summary, sections))
    with replacing(place.confusion) as draft:
        draft.mkdir()
        if (pairs := answering.confusion(found.predictions)) is not None:
            pairs.write_csv(draft / "labels.csv")
    write_text(place.metrics, dump_json(metrics))
    return metrics


def deciding_metric(task: Task, name: str, found: Compared) -> Metric:
    """The metric that decides, once it is sure that models can be compared by it."""
    if name not in found.tuned:
        raise BiaslineError(
            f"gates.metric: {name} is no metric of this task; it has: {', '.join(found.tuned)}", "mend gates.metric"
        )
    metric = task.declared(name, found.tuned)
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
    task: Task, answering: Answering, decisive: Decisive, metric: Metric, fingerprint: str, found: Compared
) -> dict[str, Any]:
    sliced = row_metric(found.predictions, metric, task.kind)
    name, tuned, base = answering.gain(found.predictions, metric)
    gain = zip((name, f"{name}_low", f"{name}_high"), paired_interval(tuned, base), strict=True)
    over = over_cheaper(found.predictions, metric, task.kind, found.positive)
    names = (metric.name, f"{metric.name}_low", f"{metric.name}_high")
    return {
        "fingerprint": fingerprint,
        "rows": found.predictions.height,
        "test_sha256": rows_sha256(found.predictions, task),
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
