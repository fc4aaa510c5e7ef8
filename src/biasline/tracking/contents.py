"""What a run says of itself, from its record: params, metrics, tags, description, files, figures. Knows no MLflow."""

import csv
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from biasline.bases.pin import file_sha256
from biasline.bitfit.deltas import pack
from biasline.evaluation.intervals import format_interval
from biasline.kinds.answering import find_answering
from biasline.kinds.learning import find_learning
from biasline.layout import OWN_PACKED, TaskPlace
from biasline.metrics.table import label_of
from biasline.params import Task, Train, method_spec
from biasline.tracking.limits import RUN_TAG, fitted
from biasline.tracking.record import Point, Record

_TABLE, _TABLE_ROWS = "predictions.json", 1_000


def run_name(task: Task) -> str:
    """What the UI lists a run as, before its fingerprint: the method, and what it tunes if that is not all."""
    part = tuned_part(task.train)
    return task.train.method if part in ("all", task.train.method) else f"{task.train.method} {part}"


def tuned_part(train: Train) -> str:
    """What of the base a method tunes: biases, layers with an adapter, virtual tokens."""
    method = method_spec(train.method)
    return method.tuned_part(method.settings(train))


def run_params(record: Record, task: Task) -> dict[str, Any]:
    """The parameters worth comparing runs by; the same names everywhere."""
    report = record.read(TaskPlace(record.task).train_report) or {}
    quality = record.read(TaskPlace(record.task).quality) or {}
    train, method = task.train, method_spec(task.train.method)
    return {
        "kind": task.kind,
        "base": task.base,
        "base_parameters": report.get("base", {}).get("parameters"),
        "data": task.data,
        "data_rows": quality.get("rows"),
        "train_rows": report.get("rows"),
        "augment": _augmentation(task),
        "template": None if find_learning(task.kind).headed else task.tokens.template_name,
        "max_length": task.tokens.max_length,
        "method": train.method,
        "part": tuned_part(train),
        **method.run_params(method.settings(train)),
        "trainable": report.get("trainable", {}).get("total"),
        "head": report.get("trainable", {}).get("head") or None,
        "trainable_share": report.get("trainable", {}).get("share"),
        "learning_rate": report.get("learning_rate", train.learning_rate),
        "head_learning_rate": report.get("head_learning_rate"),
        "schedule": train.schedule,
        "warmup": train.warmup,
        "epochs": train.epochs or report.get("epochs"),
        "min_steps": train.min_steps,
        "tenants": report.get("tenants", {}).get("count"),
        "steps": report.get("steps"),
        "batch_size": train.batch_size,
        "max_grad_norm": train.max_grad_norm,
        "keep": train.keep,
        "dtype": task.load.dtype,
        "seed": train.seed,
        "threads": train.threads,
    }


def _augmentation(task: Task) -> str | None:
    made = [f"eda {task.augment.eda}"] if task.augment.eda else []
    return " + ".join([*made, *(["back translation"] if task.augment.translate else [])]) or None


def history_rows(path: Path) -> Iterator[tuple[int, dict[str, float]]]:
    """(step, metrics) of a history.csv, under the names that live training uses."""
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield int(row.pop("step")), metric_names({name: float(value) for name, value in row.items() if value})


def metric_names(values: dict[str, float]) -> dict[str, float]:
    """A row of history under its MLflow names: `valid.loss`, `valid.accuracy`, and `train.…` for the rest.

    MLflow shows what begins with `system/` on a page of its own.
    """
    return {
        name
        if name.startswith("system/")
        else f"valid.{name.removeprefix('valid_')}"
        if name.startswith("valid_")
        else f"train.{name}": value
        for name, value in values.items()
    }


def points_of(record: Record, now: int) -> list[Point]:
    """What training reported at each step: as history.csv has it, with what was noted live on this machine."""
    path = record.file(TaskPlace(record.task).history)
    if not path.is_file():
        return []
    live = {point.step: point for point in record.points}
    found = []
    for step, values in history_rows(path):
        noted = live.get(step, Point(step, now, {}))
        found.append(Point(step, noted.time, noted.values | values))
    return found


def single_metrics(record: Record) -> dict[str, float]:
    """Metrics with one value: of the training, the data, the evaluation, and what was observed."""
    place = TaskPlace(record.task)
    report = record.read(place.train_report) or {}
    final = {"train.kept_step": report.get("kept_step"), "train.last_loss": report.get("train_loss")}
    final |= {"valid.best_loss": report.get("valid_loss"), "valid.last_loss": report.get("last_valid_loss")}
    final["model.bytes"] = report.get("bytes")
    quality = record.read(place.quality) or {}
    final |= {"data.quarantine_rate": quality.get("quarantine_rate"), "data.rows": quality.get("rows")}
    metrics = record.read(place.metrics) or {}
    over = find_answering(record.resolved().kind).cheaper.gain if metrics else ""
    for group in ("base", "probe", "tuned", "gain", over):
        final |= {f"{group}.{name}": value for name, value in metrics.get(group, {}).items()}
    if metrics:
        final["test.rows"] = metrics["rows"]
    if told := metrics.get("tenants"):
        final |= {f"tenants.{name}": told[name] for name in ("count", "own", "better", "worse", "undecided")}
        final |= {f"tenants.mean_{who}": value for who, value in told["macro"].items()}
    return {name: round(value, 6) for name, value in final.items() if value is not None} | record.observed


def span(record: Record) -> tuple[int | None, int | None]:
    """When training began and ended, in milliseconds since 1970; None where nothing was noted live."""
    points = record.points
    if not points or "train.seconds" not in record.observed:
        return None, None
    return points[-1].time - int(1000 * record.observed["train.seconds"]), points[-1].time


