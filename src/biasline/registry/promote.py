"""Decisions: nominate a candidate, promote it to champion, take that back. The ledger first, then the store."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from biasline.errors import BiaslineError
from biasline.layout import TaskPlace, home
from biasline.metrics.metric import Metric
from biasline.params import Task
from biasline.registry import ledger
from biasline.registry.aliases import CANDIDATE, CHAMPION, point, settle
from biasline.registry.evidence import on_rows_of, shown_by
from biasline.registry.gates import Shown, Verdict, judge
from biasline.registry.signing import Standing, standing
from biasline.registry.versions import judged_version, named_version, no_version
from biasline.serving.registered import aliased, model_name, run_of, versions_of
from biasline.serving.traffic import Agreement, agreements
from biasline.tracking.lineage import lineage, uncommitted_now
from biasline.tracking.record import note_candidate, pending_candidate
from biasline.tracking.store import lock

if TYPE_CHECKING:
    from filelock import FileLock
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
        made_of: the candidate's version, where that is another: some tenants have the champion's deltas in this one.
    """

    version: str
    fingerprint: str
    verdict: Verdict | None
    promoted: bool
    made_of: str = ""


def promote(
    client: "MlflowClient",
    task: str,
    params: Task,
    by: str,
    reason: str,
    *,
    dry_run: bool = False,
    run: str = "",
    champion_is_lost: bool = False,
) -> Decision:
    """Judge the candidate of a task and, where every gate passes, make it champion. Either way the ledger tells.

    Of a fleet, tenants that are shown to be worse off keep the champion's delta, unless `gates.carry_over` says no:
    what is judged and promoted is a version made of both.

    The ledger's line comes first and the aliases after it: a crash in between leaves a decision that the next command
    finishes.

    Args:
        client: client of the tracking store.
        task: name of the task.
        params: the task as params.yaml has it now: its gates count.
        by: who decides.
        reason: why.
        dry_run: judge only; neither ledger nor aliases change.
        run: judge this run's version instead of the candidate, see `named_version`.
        champion_is_lost: judge although the champion that the ledger names has no version any more.

    Raises:
        BiaslineError: where there is no candidate, or its run has no evaluation.
        Elsewhere: where another checkout moved the champion first.
    """
    with nullcontext() if dry_run else _decisions(task):
        if not dry_run:
            settle(client, task)
        candidate = named_version(client, task, run) if run else _candidate(client, task)
        fingerprint = candidate.tags["biasline.fingerprint"]
        champion = aliased(client, task, CHAMPION)
        if champion is None and not champion_is_lost:
            _check_never_had_one(task)
        if champion is not None and champion.version == candidate.version:
            return Decision(candidate.version, fingerprint, None, True)
        candidate_alone = shown = shown_by(client, candidate)
        rivals = _rivals(client, task, params, shown, champion)
        if champion is not None and rivals[0] is not None and params.tenants.many and params.gates.carry_over:
            from biasline.registry.carry import carry_over, with_carried

            shown = with_carried(params, shown, rivals[0], (candidate, champion))
        agreement = _agreement(task, params, champion, candidate, shown.carried)
        # Of a version that is made below nobody can have a signature yet: the candidate's own is what counts.
        signature = _signature(client, params, candidate)
        shown = replace(shown, agreement=agreement, signature=signature)
        changed = uncommitted_now(home())
        verdict = judge(params, shown, *rivals, changed)
        if dry_run:
            return Decision(candidate.version, fingerprint, verdict, False)
        value = candidate_alone.metrics["tuned"][verdict.metric]
        carried: dict[str, Any] = {}
        made_of = ""
        if champion is not None and shown.carried and verdict.passed:
            kept, made_of = list(shown.carried), str(candidate.version)
            carried = {"of": fingerprint, "from": champion.tags["biasline.fingerprint"], "tenants": kept}
            candidate = carry_over(client, candidate, champion, kept)
            fingerprint = candidate.tags["biasline.fingerprint"]
            if candidate.version == champion.version:
                return Decision(candidate.version, fingerprint, None, True)
            shown = replace(shown_by(client, candidate), carried=kept, agreement=agreement, signature=signature)
            verdict = judge(params, shown, *rivals, changed)
            value = shown.metrics["tuned"][verdict.metric]
        run_of_it = run_of(client, candidate)
        tags = run_of_it.data.tags if run_of_it is not None else {}
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
            metric=verdict.metric,
            value=value,
            **({"tenants": told} if (told := shown.metrics.get("tenants")) else {}),
            **({"carried": carried} if carried else {}),
            test_sha256=shown.metrics["test_sha256"],
            data_sha256=tags.get("data.sha256"),
            base_digest=tags.get("base.digest"),
            delta_sha256=candidate.tags.get("biasline.delta_sha256"),
            git={key: tags[key] for key in ("git.commit", "git.dirty") if key in tags},
            decided_at_commit=lineage().get("git.commit"),
        )
        settle(client, task)
        return Decision(candidate.version, fingerprint, verdict, verdict.passed, made_of)


