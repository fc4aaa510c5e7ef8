"""From a record to its MLflow run: found by fingerprint, made where missing, completed where it lacks something."""

import hashlib
import json
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from biasline.bases.pin import file_sha256
from biasline.errors import BiaslineError
from biasline.figures.palette import COLORS
from biasline.layout import OWN_PACKED, TaskPlace, home
from biasline.params import Task
from biasline.tracking.contents import artifacts, files, points_of, run_name, run_params, run_tags, single_metrics, span
from biasline.tracking.limits import PARAM, RUN_NAME, RUN_TAG, fitted
from biasline.tracking.record import Point, Record
from biasline.tracking.store import experiment_id, find_experiment, store_lock, upsert
from biasline.tracking.views import share_view_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

_BATCH = 500
LOSS = "train.loss"
_PUBLISHED, _HOME = "biasline.published", "biasline.home"


def find_run(client: "MlflowClient", task: str, fingerprint: str) -> "Run | None":
    """The run of a fingerprint; None where the store has none."""
    experiment = find_experiment(client, task)
    if experiment is None:
        return None
    runs = client.search_runs(
        [experiment],
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
        task, experiment = record.resolved(), experiment_id(client, record.task)
        carried = record.lineage.get("carried.tenants")
        name = run_name(task) + (f" · {carried} carried over" if carried else "")
        before = len(client.search_runs([experiment], max_results=len(COLORS) * 100))
        run = client.create_run(
            experiment,
            start_time=span(record)[0],
            run_name=f"{fitted(name, RUN_NAME - 10)} · {record.fingerprint[:6]}",
            tags={
                "biasline.fingerprint": record.fingerprint,
                "biasline.task": record.task,
                # MLflow's own choice gives neighbours one colour.
                "mlflow.runColor": COLORS[before % len(COLORS)],
            },
        )
        return run.info.run_id


def begin_run(client: "MlflowClient", record: Record) -> str:
    """The id of a record's run, which this process trains from now on."""
    run_id = open_run(client, record)
    client.set_tag(run_id, _HOME, here())
    client.update_run(run_id, status="RUNNING")
    return run_id


def here() -> str:
    """This checkout on this machine, as a hash: whose process trains a run is nobody else's to say."""
    return hashlib.sha256(f"{platform.node()}:{home()}".encode()).hexdigest()[:16]


def end_orphans(client: "MlflowClient", task: str) -> int:
    """End as KILLED the runs that processes of this machine left running, as after a SIGKILL.

    Returns:
        how many there were. Runs that another checkout or machine started stay as they are.
    """
    experiment = find_experiment(client, task)
    running = client.search_runs([experiment], filter_string="attributes.status = 'RUNNING'") if experiment else []
    ended = 0
    for run in running:
        record = Record(task, run.data.tags.get("biasline.fingerprint", ""))
        if not record.fingerprint or run.data.tags.get(_HOME) != here():
            continue
        try:
            with record.running:
                # It may have ended since it was listed.
                if client.get_run(run.info.run_id).info.status == "RUNNING":
                    client.set_terminated(run.info.run_id, "KILLED")
                    ended += 1
        except (Timeout, BiaslineError):  # its process lives, or is another user's
            continue
    return ended


def lost_files(client: "MlflowClient", record: Record) -> bool:
    """Whether a record's run was published, and the store has not all of the record's files any more."""
    run = find_run(client, record.task, record.fingerprint)
    if run is None or run.data.tags.get(_PUBLISHED) != _digest(record):
        return False
    wanted: dict[str, set[str]] = {}
    own = record.file(TaskPlace(record.task).own)
    for path in (*files(record), *([own.with_name(OWN_PACKED)] if own.is_dir() else [])):
        if path.parent == own:  # these are packed into one
            continue
        place = path.relative_to(record.files)
        wanted.setdefault(place.parent.as_posix(), set()).add(place.as_posix())
    return any(
        not names <= {item.path for item in client.list_artifacts(run.info.run_id, None if folder == "." else folder)}
        for folder, names in wanted.items()
    )


def publish(client: "MlflowClient", record: Record, *, anew: bool = False) -> str:
    """Bring a record's run up to what the record holds; does nothing where it is so already.

    Args:
        client: client of the tracking store.
        record: the run's record.
        anew: upload its files although they were uploaded before.

    Returns:
        the run's id.
    """
    run_id = open_run(client, record)
    run = client.get_run(run_id)
    digest = _digest(record)
    if run.data.tags.get(_PUBLISHED) == digest and not anew:
        # It was trained again, and that was broken off; what it published first is all there.
        if run.info.status not in ("FINISHED", "RUNNING"):
            client.set_terminated(run_id, "FINISHED", end_time=span(record)[1])
        return run_id
    task = record.resolved()
    _log_params(client, run, run_params(record, task))
    _log_metrics(client, run, record)
    _log_inputs(client, run, record, task)
    with tempfile.TemporaryDirectory() as scratch:
        for folder, path in artifacts(record, Path(scratch)):
            client.log_artifact(run_id, str(path), folder)
    for name, value in run_tags(record, task).items():
        upsert(client.set_tag, run_id, name, fitted(value, RUN_TAG))
    if run.info.status != "FINISHED":
        client.set_terminated(run_id, "FINISHED", end_time=span(record)[1])
    client.set_tag(run_id, _PUBLISHED, digest)
    metrics = record.read(TaskPlace(record.task).metrics) or {}
    metric = task.declared(task.decided_by(metrics), metrics.get("tuned", ()))
    share_view_of(client, run.info.experiment_id, metric)
    return run_id


def _digest(record: Record) -> str:
    listed = [(path.relative_to(record.files).as_posix(), file_sha256(path)) for path in files(record)]
    return hashlib.sha256(repr((listed, record.observed)).encode()).hexdigest()[:16]


def _log_params(client: "MlflowClient", run: "Run", params: dict[str, Any]) -> None:
    from mlflow.entities import Param

    new = [Param(name, fitted(str(value), PARAM)) for name, value in params.items() if value is not None]
    client.log_batch(run.info.run_id, params=[param for param in new if param.key not in run.data.params])


def _log_metrics(client: "MlflowClient", run: "Run", record: Record) -> None:
    known = run.data.metrics
    now = int(time.time() * 1000)
    points: list[Metric] = []
    after = last_step(client, run.info.run_id) if "train.loss" in known else 0
    for point in points_of(record, now):
        if point.step > after:
            points += as_metrics(point)
    final = single_metrics(record)
    points += as_metrics(Point(0, now, {k: v for k, v in final.items() if known.get(k) != v}))
    log_points(client, run.info.run_id, points)


def last_step(client: "MlflowClient", run_id: str) -> int:
    """The last step whose training loss the store has; 0 for none."""
    return max((metric.step for metric in client.get_metric_history(run_id, LOSS)), default=0)


def as_metrics(point: Point) -> "list[Metric]":
    """A reported point as MLflow's metrics."""
    from mlflow.entities import Metric

    # The loss last: a step that has it has all, wherever a batch was cut.
    ordered = sorted(point.values.items(), key=lambda item: item[0] == LOSS)
    return [Metric(name, float(value), point.time, point.step) for name, value in ordered]


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
