"""What a server keeps of rows that it answered, and how often a version on trial said the same."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from biasline.errors import BiaslineError, first_line, shown
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


# A folder in that of the traffic: what people say of answers, an object a line.
FEEDBACK = "feedback"
_KINDS_OF_ID = ("chatcmpl-", "cmpl-", "classify-")


def plain_id(name: str) -> str:
    """The id of a request, as traffic has it, from that of its answer."""
    return next((name.removeprefix(kind) for kind in _KINDS_OF_ID if name.startswith(kind)), name)


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
    files = traffic_files(folder, "`biasline serve --shadow TASK@candidate --traffic FOLDER` fills it")
    try:
        found = _counted(files, task, without)
    except _UNREADABLE as error:
        odd = next((path for path in files if not _is_readable(path)), folder)
        raise _unreadable(odd, error) from None
    made = [Agreement(*row) for row in found]
    return sorted(made, key=lambda one: (-one.rows, one.fingerprint, one.shadow_fingerprint))


def traffic_files(folder: Path, way_out: str = "name the server's `traffic`") -> list[Path]:
    """The files that a server filled, oldest first.

    Raises:
        BiaslineError: where there is no such folder.
    """
    if not folder.is_dir():
        raise BiaslineError(f"{shown(folder)}: no such folder of traffic", way_out)
    return sorted(folder.glob("*.parquet"))


def read_traffic(path: Path, wanted: pl.Expr, columns: Sequence[str] = tuple(SCHEMA)) -> pl.DataFrame:
    """Rows of a file that a server wrote.

    Raises:
        BiaslineError: where it did not, or not wholly.
    """
    try:
        return pl.scan_parquet(path).filter(wanted).select(columns).collect()
    except _UNREADABLE as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: BaseException) -> BiaslineError:
    return BiaslineError(
        f"{shown(path)}: not a file of a server's traffic: {first_line(error)}", "move it out of the folder"
    )


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
