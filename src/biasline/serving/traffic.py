"""What a server keeps of rows that it answered, and how often a version on trial said the same."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from biasline.errors import BiaslineError, first_line
from biasline.evaluation.statistics import wilson_interval

SCHEMA: dict[str, Any] = {
    "at": pl.Datetime("ms", "UTC"),
    "request": pl.String,
    "task": pl.String,
    "tenant": pl.String,
    "version": pl.String,
    "fingerprint": pl.String,
    "shadow_version": pl.String,
    "shadow_fingerprint": pl.String,
    "agrees": pl.Boolean,
    "asked": pl.String,
    "answer": pl.String,
    "shadow_answer": pl.String,
}


@dataclass(frozen=True)
class Agreement:
    """Two versions that were asked the same by users.

    Attributes:
        fingerprint: of the version that answered.
        shadow_fingerprint: of the one that was asked beside it.
        rows: that both answered and where what they say can be told to be the same or not.
        agreed: of those.
    """

    fingerprint: str
    shadow_fingerprint: str
    rows: int
    agreed: int

    @property
    def share(self) -> float:
        """Rows that agree, of all."""
        return self.agreed / self.rows

    @property
    def interval(self) -> tuple[float, float]:
        """Of the share, as if each row was asked by somebody else."""
        return wilson_interval(self.agreed, self.rows)

    @property
    def told(self) -> str:
        """In words."""
        low, high = self.interval
        return f"the same answer to {self.share:.4f} [{low:.4f}, {high:.4f}] of {self.rows:,} rows of users"


def agreements(folder: Path, task: str, without: Collection[str] = ()) -> list[Agreement]:
    """Each pair of versions of a task that were asked the same rows, those with the most rows first.

    A row that the shadow failed on counts as one that it answers otherwise.

    Args:
        folder: the server's `traffic`.
        task: the name.
        without: tenants whose rows do not count.

    Raises:
        BiaslineError: where the folder is not there, or has a file that no server wrote.
    """
    if not folder.is_dir():
        raise BiaslineError(
            f"{folder}: no such folder of traffic", "`biasline serve --shadow TASK@candidate --traffic FOLDER` fills it"
        )
    files = sorted(folder.glob("*.parquet"))
    try:
        found = _counted(files, task, without)
    except _UNREADABLE as error:
        odd = next((path for path in files if not _is_readable(path)), folder)
        raise BiaslineError(
            f"{odd}: not a file of a server's traffic: {first_line(error)}", "move it out of the folder"
        ) from None
    made = [Agreement(*row) for row in found]
    return sorted(made, key=lambda one: (-one.rows, one.fingerprint, one.shadow_fingerprint))


# A damaged file may make Polars panic.
_UNREADABLE = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)


def _counted(files: Sequence[Path], task: str, without: Collection[str]) -> list[tuple[str, str, int, int]]:
    """Fingerprints, rows, and those that agree."""
    if not files:
        return []
    rows = pl.scan_parquet(list(files), glob=False).select(
        "task", "tenant", "fingerprint", "shadow_fingerprint", "agrees"
    )
    known = rows.filter(pl.col("task") == task, pl.col("agrees").is_not_null(), ~pl.col("tenant").is_in(list(without)))
    told = known.group_by("fingerprint", "shadow_fingerprint").agg(pl.len(), pl.col("agrees").sum())
    return told.collect().rows()


def _is_readable(path: Path) -> bool:
    try:
        _counted([path], "", ())
    except _UNREADABLE:
        return False
    return True
