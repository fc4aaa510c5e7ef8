"""What a store has lost of what it lists: runs that were purged, files that are gone; made again from records."""

from typing import TYPE_CHECKING

from biasline.registry.aliases import CANDIDATE
from biasline.registry.versions import find_version
from biasline.serving.registered import aliased, has_files, run_of, versions_of
from biasline.tracking.publish import find_run, lost_files, publish
from biasline.tracking.record import Record, note_candidate, noted_candidate

if TYPE_CHECKING:
    from mlflow import MlflowClient


def restore_run(client: "MlflowClient", record: Record) -> tuple[str, list[str]]:
    """Publish a record, its files too where the store has lost them.

    Returns:
        the run's id, and what was made again, in words.
    """
    task, fingerprint = record.task, record.fingerprint
    purged = find_run(client, task, fingerprint) is None and find_version(client, task, fingerprint) is not None
    lost = lost_files(client, record)
    told = [f"the run of {fingerprint} was purged: published anew"] if purged else []
    told += [f"the run of {fingerprint} had lost files: uploaded again"] if lost else []
    return publish(client, record, anew=lost), told


def drop_empty_versions(client: "MlflowClient", record: Record) -> list[str]:
    """Delete a record's versions whose files the store has lost, since the record can be registered anew.

    Returns:
        what was deleted, in words.
    """
    told, candidate = [], aliased(client, record.task, CANDIDATE)
    for version in versions_of(client, record.task):
        if version.tags.get("biasline.fingerprint") != record.fingerprint or has_files(client, version):
            continue
        if candidate is not None and candidate.version == version.version and noted_candidate(record.task) is None:
            note_candidate(record.task, record.fingerprint)  # another machine named it
        client.delete_model_version(version.name, version.version)
        told.append(f"version {version.version} ({record.fingerprint}) had lost its files: deleted")
    return told


def lost_for_good(client: "MlflowClient", task: str) -> list[str]:
    """What the store has lost and no record here brings back, in words that name the way out."""
    told = []
    for version in versions_of(client, task):
        named = f"version {version.version} ({version.tags.get('biasline.fingerprint', '')})"
        if not has_files(client, version):
            place = client.get_model_version_download_uri(version.name, version.version)
            told.append(
                f"{named}: its files are gone and no record of it is here → copy them back to {place}, or "
                f"`biasline sync {task}` where its record lies"
            )
        if run_of(client, version) is None:
            told.append(
                f"{named}: its run was purged and no record of it is here → `biasline sync {task}` where that lies; "
                "the model itself answers as before"
            )
    return told
