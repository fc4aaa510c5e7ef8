"""From files to records: the format is told by the content, text is decoded and parsed as it streams by.

Nothing here knows what a column means. A file is never used in part: whoever takes its records gets an error for the
first that is broken, with its place.
"""

import codecs
import csv
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import polars as pl

from biasline.errors import BiaslineError, first_line, shown

Record = dict[str, Any]
# Whether the first line of a delimited file names its columns.
IsHeader = Callable[[list[str]], bool]

_BLOCK = 1 << 22
_SLICE = 20_000
_SUFFIXES = {".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".txt", ".parquet", ".gz", ".zst"}
# What a file's stem says about the split of its rows.
_STEMS = {"train": "train", "training": "train", "test": "test"}
_STEMS |= dict.fromkeys(("valid", "validation", "val", "dev"), "valid")
# MultiNLI has two.
_STEMS |= dict.fromkeys(
    (f"{name}_{kind}" for name in ("dev", "validation") for kind in ("matched", "mismatched")), "valid"
)
_PRECEDENCE = ["test", "valid", "train", None]
_GZIP, _ZSTD, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class RawFile:
    """One file of a task's data.

    Attributes:
        path: where it lies; for a part of a saved or a hub data set, what that is called.
        split: the split that its name says; None where rows are dealt by their content.
        records: reads it.
    """

    path: Path
    split: str | None
    records: Callable[[IsHeader], Iterator[Record]]


def raw_files(data: Path) -> list[RawFile]:
    """The files of a task's data: one, a folder of them, a folder saved by `datasets`, or a pinned hub data set.

    In a folder the names train, valid (validation, val, dev) and test fix the split of their rows. Where there is no
    test file, the valid one is the test, as the public part of GLUE has it.

    Errors: `BiaslineError` where there is nothing that could be read.
    """
    if not data.exists():
        raise BiaslineError(f"{shown(data)}: no such file", "mend `data` in params.yaml or put the file there")
    if data.is_dir():
        return _saved_by_datasets(data) if _is_saved(data) else _folder(data)
    if (pinned := _pinned(data)) is not None:
        return _hub(data, pinned)
    return [RawFile(data, None, lambda is_header: _records(data, is_header))]


def _folder(folder: Path) -> list[RawFile]:
    paths = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in _SUFFIXES)
    if not paths:
        raise BiaslineError(
            f"{shown(folder)}: no data file in this folder", f"files end in {', '.join(sorted(_SUFFIXES))}"
        )
    splits = _splits([path.name.partition(".")[0] for path in paths])
    return _ordered(
        RawFile(path, split, lambda is_header, path=path: _records(path, is_header))
        for path, split in zip(paths, splits, strict=True)
    )


def _ordered(files: Iterable[RawFile]) -> list[RawFile]:
    """Test rows first, then validation rows: of two copies the first stays, and a given test set should stay whole."""
    return sorted(files, key=lambda file: _PRECEDENCE.index(file.split))


def _splits(stems: list[str]) -> list[str | None]:
    splits = [_STEMS.get(stem.lower()) for stem in stems]
    if "test" not in splits:
        splits = ["test" if split == "valid" else split for split in splits]
    return splits


def _is_saved(folder: Path) -> bool:
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def _saved_by_datasets(folder: Path) -> list[RawFile]:
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


def _hub(path: Path, pinned: dict[str, str]) -> list[RawFile]:
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


def _parts(where: Path, found: Any) -> list[RawFile]:
    """A data set, or a dictionary of them by split."""
    parts = dict(found) if hasattr(found, "keys") else {"": found}
    # A split whose labels are kept secret (all -1, as GLUE's tests) is none to learn or to judge by.
    parts = {name: part for name, part in parts.items() if not _is_secret(part)} or parts

    def records(part: Any) -> Iterator[Record]:
        # Numbers of classes as their names; -1 stands for a label that is kept secret.
        names = {name: feature.names for name, feature in part.features.items() if hasattr(feature, "names")}
        for table in part.with_format("arrow").iter(_SLICE):
            for record in table.to_pylist():
                for name, known in names.items():
                    number = record[name]
                    record[name] = known[number] if number is not None and 0 <= number < len(known) else None
                yield record

    splits = _splits(list(parts))
    return _ordered(
        RawFile(where / name, split, lambda _, part=part: records(part))
        for (name, part), split in zip(parts.items(), splits, strict=True)
    )


