"""Aliases: candidate, champion and previous, pointed where the ledger says; decisions told on the versions."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from biasline.layout import TaskPlace
from biasline.registry import claims, ledger
from biasline.registry.ledger import CANDIDATE, CHAMPION, PREVIOUS
from biasline.registry.versions import judged_version
from biasline.serving.registered import aliased, has_model, model_name, versions_of
from biasline.tracking.limits import REGISTRY_TAG, fitted
from biasline.tracking.record import note_champion, noted_candidate
from biasline.tracking.store import upsert

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

__all__ = ["CANDIDATE", "CHAMPION", "PREVIOUS", "point", "settle"]


def point(client: "MlflowClient", task: str, alias: str, version_number: str) -> None:
    """Point an alias at a version, unless it does so already."""
    now = aliased(client, task, alias)
    if now is None or now.version != version_number:
        upsert(client.set_registered_model_alias, model_name(task), alias, version_number)
    if alias == CHAMPION:
        version = client.get_model_version(model_name(task), version_number)
        note_champion(task, version.tags["biasline.fingerprint"])


def settle(client: "MlflowClient", task: str) -> list[str]:
    """Bring the store up to the ledger: finish a decision that was cut off, put aliases right, tell decisions as tags.

    `candidate` is pointed at the last nominee if it is gone.

    Returns:
        what could not be restored, in words; a champion whose version nobody has a record of stays missing.

    Raises:
        Elsewhere: where another checkout moved the champion and the ledger here does not tell of it.
    """
    path, lost = TaskPlace(task).ledger, []
    if has_model(client, task):
        claims.settle(client, task, path)
    made = ledger.champions(path)
    wanted = [(alias, move["fingerprint"], move.get("package")) for alias, move in ledger.holders(path).items()]
    named = noted_candidate(task) or ledger.nominee(path)
    if named is not None and aliased(client, task, CANDIDATE) is None:
        wanted.append((CANDIDATE, named, None))
    versions = versions_of(client, task)
    for alias, fingerprint, package in wanted:
        version = judged_version(versions, fingerprint, package)
        if version is None:
            lost.append(f"{alias}: no version of fingerprint {fingerprint} in the registry, and no record of it here")
        else:
            point(client, task, alias, version.version)
    if len(made) == 1 and aliased(client, task, PREVIOUS) is not None:
        client.delete_registered_model_alias(model_name(task), PREVIOUS)  # the champion before was rolled back to
    _tell(client, versions, ledger.entries(path))
    return lost


def _decision_tags(entry: dict[str, Any]) -> dict[str, str]:
    """The last decision about a version, as its tags."""
    tags = {"decision": entry["decision"], "decision.time": entry["time"], "decision.by": entry.get("by", "")}
    tags |= {"decision.reason": entry.get("reason", ""), "decision.id": entry["id"]}
    tags["decision.standing"] = (entry.get("verdict") or {}).get("standing", "")
    return {name: fitted(value, REGISTRY_TAG) for name, value in tags.items() if value}


def _tell(client: "MlflowClient", versions: "Sequence[ModelVersion]", entries: Iterable[dict[str, Any]]) -> None:
    """Write the last decision about each version on it, where it is not there."""
    last = {}
    for entry in entries:
        version = judged_version(versions, entry["fingerprint"], entry.get("package"))
        if version is not None:
            last[version.version] = version, entry
    for version, entry in last.values():
        tags = _decision_tags(entry)
        if version.tags.get("decision.id") == entry["id"]:
            continue
        for name in [name for name in version.tags if name.split(".")[0] == "decision" and name not in tags]:
            client.delete_model_version_tag(version.name, version.version, name)
        # The id comes last: what was cut off before it is written again.
        for name in sorted(tags, key="decision.id".__eq__):
            upsert(client.set_model_version_tag, version.name, version.version, name, tags[name])
