"""From a record to its MLflow run: found by fingerprint, made where missing, completed where it lacks something."""

import csv
import hashlib
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from biasline.bases.pin import file_sha256
from biasline.layout import TaskPlace
from biasline.params import Task
from biasline.tracking.record import Point, Record
from biasline.tracking.store import experiment_id, store_lock

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

_BATCH = 500
_PUBLISHED = "biasline.published"


def find_run(client: "MlflowClient", task: str, fingerprint: str) -> "Run | None":
    """The run of a fingerprint; None where the store has none."""
    runs = client.search_runs(
        [experiment_id(client, task)],
        filter_string=f"tags.`biasline.fingerprint` = '{fingerprint}'",
        order_by=["attributes.start_time ASC"],
        max_results=1,
    )
    return runs[0] if runs else None


def open_run(client: "MlflowClient", record: Record) -> str:
    """The id of a record's run, made where there is none."""
    with store_lock():
        found = find_run(client, record.task, record.fingerprint)
        if found is not None:
            return found.info.run_id
        task = record.resolved()
        experiment = record.lineage.get("dvc.experiment")
        name = experiment or _called(task)
        run = client.create_run(
            experiment_id(client, record.task),
            run_name=f"{name} · {record.fingerprint[:6]}",
            tags={"biasline.fingerprint": record.fingerprint, "biasline.task": record.task},
        )
        return run.info.run_id


def end_orphans(client: "MlflowClient", task: str) -> int:
    """End as KILLED the runs that processes of this machine left running, as after a SIGKILL.

    Returns: how many there were. Runs of other machines have no record here and stay as they are.
    """
    running = client.search_runs([experiment_id(client, task)], filter_string="attributes.status = 'RUNNING'")
    ended = 0
    for run in running:
        record = Record(task, run.data.tags.get("biasline.fingerprint", ""))
        if not record.fingerprint or not record.folder.is_dir():
            continue
        try:
            with record.running:
                client.set_terminated(run.info.run_id, "KILLED")
                ended += 1
        except Timeout:  # its process lives
            continue
    return ended


def _called(task: Task) -> str:
    train = task.train
    chosen = {"bitfit": train.biases, "lora": train.lora.layers}.get(train.method)
    rate = train.head_learning_rate if train.method == "head" else train.learning_rate
    return " ".join([train.method, *([chosen] if chosen else []), *([f"lr {rate:g}"] if rate else [])])


def publish(client: "MlflowClient", record: Record) -> str:
    """Bring a record's run up to what the record holds; does nothing where it is so already.

    Returns: the run's id.
    """
    run_id = open_run(client, record)
    run = client.get_run(run_id)
    digest = _digest(record)
    if run.data.tags.get(_PUBLISHED) == digest:
        return run_id
    task = record.resolved()
    _log_params(client, run, _params(record, task))
    _log_metrics(client, run, record)
    _log_inputs(client, run, record, task)
    with tempfile.TemporaryDirectory() as scratch:
        for folder, path in _artifacts(record, Path(scratch)):
            client.log_artifact(run_id, str(path), folder)
    for name, value in _tags(record, task).items():
        client.set_tag(run_id, name, value)
    client.set_terminated(run_id, "FINISHED")
    client.set_tag(run_id, _PUBLISHED, digest)
    return run_id


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


def _digest(record: Record) -> str:
    listed = [(path.relative_to(record.files).as_posix(), file_sha256(path)) for path in _files(record)]
    return hashlib.sha256(repr((listed, record.observed)).encode()).hexdigest()[:16]


def _files(record: Record) -> list[Path]:
    return sorted(path for path in record.files.rglob("*") if path.is_file())