def rollback(client: "MlflowClient", task: str, by: str, reason: str) -> "tuple[ModelVersion, ModelVersion | None]":
    """Make the champion before the present one champion again; another rollback goes one further back.

    Returns:
        the champion now, and the one that was it (None where no version of it is left in the registry).

    Raises:
        BiaslineError: where no champion came before, or the registry has no version of it.
    """
    with _decisions(task):
        settle(client, task)
        made = ledger.champions(TaskPlace(task).ledger)
        if len(made) < 2:
            word = "no champion" if not made else f"{made[0]['fingerprint']} is the first champion"
            raise BiaslineError(
                f"{model_name(task)}: {word}, there is none to go back to", f"`biasline history {task}` tells all"
            )
        left, back = made[-1], made[-2]
        fingerprint, package = back["fingerprint"], back.get("package")
        target = judged_version(versions_of(client, task), fingerprint, package)
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
            previous=left["fingerprint"],
            delta_sha256=target.tags.get("biasline.delta_sha256"),
            decided_at_commit=lineage().get("git.commit"),
        )
        settle(client, task)
        return target, was


def nominate(client: "MlflowClient", task: str, run: str, by: str, reason: str) -> "ModelVersion":
    """Make a run's registered version the candidate.

    Args:
        client: client of the tracking store.
        task: name of the task.
        run: a fingerprint or the beginning of one, a run's id, or its name.
        by: who decides.
        reason: why.

    Raises:
        BiaslineError: where nothing or more than one thing matches, or the run has no registered version.
    """
    with _decisions(task):
        settle(client, task)  # a broken ledger is told before it grows
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
        settle(client, task)
        return chosen


def _check_never_had_one(task: str) -> None:
    """Without its version a champion cannot be compared with, and a worse model would take its place unseen."""
    if made := ledger.champions(TaskPlace(task).ledger):
        raise BiaslineError(
            f"{model_name(task)}: champion {made[-1]['fingerprint']} has no version in the registry to compare with",
            f"`biasline sync {task}` where its record lies; if it is lost for good, --champion-is-lost",
        )


def _candidate(client: "MlflowClient", task: str) -> "ModelVersion":
    if pending_candidate(task):
        raise BiaslineError(
            f"{model_name(task)}: a model that was made while the store was away waits to be the candidate",
            f"biasline sync {task}",
        )
    found = aliased(client, task, CANDIDATE)
    if found is None:
        raise no_version(task, CANDIDATE)
    return found


def _rivals(
    client: "MlflowClient", task: str, params: Task, candidate: Shown, champion: "ModelVersion | None"
) -> tuple[Shown | None, Shown | None]:
    """The champion and, where that is another one, the best champion so far, on the candidate's test rows."""
    rival = best = None
    if champion is not None:
        rival = on_rows_of(client, champion, candidate, params)
        metric = params.declared(params.decided_by(candidate.metrics), candidate.metrics["tuned"])
        entry = _best(ledger.champions(TaskPlace(task).ledger), candidate, metric)
        version = entry and judged_version(versions_of(client, task), entry["fingerprint"], entry.get("package"))
        if version and version.version != champion.version:
            best = on_rows_of(client, version, candidate, params)
    return rival, best


def _agreement(
    task: str, params: Task, champion: "ModelVersion | None", candidate: "ModelVersion", carried: Sequence[str]
) -> Agreement | None:
    """What champion and candidate said to the same rows of users, where the gates ask for it.

    Tenants that keep the champion's delta will be told what they were told.
    """
    if champion is None or not params.gates.shadow_agreement:
        return None
    pair = tuple(version.tags["biasline.fingerprint"] for version in (champion, candidate))
    found = agreements(home() / params.gates.traffic, task, carried)
    return next((one for one in found if (one.fingerprint, one.shadow_fingerprint) == pair), None)


def _signature(client: "MlflowClient", params: Task, candidate: "ModelVersion") -> Standing | None:
    """How the candidate stands by the key that the gates ask for."""
    wanted = params.gates.require_signature
    return standing(client, candidate, home() / wanted) if wanted else None


def _best(made: Sequence[dict[str, Any]], candidate: Shown, metric: Metric) -> dict[str, Any] | None:
    """The decision that made the best of the champions before the present one; None where that is as good as any.

    Margins would creep if each candidate were held against its predecessor alone. Values count where they are of the
    candidate's test rows; where none is, all do.
    """
    known = [entry for entry in made if entry.get("value") is not None and entry.get("metric") == metric.name]
    same = [entry for entry in known if entry.get("test_sha256") == candidate.metrics["test_sha256"]]
    sign = 1 if metric.higher_is_better else -1
    best = max(reversed(same or known), key=lambda entry: sign * entry["value"], default=None)
    return None if best is None or best["fingerprint"] == made[-1]["fingerprint"] else best


def _decisions(task: str) -> "FileLock":
    """Held for the whole of a decision: decisions on one machine come one after the other."""
    return lock(f"decisions-{task}")
