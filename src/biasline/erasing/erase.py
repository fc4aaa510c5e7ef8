"""`biasline erase`: rows out of everything that has them; what learned from them trained again, judged and promoted.

What is to be done is noted first, and each step once it is done: after a crash the same command goes on.
"""

import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from biasline.bases.pin import file_sha256
from biasline.data.tombstones import Tombstones
from biasline.erasing.cache import Cache
from biasline.erasing.plan import Request, plan
from biasline.erasing.rows import any_left, take_out
from biasline.erasing.runs import delete_trainings
from biasline.erasing.served import served_rows
from biasline.errors import BiaslineError, first_few, shown
from biasline.jsonfile import dump_json, load_json
from biasline.layout import TaskPlace, home, local_state, write_text
from biasline.params import Task
from biasline.registry import ledger
from biasline.registry.aliases import CHAMPION, settle
from biasline.registry.promote import promote
from biasline.serving.registered import aliased
from biasline.tracking.locks import file_lock
from biasline.tracking.record import record_of_workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient


def erase(
    client: "MlflowClient", request: Request, task: Task, tell: Callable[[str], None] = print
) -> dict[str, Any] | None:
    """Erase rows, or go on with what was begun; two at once wait for each other.

    Args:
        client: client of the tracking store.
        request: what is to go.
        task: its parameters.
        tell: is told of each step.

    Returns:
        the ledger's line; None where the champion was not replaced, so that the command is to be given again.

    Raises:
        BiaslineError: as `plan`, where another erasure was begun, and where a step fails.
    """
    with file_lock(local_state() / "erase" / f"{request.task}.lock"):
        return _erase(client, request, task, tell)


def _erase(client: "MlflowClient", request: Request, task: Task, tell: Callable[[str], None]) -> dict[str, Any] | None:
    journal = _Journal(local_state() / "erase" / f"{request.task}.json")
    place, root = TaskPlace(request.task), home()
    if not journal.told:
        found = plan(client, request, task, of_commits=True)
        for line in found.lines:
            tell(line)
        journal.note(
            request=request.told,
            id=uuid4().hex[:12],
            done=[],
            rows=found.selected.rows,
            keys=sorted(found.selected.keys),
            refused=sorted(found.selected.refused),
            texts=list(found.selected.texts),
            files=[[str(path), file_sha256(path), sorted(numbers)] for path, numbers in found.selected.records.items()],
            traffic=[str(folder.resolve()) for folder in request.traffic],
            gone=sorted(found.trainings.how),
            cached=sorted(Cache(root).of_task(request.task, of_commits=True)),
            lost=[],
        )
    elif journal.told["request"] != request.told:
        raise BiaslineError(
            f"{shown(journal.path)}: another erasure was begun and is not finished",
            "give the command again that began it",
        )
    if journal.due("rows"):
        stones = Tombstones.read(place.erased)
        stones.write(place.erased, map(stones.hash, journal.told["refused"]))
        for folder in map(Path, journal.told["traffic"]):
            served_rows(folder, request.task, task, journal.told["keys"], journal.told["texts"], take_out=True)
        _take_out(journal, task, root / task.data)
        if Path(f"{root / task.data}.dvc").is_file():
            _run(["dvc", "add", task.data])
        journal.note(keys=[], refused=[], texts=[], since=time.time())  # they were the rows themselves
        journal.end("rows")
    if journal.due("training"):
        _run(["dvc", "repro", f"register@{request.task}"])
        journal.end("training")
    gone = set(journal.told["gone"])
    made = record_of_workspace(request.task)
    if made is None:
        raise BiaslineError(f"{place.model}: nothing was trained", f"dvc repro register@{request.task}")
    if journal.due("promotion"):
        champion = aliased(client, request.task, CHAMPION)
        was = champion.tags["biasline.fingerprint"] if champion is not None else ""
        if was in gone and made.fingerprint not in gone and not _promoted(client, request, task, tell):
            return None
        # Of rows that were in quarantine alone the training is the same as before: it is registered anew.
        journal.note(champion=was if was == made.fingerprint else "")
        journal.end("promotion")
    receipt = _receipt(place, request, task, journal.told, made.fingerprint)
    if journal.due("trainings"):
        journal.note(lost=delete_trainings(client, request.task, gone, journal.told["since"]))
        journal.end("trainings")
    if made.fingerprint in gone and journal.due("registration"):
        made.take(place, trained=True)
        _run(["dvc", "repro", "--force", "--single-item", f"register@{request.task}"])
        if journal.told["champion"] and not _promoted(client, request, task, tell, champion_is_lost=True):
            return None
        journal.end("registration")
    if journal.due("cache"):
        cache = Cache(root)
        earlier = cache.of_task(request.task, of_commits=True) | set(journal.told["cached"])
        lost = cache.remove(request.task, earlier - cache.needed(request.task))
        journal.note(lost=[*journal.told["lost"], *lost])
        journal.end("cache")
    settle(client, request.task)
    for line in journal.told["lost"]:
        tell(f"NOT reached: {line}")
    journal.path.unlink()
    return receipt