def _params(record: Record, task: Task) -> dict[str, Any]:
    """The parameters worth comparing runs by; the same names everywhere."""
    report = record.read(TaskPlace(record.task).train_report) or {}
    quality = record.read(TaskPlace(record.task).quality) or {}
    train = task.train
    return {
        "kind": task.kind,
        "base": task.base,
        "base_parameters": report.get("base", {}).get("parameters"),
        "data": task.data,
        "data_rows": quality.get("rows"),
        "train_rows": report.get("rows"),
        "augment": _augmentation(task),
        "template": task.tokens.template_name if task.kind == "instruction" else None,
        "max_length": task.tokens.max_length,
        "method": train.method,
        "biases": train.biases if train.method == "bitfit" else None,
        "layers": (train.layers or "all") if train.method == "bitfit" else None,
        "lora_layers": train.lora.layers if train.method == "lora" else None,
        "lora_rank": train.lora.rank if train.method == "lora" else None,
        "prefix_tokens": train.prefix.tokens if train.method == "prefix" else None,
        "trainable": report.get("trainable", {}).get("total"),
        "head": report.get("trainable", {}).get("head") or None,
        "trainable_share": report.get("trainable", {}).get("share"),
        "learning_rate": report.get("learning_rate", train.learning_rate),
        "head_learning_rate": report.get("head_learning_rate"),
        "schedule": train.schedule,
        "warmup": train.warmup,
        "epochs": train.epochs,
        "min_steps": train.min_steps,
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


def _log_params(client: "MlflowClient", run: "Run", params: dict[str, Any]) -> None:
    from mlflow.entities import Param

    new = [Param(name, str(value)) for name, value in params.items() if value is not None]
    client.log_batch(run.info.run_id, params=[param for param in new if param.key not in run.data.params])


def _log_metrics(client: "MlflowClient", run: "Run", record: Record) -> None:
    place = TaskPlace(record.task)
    known = run.data.metrics
    now = int(time.time() * 1000)
    points: list[Metric] = []
    after = last_step(client, run.info.run_id) if "train.loss" in known else 0
    for point in _trained(record, now):
        if point.step > after:
            points += as_metrics(point)
    report = record.read(place.train_report) or {}
    final = {"train.kept_step": report.get("kept_step"), "train.last_loss": report.get("train_loss")}
    final |= {"valid.best_loss": report.get("valid_loss"), "valid.last_loss": report.get("last_valid_loss")}
    final["model.bytes"] = report.get("bytes")
    quality = record.read(place.quality) or {}
    final |= {"data.quarantine_rate": quality.get("quarantine_rate"), "data.rows": quality.get("rows")}
    metrics = record.read(place.metrics) or {}
    for group in ("base", "probe", "tuned", "gain"):
        final |= {f"{group}.{name}": value for name, value in metrics.get(group, {}).items()}
    if metrics:
        final["test.rows"] = metrics["rows"]
    final |= record.observed
    points += as_metrics(Point(0, now, {k: v for k, v in final.items() if v is not None and known.get(k) != v}))
    log_points(client, run.info.run_id, points)


def _trained(record: Record, now: int) -> list[Point]:
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


def last_step(client: "MlflowClient", run_id: str) -> int:
    """The last step whose training loss the store has; 0 for none."""
    return max((metric.step for metric in client.get_metric_history(run_id, "train.loss")), default=0)


def as_metrics(point: Point) -> "list[Metric]":
    from mlflow.entities import Metric

    return [Metric(name, float(value), point.time, point.step) for name, value in point.values.items()]


def log_points(client: "MlflowClient", run_id: str, points: "Sequence[Metric]") -> None:
    """Log metrics in batches: one by one costs 20 ms each on SQLite."""
    for start in range(0, len(points), _BATCH):
        client.log_batch(run_id, metrics=points[start : start + _BATCH])


def _log_inputs(client: "MlflowClient", run: "Run", record: Record, task: Task) -> None:
    """The raw data and the test rows as the run's inputs, with their digests."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    place = TaskPlace(record.task)
    quality, metrics = record.read(place.quality), record.read(place.metrics)
    name, source, made = Path(task.data).name, json.dumps({"uri": task.data}), []
    if quality:
        made.append((name, quality["raw_sha256"], quality["rows"], "training"))
    if metrics:
        made.append((f"{name} (test rows)", metrics["test_sha256"], metrics["rows"], "evaluation"))
    known = {given.dataset.digest for given in run.inputs.dataset_inputs} if run.inputs else set()
    inputs = [
        DatasetInput(
            Dataset(name, digest[:16], "local", source, profile=json.dumps({"num_rows": rows})),
            [InputTag("mlflow.data.context", context)],
        )
        for name, digest, rows, context in made
        if digest[:16] not in known
    ]
    if inputs:
        client.log_inputs(run.info.run_id, inputs)


def _tags(record: Record, task: Task) -> dict[str, str]:
    place = TaskPlace(record.task)
    report, quality = record.read(place.train_report) or {}, record.read(place.quality) or {}
    metrics = record.read(place.metrics) or {}
    tags = dict(record.lineage)
    tags["data.sha256"] = quality.get("raw_sha256", "")
    tags["base.digest"] = report.get("base", {}).get("digest", "")
    tags["params.sha256"] = hashlib.sha256(task.model_dump_json().encode()).hexdigest()
    tags["test.sha256"] = metrics.get("test_sha256", "")
    if record.file(place.delta).is_file():
        tags["delta.sha256"] = file_sha256(record.file(place.delta))
    if commit := tags.get("git.commit"):
        tags["mlflow.source.git.commit"] = commit
    tags["mlflow.note.content"] = _description(record, tags)
    return {name: value for name, value in tags.items() if value}


def _description(record: Record, tags: dict[str, str]) -> str:
    card = record.file(TaskPlace(record.task).card)
    lines = [f"Task `{record.task}`, fingerprint `{record.fingerprint}`.", ""]
    if command := tags.get("made.by"):
        lines += ["Made again by:", "", f"    {command}", ""]
        if files := tags.get("git.changed"):
            lines += [f"with changes that were not committed: {files}.", ""]
    return "\n".join(lines) + (card.read_text(encoding="utf-8") if card.is_file() else "")


def _artifacts(record: Record, scratch: Path) -> Iterator[tuple[str | None, Path]]:
    """(folder in the run, file) of everything that is uploaded: the record's files, then the figures drawn of them."""
    for path in _files(record):
        folder = path.relative_to(record.files).parent.as_posix()
        yield (None if folder == "." else folder), path
    for name, figure in _figures(record):
        path = scratch / f"{name}.png"
        figure.savefig(path, dpi=120)
        yield "figures", path


# More labels make no picture that anyone would look at.
_DRAWN_LABELS = 40


def _figures(record: Record) -> Iterator[tuple[str, Any]]:
    import polars as pl

    from biasline.evaluation import figures

    place = TaskPlace(record.task)
    if record.file(place.history).is_file():
        yield "loss", figures.loss_curve(pl.read_csv(record.file(place.history), infer_schema_length=None))
    if record.file(place.lengths).is_file():
        yield "lengths", figures.lengths(pl.read_csv(record.file(place.lengths)))
    metrics = record.read(place.metrics)
    if metrics:
        slices = pl.read_csv(record.file(place.slices))
        if slices.height and "sliced_by" in metrics:  # earlier evaluations do not say
            yield "metric_by_slice", figures.metric_by_slice(slices, metrics)
        change = pl.read_csv(record.file(place.bias_change))
        if change.height:
            yield "bias_change", figures.bias_change(change)
        if not record.file(place.predictions).is_file():
            return
        predictions = pl.read_parquet(record.file(place.predictions))
        if "tuned_error" in predictions.columns:
            yield "scores", figures.scores(predictions)
        if "probability" in predictions.columns and predictions["label"].n_unique() <= _DRAWN_LABELS:
            from biasline.evaluation.classify import calibration

            yield "confusion", figures.confusion(predictions)
            yield "calibration", figures.reliability(calibration(predictions))
