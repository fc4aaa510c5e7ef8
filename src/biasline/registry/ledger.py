"""The ledger: one line per decision, append-only, in git. The truth that aliases are rebuilt from."""

import hashlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from biasline.errors import BiaslineError, full_disk_is_told, shown

PROMOTED, REFUSED, NOMINATED, ROLLED_BACK = "promoted", "refused", "nominated", "rolled back to"
# A promotion or rollback that another machine was quicker than: it did not count.
WITHDRAWN = "withdrawn"
# Rows were taken out: `gone` names the trainings that had them, which are deleted.
ERASED = "erased"
# The aliases of a task's model.
CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
_BEGINNING = b'{"time": '
_DECISIONS = (PROMOTED, REFUSED, NOMINATED, ROLLED_BACK, WITHDRAWN, ERASED)


def append(path: Path, decision: str, **told: Any) -> dict[str, Any]:
    """Add a decision and force it to disk; returns the entry, with an `id` of its own."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = {"time": now, "decision": decision, "id": uuid4().hex[:12], **told}
    with full_disk_is_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = _whole(path) if path.is_file() else b""
        with path.open("ab") as file:
            file.truncate(len(whole))
            # An editor may have taken the last line end away.
            start = b"\n" if whole and not whole.endswith(b"\n") else b""
            file.write(start + json.dumps(entry, ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    return entry


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """All decisions, oldest first.

    Raises:
        BiaslineError: naming a line that is no entry.
    """
    if not path.is_file():
        return
    # Not splitlines(): a reason may hold U+2028 and the like.
    content = _whole(path)
    for number, line in enumerate(content.removesuffix(b"\n").split(b"\n") if content else [], 1):
        try:
            entry = json.loads(line)
            decision, _ = entry["decision"], entry["fingerprint"]
        except (ValueError, KeyError, TypeError):
            raise BiaslineError(
                f"{shown(path)}: line {number} is no entry of a ledger",
                "restore it from git; of a merge, both sides' lines stay",
            ) from None
        if decision in _DECISIONS:
            # The first ledgers gave no ids.
            yield {"id": hashlib.sha256(line).hexdigest()[:12], **entry}


def _whole(path: Path) -> bytes:
    """The ledger without a last line that a crash cut off: what was not written whole was not decided."""
    content = path.read_bytes()
    last = content[content.rfind(b"\n") + 1 :]
    begun = last.startswith(_BEGINNING) or _BEGINNING.startswith(last)
    try:
        json.loads(last)
    except ValueError:
        return content[: len(content) - len(last)] if begun else content
    return content


def written(path: Path) -> bytes:
    """The ledger's bytes, as far as they were written whole; none where there is no ledger."""
    return _whole(path) if path.is_file() else b""


def moves(path: Path) -> list[dict[str, Any]]:
    """The decisions that moved the champion and count, oldest first."""
    found = list(entries(path))
    withdrawn = {entry.get("of") for entry in found if entry["decision"] == WITHDRAWN}
    return [entry for entry in found if entry["decision"] in (PROMOTED, ROLLED_BACK) and entry["id"] not in withdrawn]


def champions(path: Path) -> list[dict[str, Any]]:
    """The decisions that made the champions that still count, oldest first, the present one last.

    A rollback takes the last one away, so that another goes one further back instead of forth again.
    """
    made: list[dict[str, Any]] = []
    counting = {entry["id"] for entry in moves(path)}
    for entry in entries(path):
        if entry["decision"] == ERASED:
            made = [one for one in made if one["fingerprint"] not in entry["gone"]]
        elif entry["id"] in counting:
            made = [*made, entry] if entry["decision"] == PROMOTED else made[:-1]
    return made


def holders(path: Path) -> dict[str, dict[str, Any]]:
    """Which decision made the present champion, and which the one before it, by their aliases; those that there are."""
    return dict(zip((CHAMPION, PREVIOUS), reversed(champions(path)[-2:]), strict=False))


def nominee(path: Path) -> str | None:
    """The fingerprint that was nominated last."""
    named: list[str] = []
    for entry in entries(path):
        if entry["decision"] == NOMINATED:
            named.append(entry["fingerprint"])
        elif entry["decision"] == ERASED:
            named = [name for name in named if name not in entry["gone"]]
    return named[-1] if named else None