def run_tags(record: Record, task: Task) -> dict[str, str]:
    """Lineage, hashes and MLflow's own tags; what is unknown is left out."""
    place = TaskPlace(record.task)
    report, quality = record.read(place.train_report) or {}, record.read(place.quality) or {}
    metrics = record.read(place.metrics) or {}
    tags = dict(record.lineage)
    tags["data.sha256"] = quality.get("raw_sha256", "")
    tags["base.digest"] = report.get("base", {}).get("digest", "")
    tags["params.sha256"] = hashlib.sha256(task.model_dump_json().encode()).hexdigest()
    tags["test.sha256"] = metrics.get("test_sha256", "")
    tags["test.metric"] = metrics.get("metric", "")
    if record.file(place.delta).is_file():
        tags["delta.sha256"] = file_sha256(record.file(place.delta))
    if commit := tags.get("git.commit"):
        tags["mlflow.source.git.commit"] = commit
    tags["mlflow.note.content"] = _description(record, task, tags)
    tags |= {"mlflow.source.name": f"dvc repro train@{record.task}", "mlflow.source.type": "LOCAL"}
    tags["mlflow.user"] = tags.get("user", "")
    if record.file(place.predictions).is_file():
        tags["mlflow.loggedArtifacts"] = json.dumps([{"path": _TABLE, "type": "table"}])
    return {name: value for name, value in tags.items() if value}


def _description(record: Record, task: Task, tags: dict[str, str]) -> str:
    card = record.file(TaskPlace(record.task).card)
    lines = [*_result(record, task), f"Task `{record.task}`, fingerprint `{record.fingerprint}`.", ""]
    if command := tags.get("made.by"):
        lines += ["Made again by:", "", f"    {command}", ""]
    if changed := tags.get("git.changed"):
        lines += [f"Changes that were in no commit: {changed}.", ""]
    told = "\n".join(lines) + (card.read_text(encoding="utf-8") if card.is_file() else "")
    return fitted(told, RUN_TAG, "\n(shortened; the whole card is this run's artifact `evaluation/card.md`)\n")


def _result(record: Record, task: Task) -> list[str]:
    """What came out, in one line: MLflow shows four before "show more"."""
    place = TaskPlace(record.task)
    metrics, report = record.read(place.metrics), record.read(place.train_report)
    if not metrics or not report or "metric" not in metrics:  # earlier evaluations do not say
        return []
    name, tuned = metrics["metric"], metrics["tuned"]
    ends = [tuned.get(f"{name}_{end}") for end in ("low", "high")]
    interval = format_interval(*ends)
    told = f"**{label_of(task.kind, name)} {tuned[name]:.3f}**{interval} on {metrics['rows']:,} test rows"
    if name in metrics["base"]:
        told += f", without tuning {metrics['base'][name]:.3f}"
    return [f"{told}; {report['trainable']['total']:,} parameters trained, {report['bytes']:,} bytes.", ""]


def files(record: Record) -> list[Path]:
    """The record's copies of the outs, in name order."""
    return sorted(path for path in record.files.rglob("*") if path.is_file())


def artifacts(record: Record, scratch: Path) -> Iterator[tuple[str | None, Path]]:
    """(folder in the run, file) of everything that is uploaded: the record's files, then the figures drawn of them.

    The deltas of a fleet's tenants are one file there: a store takes a while for each.
    """
    own = record.file(TaskPlace(record.task).own)
    for path in files(record):
        folder = path.relative_to(record.files).parent.as_posix()
        if path.parent != own:
            yield (None if folder == "." else folder), path
    if own.is_dir():
        pack(own, scratch / OWN_PACKED)
        yield own.parent.name, scratch / OWN_PACKED
    predictions = record.file(TaskPlace(record.task).predictions)
    if predictions.is_file():
        path = scratch / _TABLE
        path.write_text(_as_table(predictions), encoding="utf-8")
        yield None, path
    for name, figure in _figures(record):
        path = scratch / f"{name}.png"
        _draw(figure, path)
        yield "figures", path


def _draw(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=120)


def _as_table(predictions: Path) -> str:
    """The first test rows with their answers, as MLflow's page "Evaluation" reads them."""
    import polars as pl

    frame = pl.read_parquet(predictions).head(_TABLE_ROWS)
    return json.dumps({"columns": frame.columns, "data": frame.rows()}, ensure_ascii=False, default=str)


def _figures(record: Record) -> Iterator[tuple[str, Any]]:
    import polars as pl

    from biasline.figures import biases, run

    place = TaskPlace(record.task)
    if record.file(place.history).is_file():
        yield "loss", run.loss_curve(pl.read_csv(record.file(place.history), infer_schema_length=None))
    if record.file(place.lengths).is_file():
        yield "lengths", run.lengths(pl.read_csv(record.file(place.lengths)))
    metrics = record.read(place.metrics)
    if metrics:
        slices = pl.read_csv(record.file(place.slices))
        if slices.height and "sliced_by" in metrics:  # earlier evaluations do not say
            metric = record.resolved().declared(metrics["sliced_by"], metrics["tuned"])
            yield "metric_by_slice", run.metric_by_slice(slices, metrics, metric)
        change = pl.read_csv(record.file(place.bias_change))
        if change.height:
            yield "bias_change", biases.bias_change(change)
        if not record.file(place.predictions).is_file():
            return
        answering = find_answering(record.resolved().kind)
        yield from answering.figures(pl.read_parquet(record.file(place.predictions)))