def _is_secret(part: Any) -> bool:
    classes = [name for name, feature in part.features.items() if hasattr(feature, "names")]
    return any(part.unique(name) == [-1] for name in classes)


def _records(path: Path, is_header: IsHeader) -> Iterator[Record]:
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == _PARQUET:
        yield from _parquet(path)
        return
    with _opened(path, magic) as stream:
        blocks = _decoded(path, stream)
        first = ""
        for block in blocks:
            first += block
            if first.strip():
                break
        else:
            raise BiaslineError(f"{shown(path)}: empty", "put the data there")
        start = first.lstrip()[0]
        if start in "[{":
            yield from _Objects(path, first, blocks)
        else:
            yield from _delimited(path, first, blocks, is_header)


def _parquet(path: Path) -> Iterator[Record]:
    try:
        frame = pl.read_parquet(path)
    except pl.exceptions.PolarsError as error:
        raise BiaslineError(
            f"{shown(path)}: damaged Parquet: {str(error).splitlines()[0]}", "export it again"
        ) from None
    for part in frame.iter_slices(_SLICE):
        yield from part.to_dicts()


def _opened(path: Path, magic: bytes) -> IO[bytes]:
    if magic.startswith(_GZIP):
        return gzip.open(path)
    if magic.startswith(_ZSTD):
        import pyarrow

        return pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd")
    return path.open("rb")


def _decoded(path: Path, stream: IO[bytes]) -> Iterator[str]:
    """The text in blocks, without a byte-order mark.

    Errors: `BiaslineError` for bytes that are not UTF-8, with the place of the first, and for damaged compression.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    read = lines = 0
    mark = "\ufeff"  # taken off the first characters
    while True:
        try:
            raw = stream.read(_BLOCK)
        except (OSError, EOFError, zlib.error) as error:
            raise BiaslineError(f"{shown(path)}: damaged: {error}", "compress or copy it again") from None
        pending = len(decoder.getstate()[0])
        try:
            text = decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            place = read - pending + error.start
            line = lines + bytes(error.object).count(b"\n", 0, error.start) + 1
            raise BiaslineError(
                f"{shown(path)}: not UTF-8: byte 0x{error.object[error.start]:02x} at position {place} (line {line})",
                f"convert it, as with `iconv -f gb18030 -t utf-8 {path.name}`",
            ) from None
        if not raw:
            return
        if text:
            yield text.removeprefix(mark)
            mark = ""
        read += len(raw)
        lines += raw.count(b"\n")


class _Objects:
    """JSON objects from text that arrives in blocks: those of an array, or one after the other as JSON Lines has them.

    At most one block and one object are held at a time.
    """

    def __init__(self, path: Path, buffer: str, blocks: Iterator[str]) -> None:
        self._path, self._buffer, self._blocks = path, buffer, blocks
        self._position = 0
        self._line, self._column = 1, 1  # of the buffer's beginning
        self._decoder = json.JSONDecoder()

    def __iter__(self) -> Iterator[Record]:
        self._more()
        in_array = self._buffer[self._position] == "["
        self._position += in_array
        number = 0
        while self._more():
            if in_array and number == 0 and self._buffer[self._position] == "]":
                return
            number += 1
            yield self._object(number)
            if in_array and self._array_ends():
                return
        if in_array:
            raise self._broken("the array does not end", self._position)

    def _array_ends(self) -> bool:
        """Step over the comma behind an item; True at the array's end."""
        if not self._more():
            return False
        mark = self._buffer[self._position]
        if mark not in ",]":
            raise self._broken("expecting ',' delimiter", self._position)
        self._position += 1
        if mark == ",":
            return False
        if self._more():
            raise self._broken("extra data", self._position)
        return True

    def _object(self, number: int) -> Record:
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._position)
                break
            except json.JSONDecodeError as error:
                # Cut off by the end of the block, or wrong as it stands?
                cut = error.msg.startswith("Unterminated") or error.pos > len(self._buffer) - 16
                if not (cut and self._load()):
                    raise self._broken(error.msg, error.pos) from None
            except (ValueError, RecursionError) as error:
                raise BiaslineError(
                    f"{shown(self._path)}: JSON that cannot be read: {error}", "mend or re-export the file"
                ) from None
        if not isinstance(value, dict):
            line, _ = self._place(self._position)
            raise BiaslineError(
                f"{shown(self._path)}: item {number} (line {line}) is {json.dumps(value)[:40]}; an object was expected"
            )
        self._position = end
        return value

    def _more(self) -> bool:
        """Step over white space; False at the end of the text."""
        while True:
            while self._position < len(self._buffer):
                if not self._buffer[self._position].isspace():
                    return True
                self._position += 1
            if not self._load():
                return False

    def _load(self) -> bool:
        """Drop what is done with and take another block."""
        block = next(self._blocks, None)
        if block is None:
            return False
        self._line, self._column = self._place(self._position)
        self._buffer, self._position = self._buffer[self._position :] + block, 0
        return True

    def _place(self, position: int) -> tuple[int, int]:
        """Line and column of a position in the buffer, from 1 on."""
        before = self._buffer[:position]
        lines = before.count("\n")
        return self._line + lines, position - before.rfind("\n") if lines else self._column + position

    def _broken(self, told: str, position: int) -> BiaslineError:
        line, column = self._place(position)
        return BiaslineError(
            f"{shown(self._path)}: broken JSON at line {line}, column {column}: {told}",
            "mend or re-export the file; no row of it was used",
        )


