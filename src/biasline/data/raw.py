"""A file's records as a frame of texts, before anything is known of what its columns mean."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import polars as pl

from biasline.data.delimited import IsHeader
from biasline.data.files import raw_files
from biasline.data.json_objects import Record
from biasline.data.paths import add_paths
from biasline.errors import BiaslineError, shown

# In front of the file's own names of columns, so that ours can stand beside them.
RAW = "raw."
# A Boolean companion of each column: whether the file had something else than text there.
NOT_TEXT_SUFFIX = "__not_text"
# Where the names of files fix the split of their rows: `train`, `valid`, `test`, or null.
FIXED_SPLIT = "fixed_split"
# Rows that are Python objects at one time: a million of them would not fit.
_CHUNK = 20_000


def mean_of(values: pl.Series) -> float:
    """Mean of numbers or truth values, those that are null left out; 0 where there are none."""
    return cast(float | None, values.mean()) or 0.0


@dataclass(frozen=True)
class Raw:
    """Records as text columns.

    Attributes:
        frame: `raw.<name>` and `raw.<name>__not_text` for each column of the file, and further columns such as `row`.
        names: the file's columns, as it names them.
    """

    frame: pl.DataFrame
    names: list[str]

    @classmethod
    def of(cls, frame: pl.DataFrame) -> "Raw":
        """With the names that the frame itself has."""
        names = [name.removeprefix(RAW) for name in frame.columns if name.startswith(RAW)]
        return cls(frame, [name for name in names if not name.endswith(NOT_TEXT_SUFFIX)])

    def __len__(self) -> int:
        return self.frame.height

    def text(self, name: str) -> pl.Series:
        """The texts of a column; what was a number, list or object is its JSON."""
        return self.frame[RAW + name].rename(name)

    def not_text(self, name: str) -> pl.Series:
        """Whether the file had something else than text there."""
        return self.frame[RAW + name + NOT_TEXT_SUFFIX].fill_null(False)

    def nested(self, name: str) -> pl.Series:
        """Whether the file had a list or an object there."""
        return self.not_text(name) & self.text(name).str.contains(r"^[\[{]").fill_null(False)

    def looked_up(self, *names: str) -> str | None:
        """The first of some names that the file has, in whatever case, as the file writes it."""
        there = {name.strip().lower(): name for name in reversed(self.names)}
        return next((there[name] for name in names if name in there), None)

    def replaced(self, name: str, texts: Sequence[str | None] | pl.Series, not_text: pl.Series | bool = False) -> "Raw":
        """With other values in a column."""
        flags = pl.lit(not_text) if isinstance(not_text, bool) else not_text.alias(RAW + name + NOT_TEXT_SUFFIX)
        frame = self.frame.with_columns(
            pl.Series(RAW + name, texts, dtype=pl.String), flags.alias(RAW + name + NOT_TEXT_SUFFIX)
        )
        return Raw(frame, self.names if name in self.names else [*self.names, name])

    def without(self, names: Sequence[str]) -> "Raw":
        """Without some columns."""
        gone = [RAW + name + suffix for name in names for suffix in ("", NOT_TEXT_SUFFIX)]
        return Raw(self.frame.drop(gone), [name for name in self.names if name not in names])

    def kept(self, mask: pl.Series) -> "Raw":
        """The rows for which a mask is true."""
        return Raw(self.frame.filter(mask), self.names)


def read_raw(
    data: Path, is_header: IsHeader, paths: Sequence[str] = (), limit: int | None = None, harvested: bool = True
) -> tuple[Raw, set[str], tuple[str, ...]]:
    """All records of a file or folder (see `files.raw_files`).

    Args:
        data: the file or folder.
        is_header: whether the first line of a delimited file names its columns.
        paths: places inside of nested values that become columns (see `paths.add_paths`).
        limit: read so many records of each file at most.
        harvested: whether files of harvested rows are read.

    Returns:
        the records, with `row` (1-based), `file` (where there are several) and `FIXED_SPLIT`; the paths that became
        columns; and notes on what was read.

    Raises:
        BiaslineError: for data that are missing, empty or broken.
    """
    chunks: list[pl.DataFrame] = []
    found, row = raw_files(data, harvested), 0
    added: set[str] = set()
    for file in found.files:
        for records in _batched(islice(file.records(is_header), limit)):
            if paths:
                added |= add_paths(records, paths)
            chunk = _chunk(file.path, records)
            extra = [pl.int_range(row + 1, row + chunk.height + 1, dtype=pl.Int64).alias("row")]
            extra += [pl.lit(file.name).alias("file")] if len(found.files) > 1 else []
            extra += [pl.lit(file.split, pl.String).alias(FIXED_SPLIT)]
            chunks.append(chunk.select(pl.all().name.prefix(RAW)).with_columns(extra))
            row += chunk.height
    if not row:
        raise BiaslineError(f"{shown(data)}: no rows in it", "a task needs at least a few hundred examples")
    return Raw.of(pl.concat(chunks, how="diagonal", rechunk=True)), added, found.notes


def _batched(records: Iterator[Record]) -> Iterator[list[Record]]:
    while batch := list(islice(records, _CHUNK)):
        yield batch


def _chunk(path: Path, records: Sequence[Record]) -> pl.DataFrame:
    """Records as text columns, each with its companion."""
    names = dict.fromkeys(name for record in records for name in record)
    if clash := [name for name in names if name.endswith(NOT_TEXT_SUFFIX)]:
        raise BiaslineError(
            f"{shown(path)}: a column is called {clash[0]!r}", f"names ending in {NOT_TEXT_SUFFIX} are ours"
        )
    data: dict[str, list[Any]] = {}
    for name in names:
        values = [record.get(name) for record in records]
        data[name] = [_as_text(value) for value in values]
        data[name + NOT_TEXT_SUFFIX] = [not isinstance(value, str) and not _is_absent(value) for value in values]
    schema = {name: pl.Boolean if name.endswith(NOT_TEXT_SUFFIX) else pl.String for name in data}
    try:
        return pl.DataFrame(data, schema=schema)
    except UnicodeEncodeError as error:
        raise BiaslineError(
            f"{shown(path)}: half a surrogate pair (\\u{ord(error.object[error.start]):04x}) in a text", "mend that row"
        ) from None


def _as_text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if _is_absent(value):
        return None
    if isinstance(value, int | float | list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)  # a date, a decimal number


def _is_absent(value: Any) -> bool:
    """None, or the NaN that a table has where a row lacks a column."""
    return value is None or (isinstance(value, float) and value != value)