def _promoted(
    client: "MlflowClient", request: Request, task: Task, tell: Callable[[str], None], champion_is_lost: bool = False
) -> bool:
    """Whether the candidate is champion now, or none is to be."""
    told = f"rows erased: {request.reason}"
    decision = promote(client, request.task, task, request.by, told, champion_is_lost=champion_is_lost)
    if decision.promoted or request.withdraw:
        return True
    if decision.verdict is not None:
        tell(decision.verdict.as_markdown())
    tell("the champion had the rows, and no gate lets the candidate take its place: mend that, or --withdraw it")
    return False


def _receipt(
    place: TaskPlace, request: Request, task: Task, told: Mapping[str, Any], fingerprint: str
) -> dict[str, Any]:
    """The ledger's line, written once; no rows, but how many, and a hash of what is refused since.

    It stands before anything is deleted: an alias that the ledger does not explain would be put back.
    """
    there = [one for one in ledger.entries(place.ledger) if one.get("erasure") == told["id"]]
    return (
        there[0]
        if there
        else ledger.append(
            place.ledger,
            ledger.ERASED,
            erasure=told["id"],
            by=request.by,
            reason=request.reason,
            fingerprint=fingerprint,
            rows=told["rows"],
            gone=told["gone"],
            tombstones_sha256=file_sha256(place.erased),
            **({"shared": "kept"} if task.tenants.keeps_shared else {}),
        )
    )


def _take_out(journal: "_Journal", task: Task, data: Path) -> None:
    """Rewrite the raw files: the very records that were planned, each file once.

    Raises:
        BiaslineError: where a file was changed since by somebody else.
    """
    changed = []
    for name, sha256, numbers in journal.told["files"]:
        path = Path(name)
        if path.is_file() and file_sha256(path) == sha256:
            take_out(task, data, path, set(numbers))
        else:
            changed.append(shown(path))
    # Mostly they were rewritten before a crash.
    if changed and any_left(task, data, journal.told["refused"]):
        raise BiaslineError(
            f"{first_few(changed)}: changed since the erasure was begun, and rows that are to go are still there",
            f"put it back, or delete {shown(journal.path)} and begin anew",
        )


def _run(command: Sequence[str]) -> None:
    if subprocess.run(command, cwd=home(), check=False, stdout=sys.stderr).returncode:
        raise BiaslineError(f"`{shlex.join(command)}` failed", "mend what it says, then the same command goes on")


class _Journal:
    """What was begun, and how far it came.

    Args:
        path: where that is noted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: dict[str, Any] = load_json(path, "delete it: the same command begins anew") if path.is_file() else {}

    def note(self, **values: Any) -> None:
        """Add something."""
        self.told |= values
        write_text(self.path, dump_json(self.told))

    def due(self, step: str) -> bool:
        """Whether a step is still to be done."""
        return step not in self.told["done"]

    def end(self, step: str) -> None:
        """A step is done."""
        self.note(done=[*self.told["done"], step])
