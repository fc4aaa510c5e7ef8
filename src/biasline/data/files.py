"""A task's data as files of records: one file, a folder, a data set saved by `datasets`, or one of the hub.

Nothing here knows what a column means. A file is never used in part: whoever takes its records gets an error for the
first that is broken, with its place.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from biasline.data.delimited import IsHeader
from biasline.data.folders import data_files, is_saved
from biasline.data.json_objects import Record
from biasline.data.records import SLICE, read_records
from biasline.data.split_names import LISTED, PRECEDENCE, dealt_by_names, splits_in
from biasline.errors import BiaslineError, first_few, first_line, shown

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class RawFile:
    """One file of a task's data.

    Attributes:
        path: where it lies; for a part of a saved or a hub data set, what that is called.
        name: what its rows are marked with: its path below the task's folder.
        split: the split that its name says; None where rows are dealt by their content.
        records: reads it.
    """

    path: Path
    name: str
    split: str | None
    records: Callable[[IsHeader], Iterator[Record]]


@dataclass(frozen=True)
class RawFiles:
    """All files of a task's data.

    Attributes:
        files: test files first, then validation files.
        notes: which file gives which split, and what was not read.
    """

    files: tuple[RawFile, ...]
    notes: tuple[str, ...] = ()


# How the names of files begin that `biasline harvest` made.
HARVESTED = "harvested-"


def is_harvested(path: Path) -> bool:
    """Whether a file holds rows that `biasline harvest` made of what was served."""
    return path.name.startswith(HARVESTED)


def raw_files(data: Path, harvested: bool = True) -> RawFiles:
    """The files of a task's data: one, a folder of them, a folder saved by `datasets`, or a pinned hub data set.

    In a folder the names of files and sub-folders fix the split of their rows (see `split_names`). Where there is no
    test file, the valid one is the test, as the public part of GLUE has it.

    Args:
        data: where they lie.
        harvested: whether files of harvested rows are among them.

    Raises:
        BiaslineError: where there is nothing that could be read, or where a file that names a split cannot be read.
    """
    if not data.exists():
        raise BiaslineError(f"{shown(data)}: no such file", "mend `data` in params.yaml or put the file there")
    if data.is_dir():
        return _saved_by_datasets(data) if is_saved(data) else _folder(data, harvested)
    if (pinned := _pinned(data)) is not None:
        return _hub(data, pinned)
    return RawFiles((RawFile(data, data.name, None, lambda is_header: read_records(data, is_header)),))


def _folder(folder: Path, harvested: bool) -> RawFiles:
    found, notes = data_files(folder)
    if not harvested:
        left_out = [file.name for file in found if is_harvested(file.path)]
        found = [file for file in found if not is_harvested(file.path)]
        notes = [*notes, *([f"left out by source.harvested: {first_few(left_out, LISTED)}"] if left_out else [])]
    splits, told = dealt_by_names([file.name for file in found], [file.said for file in found])
    files = (
        RawFile(file.path, file.name, split, partial(read_records, file.path))
        for file, split in zip(found, splits, strict=True)
    )
    return RawFiles(_ordered(folder, files), (*told, *notes))


def _ordered(where: Path, files: Iterable[RawFile]) -> tuple[RawFile, ...]:
    """Test rows first, then validation rows: of two copies the first stays, and a given test set should stay whole.

    Harvested rows come last, so that none of them takes the place of a row that was there before.
    """
    files = tuple(sorted(files, key=lambda file: (PRECEDENCE.index(file.split), is_harvested(file.path))))
    if all(file.split in ("test", "valid") for file in files):
        names = first_few((file.name for file in files), LISTED)
        raise BiaslineError(
            f"{shown(where)}: no rows to train on: the names of all files say a held-out split ({names})",
            "add a training file, or name one file alone in `data`: its rows are dealt by their content",
        )
    return files


def _saved_by_datasets(folder: Path) -> RawFiles:
    import datasets

    try:
        found = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        told = f"{type(error).__name__}: {first_line(error)}"
        raise BiaslineError(f"{shown(folder)}: damaged data set: {told}", "save it again with `save_to_disk`") from None
    return _parts(folder, found)


def _pinned(path: Path) -> dict[str, str] | None:
    """A small JSON that names a data set on the hub; None for any other file."""
    if path.stat().st_size > 4096:
        return None
    try:
        raw = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return None
    return raw if isinstance(raw, dict) and "hub_dataset" in raw else None


def _hub(path: Path, pinned: dict[str, str]) -> RawFiles:
    import datasets

    if unknown := set(pinned) - {"hub_dataset", "config", "revision"}:
        raise BiaslineError(f"{shown(path)}: unknown key {min(unknown)!r}", "hub_dataset, config, revision are known")
    if not _COMMIT.fullmatch(str(pinned.get("revision", ""))):
        raise BiaslineError(f"{shown(path)}: revision must be a commit (40 hex digits)", "a branch would move")
    try:
        found = datasets.load_dataset(pinned["hub_dataset"], pinned.get("config"), revision=pinned["revision"])
    except Exception as error:  # whatever the hub, the cache or the data set's own reader raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BiaslineError(
            f"{shown(path)}: {pinned['hub_dataset']} is neither in the cache nor to be had: {reason}", "connect once"
        ) from None
    return _parts(path, found)


def _parts(where: Path, found: Any) -> RawFiles:
    """A data set, or a dictionary of them by split."""
    parts = dict(found) if hasattr(found, "keys") else {"": found}
    # A split whose labels are kept secret (all -1, as GLUE's tests) is none to learn or to judge by.
    open_parts = {name: part for name, part in parts.items() if not _is_secret(part)} or parts
    secret = first_few((name for name in parts if name not in open_parts), LISTED)
    notes = [f"not read: {secret} (its labels are all -1, which stands for secret)"] if secret else []

    def records(part: Any) -> Iterator[Record]:
        # Numbers of classes as their names, those in a list too; -1 stands for a label that is kept secret.
        features = {name: getattr(feature, "feature", feature) for name, feature in part.features.items()}
        names = {name: feature.names for name, feature in features.items() if hasattr(feature, "names")}
        for table in part.with_format("arrow").iter(SLICE):
            for record in table.to_pylist():
                for name, known in names.items():
                    record[name] = _named(record[name], known)
                yield record

    def opener(part: Any) -> Callable[[IsHeader], Iterator[Record]]:
        return lambda _: records(part)

    splits, told = dealt_by_names(list(open_parts), [splits_in(name) for name in open_parts])
    files = (
        RawFile(where / name, name, split, opener(part))
        for (name, part), split in zip(open_parts.items(), splits, strict=True)
    )
    return RawFiles(_ordered(where, files), (*told, *notes))


def _named(value: Any, known: Sequence[str]) -> Any:
    """The name of a class by its number, or those of a list of numbers."""
    if isinstance(value, list):
        return [_named(one, known) for one in value]
    return known[value] if value is not None and 0 <= value < len(known) else None


def _is_secret(part: Any) -> bool:
    classes = [name for name, feature in part.features.items() if hasattr(feature, "names")]
    return any(part.unique(name) == [-1] for name in classes)
