"""Sync: bring store and registry up to what outs, records and ledger say. As often as you like, without doubles."""

import os
from typing import TYPE_CHECKING

from biasline.layout import TaskPlace
from biasline.registry.promote import restore_aliases
from biasline.registry.versions import CANDIDATE, aliased, find_version, point, register_version
from biasline.tracking.publish import publish
from biasline.tracking.record import Record, all_records, note_candidate, record_of_workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


def register(client: "MlflowClient", record: Record) -> "ModelVersion":
    """Publish a record and register its model; outside an experiment it becomes the candidate."""
    run_id = publish(client, record)
    version = register_version(client, record, run_id)
    if not os.environ.get("DVC_EXP_NAME"):
        point(client, record.task, CANDIDATE, version.version)
        note_candidate(record.task, record.fingerprint)
    return version


def sync(client: "MlflowClient", task: str) -> list[str]:
    """Rebuild what the store lacks of one task.

    Returns: what was found or done, in words.
    """
    place, told = TaskPlace(task), []
    here = record_of_workspace(task)
    rebuilt = 0
    for record in all_records(task):
        had = find_version(client, task, record.fingerprint)
        run_id = publish(client, record)
        if had is None and record.file(place.delta).is_file() and record.read(place.metrics) is not None:
            register_version(client, record, run_id)
            rebuilt += 1
    told += restore_aliases(client, task)
    version = find_version(client, task, here.fingerprint) if here is not None else None
    if version is not None:
        candidate = aliased(client, task, CANDIDATE)
        if candidate is None and "dvc.experiment" not in here.lineage:
            point(client, task, CANDIDATE, version.version)
        elif candidate is not None and candidate.version != version.version:
            told.append(
                f"the workspace's model is version {version.version}, the candidate is version {candidate.version}: "
                f"`biasline nominate {task} {here.fingerprint}` would change that"
            )
    if rebuilt:
        told.insert(0, f"{rebuilt} versions registered anew")
    return told
