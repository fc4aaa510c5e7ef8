"""Evidence: what a registered version showed, from its run; on other test rows, asked anew."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from biasline.errors import BiaslineError
from biasline.evaluation.measure import has_row_values
from biasline.jsonfile import load_json
from biasline.layout import TaskPlace
from biasline.params import Task
from biasline.registry.gates import Shown
from biasline.serving.packaging import metrics_sha256
from biasline.serving.registered import model_name, read_package, run_file, run_of
from biasline.tracking.lineage import uncommitted_when_made

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_COSTS = ("model.bytes", "base.latency_ms", "tuned.latency_ms")


def shown_by(client: "MlflowClient", version: "ModelVersion") -> Shown:
    """What a version's run says of it.

    Raises:
        BiaslineError: where the run has no evaluation, or was evaluated again since the version was packaged.
    """
    shown, is_its_own = _latest(client, version)
    if not is_its_own:
        raise BiaslineError(
            f"{version.name} version {version.version}: its run was evaluated again after it was packaged",
            "`biasline sync` brings this workspace's evaluation back; `dvc repro --force register@…` packages anew",
        )
    return shown


def on_rows_of(client: "MlflowClient", version: "ModelVersion", candidate: Shown, task: Task) -> Shown:
    """What a version shows on a candidate's test rows: what its run says, or, where that was of others, asked now.

    Asked now, its metrics stay those of its run.

    Raises:
        BiaslineError: where its run has no evaluation, or it is of another kind.
    """
    own, is_its_own = _latest(client, version)
    same_rows = own.metrics["test_sha256"] == candidate.metrics["test_sha256"]
    scored = {name for name in candidate.predictions.columns if name.startswith("tuned")} <= set(
        own.predictions.columns
    )
    metric = task.declared(task.decided_by(candidate.metrics), candidate.metrics["tuned"])
    # An earlier evaluation may have the likelihood of each row and not name it among its metrics.
    measured = metric.name in own.metrics["tuned"] or has_row_values(own.predictions, metric)
    if is_its_own and same_rows and scored and measured:
        return own
    from biasline.serving.rescore import scored_on

    package = read_package(version)
    if package.task.kind != task.kind:
        raise BiaslineError(
            f"{version.name} version {version.version} is a {package.task.kind}, the candidate a {task.kind}: they "
            "cannot be compared",
            "a task of another kind wants another name",
        )
    rows = scored_on(package, candidate.predictions, task.evaluate.metrics)
    return replace(own, name=f"{own.name}, asked the candidate's test rows", predictions=rows)


def _latest(client: "MlflowClient", version: "ModelVersion") -> tuple[Shown, bool]:
    """What a version's run says, and whether that is of the evaluation that the version was packaged with."""
    place = TaskPlace(version.name.removeprefix(model_name("")))
    fingerprint = version.tags["biasline.fingerprint"]
    with tempfile.TemporaryDirectory() as scratch:
        metrics, predictions, quality = (
            run_file(client, version, path, Path(scratch)) for path in (place.metrics, place.predictions, place.quality)
        )
        is_its_own = metrics_sha256(metrics) == version.tags.get("biasline.metrics_sha256")
        found, rows = load_json(metrics, "biasline sync"), pl.read_parquet(predictions)
        told = load_json(quality, "biasline sync")
        tenants: frozenset[str] = frozenset()
        if version.tags.get("biasline.tenants"):
            table = run_file(client, version, place.own_report, Path(scratch))
            tenants = frozenset(pl.read_parquet(table, columns=["tenant"])["tenant"])
    run = run_of(client, version)
    tags, measured = (run.data.tags, run.data.metrics) if run is not None else ({}, {})
    uncommitted = uncommitted_when_made(tags) if run is not None else "not known, its run was purged from the store"
    costs = {name: measured[name] for name in _COSTS if name in measured}
    name = f"version {version.version} ({fingerprint[:8]})"
    shown = Shown(name, found, rows, told, costs, uncommitted, tenants)
    return shown, is_its_own
