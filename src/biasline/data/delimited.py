"""Rows of CSV and TSV files, from text that arrives in blocks."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path

from biasline.data.json_objects import Record
from biasline.errors import BiaslineError, shown

# Whether the first line of a delimited file names its columns.
IsHeader = Callable[[list[str]], bool]


def read_delimited(path: Path, buffer: str, blocks: Iterator[str], is_header: IsHeader) -> Iterator[Record]:
    """Rows of a CSV or TSV file; columns without a header are called 1, 2, …

    Args:
        path: for messages.
        buffer: the beginning of the text, more than white space.
        blocks: the rest.
        is_header: judges the first line.

    Raises:
        BiaslineError: for the first row that is broken, with its place.
    """
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
