"""Decisions: nominate a candidate, promote it to champion, take that back; aliases put right from the ledger."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from filelock import FileLock

from biasline.errors import BiaslineError
from biasline.jsonfile import load_json
from biasline.layout import TaskPlace, local_state
from biasline.params import Task
from biasline.registry import ledger
from biasline.registry.gates import Verdict, judge
from biasline.registry.versions import (
    CANDIDATE,
    CHAMPION,
    PREVIOUS,
    aliased,
    find_version,
    metrics_sha256,
    model_name,
    named_version,
    point,
)
from biasline.tracking.lineage import lineage
from biasline.tracking.record import note_candidate, noted_candidate, pending_candidate

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Decision:
    """What a promotion came to.

    Attributes:
        version: the candidate's version.
        fingerprint: its fingerprint.
        verdict: None where it was champion already.
        promoted: whether it is champion now.
    """

    version: str
    fingerprint: str
    verdict: Verdict | None
    promoted: bool


def promote(client: "MlflowClient", task: str, params: Task, by: str, reason: str, dry_run: bool = False) -> Decision:
    """Judge the candidate of a task and, where every gate passes, make it champion. Either way the ledger tells.

    The ledger's line comes first and the aliases after it: a crash in between leaves a decision that
    `restore_aliases` finishes.

    Args:
        dry_run: judge only; neither ledger nor aliases change.

    Errors: `BiaslineError` where there is no candidate, or its run has no evaluation.
    """
    with _decisions(task):
        if pending_candidate(task):
            raise BiaslineError(
                f"{model_name(task)}: a model that was made while the store was away waits to be the candidate",
                f"biasline sync {task}",
            )
        if not dry_run:
            restore_aliases(client, task)
        candidate = aliased(client, task, CANDIDATE)
        if candidate is None:
            raise BiaslineError(
                f"{model_name(task)}: no candidate to promote",
                f"make one: `dvc repro register@{task}`, or name a run's: `biasline nominate {task} FINGERPRINT`",
            )
        fingerprint = candidate.tags["biasline.fingerprint"]
        champion = aliased(client, task, CHAMPION)
        if champion is not None and champion.version == candidate.version:
            return Decision(candidate.version, fingerprint, None, True)
        metrics, predictions = _evaluation(client, candidate)
        verdict = judge(params.gates, params.metric, metrics, predictions)
        if dry_run:
            return Decision(candidate.version, fingerprint, verdict, False)
        run = client.get_run(candidate.run_id)
        ledger.append(
            TaskPlace(task).ledger,
            ledger.PROMOTED if verdict.passed else ledger.REFUSED,
            by=by,
            reason=reason,
            version=candidate.version,
            fingerprint=fingerprint,
            package=candidate.tags.get("biasline.package"),
            previous=champion.tags["biasline.fingerprint"] if champion is not None else None,
            verdict=verdict.as_data(),
            test_sha256=metrics["test_sha256"],
            data_sha256=run.data.tags.get("data.sha256"),
            base_digest=run.data.tags.get("base.digest"),
            delta_sha256=candidate.tags.get("biasline.delta_sha256"),
            git={key: run.data.tags[key] for key in ("git.commit", "git.dirty") if key in run.data.tags},
            decided_at_commit=lineage().get("git.commit"),
        )
        if verdict.passed:
            restore_aliases(client, task)
        return Decision(candidate.version, fingerprint, verdict, verdict.passed)


def rollback(client: "MlflowClient", task: str, by: str, reason: str) -> "tuple[ModelVersion, ModelVersion | None]":
    """Make the champion before the present one champion again; another rollback goes one further back.

    Returns: the champion now, and the one that was it (None where no version of it is left in the registry).

    Errors: `BiaslineError` where no champion came before, or the registry has no version of it.
    """
    with _decisions(task):
        restore_aliases(client, task)
        made = ledger.champions(TaskPlace(task).ledger)
        if len(made) < 2:
            word = "no champion" if not made else f"{made[0][0]} is the first champion"
            raise BiaslineError(
                f"{model_name(task)}: {word}, there is none to go back to", f"`biasline history {task}` tells all"
            )
        (left, _), (fingerprint, package) = made[-1], made[-2]
        target = _version_of(client, task, fingerprint, package)
        if target is None:
            raise BiaslineError(
                f"{model_name(task)}: the champion before, {fingerprint}, has no version in the registry",
                f"`biasline sync {task}` where its record lies",
            )
        was = aliased(client, task, CHAMPION)
        ledger.append(
            TaskPlace(task).ledger,
            ledger.ROLLED_BACK,
            by=by,
            reason=reason,
            version=target.version,
            fingerprint=fingerprint,
            package=package,
            previous=left,
            delta_sha256=target.tags.get("biasline.delta_sha256"),
            decided_at_commit=lineage().get("git.commit"),
        )
        restore_aliases(client, task)
        return target, was


def nominate(client: "MlflowClient", task: str, run: str, by: str, reason: str) -> "ModelVersion":
    """Make a run's registered version the candidate.

    Args:
        run: a fingerprint or the beginning of one, a run's id, or its name.

    Errors: `BiaslineError` where nothing or more than one thing matches, or the run has no registered version.
    """
    with _decisions(task):
        list(ledger.entries(TaskPlace(task).ledger))  # a broken ledger is told before it grows
        chosen = named_version(client, task, run)
        fingerprint = chosen.tags["biasline.fingerprint"]
        ledger.append(
            TaskPlace(task).ledger,
            ledger.NOMINATED,
            by=by,
            reason=reason,
            version=chosen.version,
            fingerprint=fingerprint,
        )
        point(client, task, CANDIDATE, chosen.version)
        note_candidate(task, fingerprint)
        return chosen


def restore_aliases(client: "MlflowClient", task: str) -> list[str]:
    """Point `champion` and `previous` where the ledger says, and `candidate` at the last nominee if it is gone.

    Returns: what could not be restored, in words; a champion whose version nobody has a record of stays missing.
    """
    path, lost = TaskPlace(task).ledger, []
    made = ledger.champions(path)
    wanted = list(zip((CHAMPION, PREVIOUS), reversed(made[-2:]), strict=False))
    named = noted_candidate(task) or ledger.nominee(path)
    if named is not None and aliased(client, task, CANDIDATE) is None:
        wanted.append((CANDIDATE, (named, None)))
    for alias, (fingerprint, package) in wanted:
        version = _version_of(client, task, fingerprint, package)
        if version is None:
            lost.append(f"{alias}: no version of fingerprint {fingerprint} in the registry, and no record of it here")
        else:
            point(client, task, alias, version.version)
    if len(made) == 1 and aliased(client, task, PREVIOUS) is not None:
        client.delete_registered_model_alias(model_name(task), PREVIOUS)  # the champion before was rolled back to
    return lost


def _version_of(client: "MlflowClient", task: str, fingerprint: str, package: str | None) -> "ModelVersion | None":
    """The very package that was judged; where a rebuilt store has only the same delta packaged anew, that."""
    return find_version(client, task, fingerprint, package) or find_version(client, task, fingerprint)


def _evaluation(client: "MlflowClient", candidate: "ModelVersion") -> tuple[dict[str, Any], pl.DataFrame]:
    place = TaskPlace("x")
    with tempfile.TemporaryDirectory() as scratch:
        found = {item.path for item in client.list_artifacts(candidate.run_id, place.evaluation.name)}
        wanted = [f"{place.evaluation.name}/{path.name}" for path in (place.metrics, place.predictions)]
        if not found.issuperset(wanted):
            raise BiaslineError(
                f"{candidate.name} version {candidate.version}: its run has no evaluation", "biasline sync"
            )
        metrics, predictions = (
            Path(client.download_artifacts(candidate.run_id, name, dst_path=scratch)) for name in wanted
        )
        if metrics_sha256(metrics) != candidate.tags.get("biasline.metrics_sha256"):
            raise BiaslineError(
                f"{candidate.name} version {candidate.version}: its run was evaluated again after it was packaged",
                "`biasline sync` brings this workspace's evaluation back; `dvc repro --force register@…` packages anew",
            )
        return load_json(metrics, "biasline sync"), pl.read_parquet(predictions)


def _decisions(task: str) -> FileLock:
    """Held for the whole of a decision: decisions on one machine come one after the other."""
    folder = local_state()
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"decisions-{task}.lock")