def _delimited(path: Path, buffer: str, blocks: Iterator[str], is_header: IsHeader) -> Iterator[Record]:
    """Rows of a CSV or TSV file; columns without a header are called 1, 2, …"""
    for block in blocks if "\n" not in buffer.lstrip("\n") else ():
        buffer += block
        if "\n" in block:
            break
    delimiter = "\t" if "\t" in buffer.lstrip("\n").split("\n", 1)[0] else ","
    csv.field_size_limit(1 << 28)
    # Tab-separated files as the field ships them (GLUE) do not quote: a lone quote mark is text there.
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    reader = csv.reader(_lines(buffer, blocks), delimiter=delimiter, quoting=quoting, strict=True)
    names: list[str] = []
    number = 0
    try:
        for values in filter(None, reader):
            if not names:
                names = values if is_header(values) else [str(place) for place in range(1, len(values) + 1)]
                if twice := sorted({name for name in names if names.count(name) > 1}):
                    raise BiaslineError(
                        f"{shown(path)}: column {twice[0]!r} stands twice in the header", "rename one of them"
                    )
                if names is values:
                    continue
            number += 1
            if len(values) != len(names):
                raise BiaslineError(
                    f"{shown(path)}: row {number} (line {reader.line_num}) has {len(values)} fields, the first line "
                    f"has {len(names)}",
                    "quote the delimiter inside a field, or mend the row",
                )
            yield dict(zip(names, values, strict=True))
    except csv.Error as error:
        raise BiaslineError(f"{shown(path)}: line {reader.line_num}: {error}", "mend that line") from None


def _lines(buffer: str, blocks: Iterator[str]) -> Iterator[str]:
    """Lines with their ends. Only line feeds end one: text may hold U+2028 and form feeds."""
    rest = buffer
    while True:
        *whole, rest = rest.split("\n")
        yield from (f"{line}\n" for line in whole)
        block = next(blocks, None)
        if block is None:
            break
        rest += block
    if rest:
        yield rest
