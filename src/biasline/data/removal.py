"""Taking records out of a raw file, every other byte left as it is where the format allows that."""

import gzip
import json
import shutil
from collections.abc import Collection
from io import BytesIO
from pathlib import Path

import polars as pl

from biasline.data.conll import is_conll
from biasline.data.decoding import decoded, opened
from biasline.data.delimited import IsHeader, segments
from biasline.data.records import read_records
from biasline.errors import BiaslineError, shown
from biasline.layout import replacing

_PARQUET, _GZIP = b"PAR1", b"\x1f\x8b"
_BOM = "\ufeff"


def remove_records(path: Path, numbers: Collection[int], is_header: IsHeader, *, dry_run: bool = False) -> None:
    """Take records out of a file.

    Args:
        path: JSON, JSON Lines, CSV, TSV (also packed with gzip) or Parquet.
        numbers: of the records, from 0.
        is_header: judges the first line of a delimited file.
        dry_run: only see whether the format can be written.

    Raises:
        BiaslineError: where the format cannot be written, or what is left would not read as it did.
    """
    path = path.resolve()  # a link stays one
    magic = path.read_bytes()[:6]
    before = list(read_records(path, is_header))
    kept = [record for number, record in enumerate(before) if number not in numbers]
    if not kept:
        raise BiaslineError(f"{shown(path)}: no record would be left", "delete the file itself")
    if dry_run:
        _left(path, magic, numbers, is_header)
        return
    with replacing(path) as draft:
        draft.write_bytes(_left(path, magic, numbers, is_header))
        # Read as the file itself is: names decide nothing, and the header is judged by what is there now.
        if list(read_records(draft, is_header)) != kept:
            raise _by_hand(path, numbers, "what is left would not read as before")
        shutil.copymode(path, draft)


def _by_hand(path: Path, numbers: Collection[int], why: str) -> BiaslineError:
    rows = ", ".join(str(number + 1) for number in sorted(numbers)[:20])
    return BiaslineError(f"{shown(path)}: {why}", f"take its records {rows} out by hand, then the same command again")


def _left(path: Path, magic: bytes, numbers: Collection[int], is_header: IsHeader) -> bytes:
    return _parquet(path, numbers) if magic.startswith(_PARQUET) else _text(path, magic, numbers, is_header)


def _parquet(path: Path, numbers: Collection[int]) -> bytes:
    frame = pl.read_parquet(path)
    written = BytesIO()
    gone = pl.int_range(pl.len()).is_in(list(numbers))
    frame.filter(~gone).write_parquet(written)
    return written.getvalue()


def _text(path: Path, magic: bytes, numbers: Collection[int], is_header: IsHeader) -> bytes:
    with opened(path, magic) as stream:
        content = stream.read()
    with opened(path, magic) as stream:
        text = "".join(decoded(path, stream))
    if is_conll(path, text[:65536]):
        raise _by_hand(path, numbers, "sentences in columns are not rewritten")
    if text.lstrip()[:1] in ("[", "{"):
        left = _without_objects(path, text, numbers)
    else:
        left = "".join(part for number, part in segments(path, text, is_header) if number not in numbers)
    mark = _BOM if content.startswith(_BOM.encode()) else ""
    plain = (mark + left).encode()
    if magic.startswith(_GZIP):
        return gzip.compress(plain, mtime=0)
    if content not in (text.encode(), (_BOM + text).encode()) and magic[:4] == b"\x28\xb5\x2f\xfd":
        raise _by_hand(path, numbers, "a file packed with zstd is not rewritten")
    return plain


def _without_objects(path: Path, text: str, numbers: Collection[int]) -> str:
    """JSON without some of its objects: lines where each is one, else a list laid out as it was."""
    lines = [f"{line}\n" for line in text.split("\n")]
    lines = [*lines[:-1], *([lines[-1][:-1]] if lines[-1] != "\n" else [])]
    filled = [line for line in lines if line.strip()]
    if all(_is_object(line) for line in filled):
        places = iter(range(len(filled)))
        return "".join(line for line in lines if not line.strip() or next(places) not in numbers)
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise _by_hand(path, numbers, "objects that are neither a line each nor in a list are not rewritten")
    kept = [one for number, one in enumerate(found) if number not in numbers]
    second = text.lstrip()[1:].lstrip("\r\n")
    indent = len(second) - len(second.lstrip(" ")) if "\n" in text.strip() else None
    return json.dumps(kept, ensure_ascii=False, indent=indent) + ("\n" if text.endswith("\n") else "")


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False
