"""What a server keeps of rows that it answered, and how often a version on trial said the same."""

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


def agreements(folder: Path, task: str) -> list[Agreement]:
    """Each pair of versions of a task that answered the same rows, those with the most rows first.

    Args:
        folder: the server's `traffic`.
        task: the name.

    Raises:
        BiaslineError: where the folder is not there, or has a file that no server wrote.
    """
    if not folder.is_dir():
        raise BiaslineError(
            f"{folder}: no such folder of traffic", "`biasline serve --shadow TASK@candidate --traffic FOLDER` fills it"
        )
    needed = ("task", "fingerprint", "shadow_fingerprint", "agrees")
    counted: dict[tuple[str, str], list[int]] = {}
    for path in sorted(folder.glob("*.parquet")):
        try:
            rows = pl.read_parquet(path, columns=list(needed))
            rows = rows.filter(pl.col("task") == task, pl.col("agrees").is_not_null())
            found = rows.group_by("fingerprint", "shadow_fingerprint").agg(pl.len(), pl.col("agrees").sum()).rows()
        except (pl.exceptions.PolarsError, OSError) as error:
            raise BiaslineError(
                f"{path}: not a file of a server's traffic: {first_line(error)}", "move it out of the folder"
            ) from None
        for one, other, rows_of_it, agreed in found:
            total = counted.setdefault((one, other), [0, 0])
            total[0] += rows_of_it
            total[1] += agreed
    made = [Agreement(*pair, *numbers) for pair, numbers in counted.items()]
    return sorted(made, key=lambda one: (-one.rows, one.fingerprint, one.shadow_fingerprint))
