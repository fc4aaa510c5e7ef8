"""Sync: bring store and registry up to what outs, records and ledger say. As often as you like, without doubles."""

import os
import sys
from typing import TYPE_CHECKING

from biasline.errors import BiaslineError, first_line
from biasline.jsonfile import dump_json
from biasline.layout import TaskPlace, write_text
from biasline.params import method_spec
from biasline.registry.aliases import CANDIDATE, point, settle
from biasline.registry.claims import Elsewhere
from biasline.registry.restore import drop_empty_versions, lost_for_good, restore_run
from biasline.registry.versions import find_version, register_version, registered_note
from biasline.serving.registered import aliased
from biasline.tracking.publish import end_orphans, publish
from biasline.tracking.record import (
    Record,
    all_records,
    note_candidate,
    note_pending,
    pending_candidate,
    record_of_workspace,
)
from biasline.tracking.store import connect, store_is_away
from biasline.tracking.uris import shown_uri

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


def register_or_note(record: Record) -> str:
    """Register a record's model, or publish its run alone where its method makes none to register.

    A store that is away stops nothing: what was to be done is noted, and `sync` does it.

    Returns:
        what was done, in words.
    """
    method = method_spec(record.resolved().train.method)
    try:
        client = connect()
        if not method.registrable:
            publish(client, record)
            return f"{method.name}: compared, not registered; its run is in {shown_uri()}"
        version = register(client, record)
        candidate = aliased(client, record.task, CANDIDATE)
    except Exception as error:
        if not store_is_away(error):
            raise
        if method.registrable and not os.environ.get("DVC_EXP_NAME"):
            note_pending(record.task, record.fingerprint)
        print(f"warning: not registered: {first_line(error)}", file=sys.stderr)
        return "the store is away; `biasline sync` registers it once it answers"
    is_candidate = candidate is not None and candidate.version == version.version
    alias = "the candidate" if is_candidate else "without an alias"
    return f"{version.name} version {version.version}, {alias}, in {shown_uri()}"


def register_workspace(place: TaskPlace) -> str:
    """Register the workspace's model, and write the stage's out, `registered.json`.

    Returns:
        what was done, in words.

    Raises:
        BiaslineError: where nothing was trained.
    """
    record = record_of_workspace(place.task)
    if record is None:
        raise BiaslineError(f"{place.model}: no trained model", f"dvc repro train@{place.task}")
    note = dump_json(registered_note(record))
    done = register_or_note(record)
    write_text(place.registered, note)
    return done


def sync(client: "MlflowClient", task: str) -> list[str]:
    """Rebuild what the store lacks of one task.

    Returns:
        what was found or done, in words.
    """
    place, told = TaskPlace(task), []
    if orphans := end_orphans(client, task):
        told.append(f"{orphans} runs whose process was killed are ended as KILLED")
    here = record_of_workspace(task)
    rebuilt = 0
    pending = pending_candidate(task)
    for record in all_records(task):
        run_id, done = restore_run(client, record)
        told += done
        if not record.file(place.delta).is_file() or record.read(place.metrics) is None:
            continue
        if not method_spec(record.resolved().train.method).registrable:
            continue
        told += drop_empty_versions(client, record)
        # What was registered before may have been evaluated anew since, while the store was away.
        if find_version(client, task, record.fingerprint) is None or record.fingerprint == pending:
            register_version(client, record, run_id)
            rebuilt += 1
    told += lost_for_good(client, task)
    try:
        told += settle(client, task)
    except Elsewhere as error:
        told.append(str(error))
    awaited = find_version(client, task, pending) if pending else None
    if awaited is not None:
        point(client, task, CANDIDATE, awaited.version)
        note_candidate(task, awaited.tags["biasline.fingerprint"])
        told.append(f"version {awaited.version}, made while the store was away, is the candidate")
    version = find_version(client, task, here.fingerprint) if here is not None else None
    if here is not None and version is not None:
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
