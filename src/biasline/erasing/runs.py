"""Trainings that had rows: their records here, their runs and versions in the store; found, and deleted for good."""

import shutil
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biasline.errors import first_line
from biasline.layout import TaskPlace, checkpoints, local_state, own_trainings, record_folder
from biasline.registry.aliases import CANDIDATE, CHAMPION, PREVIOUS
from biasline.serving.registered import aliased, has_model, model_name, versions_of
from biasline.tracking.record import Record, noted_candidate
from biasline.tracking.store import find_experiment
from biasline.tracking.uris import database, tracking_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

# How a training had a row. One of which nothing was noted is taken to have learned from it.
LEARNED, JUDGED, QUARANTINED, UNKNOWN = "trained on", "only judged by", "only quarantined", "not known"


@dataclass(frozen=True)
class Trainings:
    """Trainings of a task that had rows.

    Attributes:
        how: fingerprint → in which way it had them.
        runs: id of a run in MLflow → its training's fingerprint.
        versions: number of a registered version → likewise.
        aliases: alias → fingerprint that it points at, of these.
        records: folders of records here.
        checkpoints: folders of checkpoints here.
    """

    how: dict[str, str]
    runs: dict[str, str]
    versions: dict[str, str]
    aliases: dict[str, str]
    records: list[Path]
    checkpoints: list[Path]


def trainings_with(client: "MlflowClient", task: str, hashes: Collection[str]) -> Trainings:
    """The trainings that had some rows.

    Args:
        client: client of the tracking store.
        task: name of the task.
        hashes: of the rows' content keys, see `record.row_hash`.
    """
    folder = local_state() / "records" / task
    here = {path.name for path in folder.iterdir() if path.is_dir()} if folder.is_dir() else set()
    runs = _runs(client, task)
    versions = versions_of(client, task) if has_model(client, task) else []
    fingerprints = here | {run for run in runs.values() if run} | {_fingerprint(version) for version in versions}
    how = {name: told for name in sorted(fingerprints) if (told := _how(Record(task, name), hashes))}
    held = {alias: aliased(client, task, alias) for alias in (CHAMPION, PREVIOUS, CANDIDATE)}
    return Trainings(
        how,
        {run: name for run, name in runs.items() if name in how},
        {str(version.version): _fingerprint(version) for version in versions if _fingerprint(version) in how},
        {alias: _fingerprint(one) for alias, one in held.items() if one is not None and _fingerprint(one) in how},
        [record_folder(task, name) for name in how if name in here],
        [checkpoints() / name for name in how if (checkpoints() / name).is_dir()],
    )


def _fingerprint(version: Any) -> str:
    return str(version.tags.get("biasline.fingerprint", ""))


def _how(record: Record, hashes: Collection[str]) -> str:
    """In which way a training had rows; empty where it had none."""
    found = record.splits_with(hashes)
    if found is None:
        return UNKNOWN
    if not found:
        return ""
    return LEARNED if {"train", "valid"} & found.keys() else JUDGED if "test" in found else QUARANTINED


def _runs(client: "MlflowClient", task: str) -> dict[str, str]:
    experiment = find_experiment(client, task)
    found: dict[str, str] = {}
    token = None
    while experiment is not None:
        page = client.search_runs([experiment], run_view_type=3, max_results=1000, page_token=token)  # deleted ones too
        found |= {run.info.run_id: run.data.tags.get("biasline.fingerprint", "") for run in page}
        token = page.token
        if not token:
            break
    return found


def delete_trainings(client: "MlflowClient", task: str, gone: Collection[str], since: float) -> list[str]:
    """Delete trainings for good: versions, runs, their files, records, checkpoints.

    Args:
        client: client of the tracking store.
        task: name of the task.
        gone: their fingerprints.
        since: seconds since 1970: trainings of a fleet's tenants that were not used since go too.

    Returns:
        what could not be reached, in words.
    """
    lost = _delete_from_store(client, task, gone)
    for name in gone:
        shutil.rmtree(record_folder(task, name), ignore_errors=True)
        shutil.rmtree(checkpoints() / name, ignore_errors=True)
        for signature in TaskPlace(task).signatures.glob(f"{name}*.json"):
            signature.unlink()
    if noted_candidate(task) in gone:
        (local_state() / "records" / task / "candidate").unlink(missing_ok=True)
    champion = local_state() / "records" / task / "champion"
    if champion.is_file() and champion.read_text(encoding="utf-8").strip() in gone:
        champion.unlink()
    for path in own_trainings(task).glob("*") if own_trainings(task).is_dir() else ():
        if path.with_suffix(".json").is_file() and path.with_suffix(".json").stat().st_mtime >= since:
            continue
        path.unlink()
    # Answers of untuned bases to test rows: kept to save time alone.
    shutil.rmtree(local_state() / "untuned", ignore_errors=True)
    return lost


def _delete_from_store(client: "MlflowClient", task: str, gone: Collection[str]) -> list[str]:
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    lost: list[str] = []

    def delete_files(place: str, whose: str) -> None:
        try:
            get_artifact_repository(place).delete_artifacts()
        except (MlflowException, OSError, NotImplementedError) as error:
            if not isinstance(error, FileNotFoundError):
                lost.append(f"files of {whose} at {place}: {first_line(error)}")

    versions = versions_of(client, task) if has_model(client, task) else []
    held = {alias: aliased(client, task, alias) for alias in (CHAMPION, PREVIOUS, CANDIDATE)}
    for alias, version in held.items():
        if version is not None and _fingerprint(version) in gone:
            client.delete_registered_model_alias(model_name(task), alias)
    for version in versions:
        if _fingerprint(version) in gone:
            client.delete_model_version(version.name, version.version)
    runs = [run for run, name in _runs(client, task).items() if name in gone]
    experiment = find_experiment(client, task)
    models = {
        model.model_id: model.artifact_location
        for run in runs
        for model in client.search_logged_models([str(experiment)], f"source_run_id = '{run}'")
    }
    for model, place in models.items():
        delete_files(place, f"the model {model}")
        client.delete_logged_model(model)
    for run in runs:
        delete_files(client.get_run(run).info.artifact_uri, f"the run {run}")
        with suppress(MlflowException):  # it was in the bin already
            client.delete_run(run)
    lost += _forget_for_good(runs, list(models))
    return lost


def _forget_for_good(runs: Sequence[str], models: Sequence[str]) -> list[str]:
    """Out of the store's bin, as `mlflow gc` does; that command empties the bin of everybody else's experiments too."""
    if not runs and not models:
        return []
    if tracking_uri().startswith("http"):
        told = f"mlflow gc --run-ids {','.join(runs)}" + (f" --logged-model-ids {','.join(models)}" if models else "")
        return [f"the server's database keeps what it calls deleted, until `{told}` runs there"]
    from mlflow.exceptions import MlflowException
    from mlflow.tracking._tracking_service.utils import _get_store

    store = _get_store()
    for forget, names in ((store._hard_delete_run, runs), (store._hard_delete_logged_model, models)):
        for name in names:
            with suppress(MlflowException):  # a first try was cut off after it
                forget(name)
    file = database()
    if file is not None:
        import sqlite3

        with sqlite3.connect(file) as connection:
            connection.execute("VACUUM")  # else their text stays in pages that nothing uses
    return []
