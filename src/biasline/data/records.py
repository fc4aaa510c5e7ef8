"""The records of one file; the format is recognised by the content."""

from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl

from biasline.data.conll import is_conll, read_conll
from biasline.data.decoding import decoded, opened
from biasline.data.delimited import IsHeader, read_delimited
from biasline.data.json_objects import JsonObjects, Record
from biasline.errors import BiaslineError, first_line, shown

# Records that are Python objects at one time.
SLICE = 20_000
_ARROW, _ARROW_STREAM, _PARQUET = b"ARROW1", b"\xff\xff\xff\xff", b"PAR1"


def read_records(path: Path, is_header: IsHeader) -> Iterator[Record]:
    """The records of a file, as they stream by.

    Args:
        path: JSON, JSON Lines, CSV, TSV (packed or not), Parquet or Arrow, whatever its name ends in; or CoNLL columns.
        is_header: judges the first line of a delimited file.

    Raises:
        BiaslineError: for the first record that is broken, with its place.
    """
    with path.open("rb") as file:
        magic = file.read(6)
    if magic.startswith(_PARQUET):
        yield from _columnar(path, pl.read_parquet, "Parquet")
        return
    if magic == _ARROW or magic.startswith(_ARROW_STREAM):
        yield from _columnar(path, pl.read_ipc if magic == _ARROW else pl.read_ipc_stream, "Arrow")
        return
    with opened(path, magic) as stream:
        blocks = decoded(path, stream)
        first = ""
        for block in blocks:
            first += block
            if first.strip():
                break
        else:
            raise BiaslineError(f"{shown(path)}: empty", "put the data there")
        if is_conll(path, first):
            yield from read_conll(path, first, blocks)
            return
        start = first.lstrip()[0]
        if start in "[{":
            yield from JsonObjects(path, first, blocks)
        else:
            yield from read_delimited(path, first, blocks, is_header)


def _columnar(path: Path, read: Callable[[Path], pl.DataFrame], kind: str) -> Iterator[Record]:
    try:
        frame = read(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise BiaslineError(f"{shown(path)}: damaged {kind}: {first_line(error)}", "export it again") from None
    for part in frame.iter_slices(SLICE):
        yield from part.to_dicts()
