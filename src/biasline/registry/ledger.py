"""The ledger: one line per decision, append-only, in git. The truth that aliases are rebuilt from."""

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from biasline.errors import BiaslineError, full_disk_is_told, shown

PROMOTED, REFUSED, NOMINATED, ROLLED_BACK = "promoted", "refused", "nominated", "rolled back to"


def append(path: Path, decision: str, **told: Any) -> dict[str, Any]:
    """Add a decision and force it to disk; returns the entry."""
    entry = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "decision": decision, **told}
    with full_disk_is_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # An editor may have taken the last line end away.
        unended = path.is_file() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
        with path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(("\n" if unended else "") + json.dumps(entry, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
    return entry


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """All decisions, oldest first.

    Errors: `BiaslineError` naming a line that is no entry.
    """
    if not path.is_file():
        return
    # Not splitlines(): a reason may hold U+2028 and the like.
    for number, line in enumerate(path.read_bytes().removesuffix(b"\n").split(b"\n"), 1):
        try:
            entry = json.loads(line)
            decision, _ = entry["decision"], entry["fingerprint"]
        except (ValueError, KeyError, TypeError):
            raise BiaslineError(
                f"{shown(path)}: line {number} is no entry of a ledger", "restore it: `git checkout` the file"
            ) from None
        if decision in (PROMOTED, REFUSED, NOMINATED, ROLLED_BACK):
            yield entry


def champions(path: Path) -> list[tuple[str, str | None]]:
    """(fingerprint, package) of the champions that still count, oldest first, the present one last.

    A rollback takes the last one away, so that another goes one further back instead of forth again.
    """
    made: list[tuple[str, str | None]] = []
    for entry in entries(path):
        if entry["decision"] == PROMOTED:
            made.append((entry["fingerprint"], entry.get("package")))
        elif entry["decision"] == ROLLED_BACK:
            made = made[:-1]
    return made


def nominee(path: Path) -> str | None:
    """The fingerprint that was nominated last."""
    named = [entry["fingerprint"] for entry in entries(path) if entry["decision"] == NOMINATED]
    return named[-1] if named else None
