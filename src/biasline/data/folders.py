"""The data files of a folder and its sub-folders, and what of it is left out."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from biasline.data.conll import CONLL
from biasline.data.split_names import named_splits
from biasline.errors import BiaslineError, first_few, shown

SUFFIXES = {".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".parquet", ".arrow", ".feather", ".gz", ".zst"}
SUFFIXES |= CONLL
# What lies beside data and has no rows, whatever its name says.
_NO_ROWS = {".md", ".rst", ".html", ".pdf", ".dvc", ".lock", ".log", ".py", ".ipynb", ".sh", ".yaml", ".yml", ".toml"}
_NO_ROWS |= {".cfg", ".ini", ".md5", ".sha256", ".png", ".svg", ".jpg", ".bib"}
_DOCUMENT = re.compile(r"(?:readme|licen[cs]e|copying|notice|citation|changelog|authors)(?![a-z])", re.IGNORECASE)
_DOCUMENT_SUFFIXES = {"", ".txt"}
# Descriptions of a data set that `datasets` and the hub write.
_DESCRIPTIONS = {"config.json", "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"}
_LISTED = 50


@dataclass(frozen=True)
class Found:
    """A data file of a folder.

    Attributes:
        path: where it lies.
        name: its path below the folder.
        said: the splits that its names say, the deciding one first.
    """

    path: Path
    name: str
    said: tuple[str, ...]


def is_saved(folder: Path) -> bool:
    """Whether `datasets` saved a data set there."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def data_files(folder: Path) -> tuple[list[Found], list[str]]:
    """The data files of a folder, in the order of their names, and notes on what is left out.

    Raises:
        BiaslineError: where there is no data file, or where rows of a split would be missing without a word: a file
            whose name says a split and that cannot be read.
    """
    found: list[Found] = []
    left_out: dict[str, str] = {}
    for where, folders, names in os.walk(folder):
        here = Path(where)
        if here != folder and is_saved(here):
            raise BiaslineError(
                f"{shown(here)}: a data set saved by `datasets`, inside a folder of files",
                "name it itself in `data`, or save all splits as one `DatasetDict`",
            )
        for name in sorted(folders):
            inner = (here / name).relative_to(folder).as_posix() + "/"
            if _is_hidden_folder(name):
                left_out[inner] = "hidden"
            elif (here / name).is_symlink():
                left_out[inner] = "a link to a folder"
                _refuse_split(here / name, folder, "a link to a folder, which is not followed")
        folders[:] = sorted(name for name in folders if not _is_hidden_folder(name))
        for name in sorted(names):
            path = here / name
            reason = _why_not(path) or _raw_text(path, names)
            below = path.relative_to(folder)
            if not reason:
                found.append(Found(path, below.as_posix(), tuple(named_splits(_parts(below)))))
                continue
            data = _beside(path, names)
            left_out[below.as_posix()] = f"beside {data}" if data else reason
            if not (_is_hidden(name) or _has_no_rows(path) or data or _raw_text(path, names)):
                _refuse_split(path, folder, reason)
    notes = []
    if left_out:
        named = first_few((f"{name} ({reason})" for name, reason in left_out.items()), _LISTED)
        notes = [f"not read: {named}"]
    if not found:
        raise BiaslineError(
            f"{shown(folder)}: no data file in this folder",
            "; ".join([f"files end in {', '.join(sorted(SUFFIXES))}", *notes]),
        )
    return sorted(found, key=lambda file: file.path), notes


def _parts(below: Path) -> tuple[str, ...]:
    """Names of the folders and of the file without the suffixes of data."""
    name = below.name
    while Path(name).suffix.lower() in SUFFIXES:
        name = Path(name).stem
    return (*below.parent.parts, name)


def _is_hidden(name: str) -> bool:
    """As the hub has it; and the locks that office programs leave."""
    return name.startswith((".", "~$"))


def _is_hidden_folder(name: str) -> bool:
    return name.startswith((".", "__"))


def _has_no_rows(path: Path) -> bool:
    is_document = _DOCUMENT.match(path.name) and path.suffix.lower() in _DOCUMENT_SUFFIXES
    return path.suffix.lower() in _NO_ROWS or path.name in _DESCRIPTIONS or bool(is_document)


def _beside(path: Path, names: list[str]) -> str:
    """The data file that one goes with, such as `train.csv` for its copy `train.csv.bak` or its sum `train.csv.crc`."""
    with_more = [name for name in names if re.match(re.escape(name) + r"[.~]", path.name)]
    return next((name for name in with_more if not _why_not(path.with_name(name))), "")


def _why_not(path: Path) -> str:
    """Why a file is not read; empty for a data file."""
    if _is_hidden(path.name):
        return "hidden"
    if _has_no_rows(path):
        return "no rows"
    if not path.is_file():
        return "a link to nothing" if path.is_symlink() else "no file"
    if path.suffix.lower() not in SUFFIXES:
        return f"{path.suffix} is not read" if path.suffix else "no suffix"
    return ""


def _raw_text(path: Path, names: list[str]) -> str:
    """Why the text of a treebank is not read beside it: its sentences would come twice, then without tags."""
    beside = f"{path.stem}.conllu"
    return f"the text of {beside}" if path.suffix == ".txt" and beside in names else ""


def _refuse_split(path: Path, folder: Path, reason: str) -> None:
    """`BiaslineError` where the name of what is left out says a split: its rows would be missing."""
    said = named_splits(path.relative_to(folder).parts)
    if said or (reason == "a link to nothing" and path.suffix.lower() in SUFFIXES):
        named = f"its name says {said[0]}" if said else "its name is that of a data file"
        raise BiaslineError(
            f"{shown(path)}: {named}, and it cannot be read ({reason}): its rows would be missing",
            f"save it as one of {', '.join(sorted(SUFFIXES))}, or take it out of the folder",
        )
