"""Rows of CSV and TSV files, from text that arrives in blocks."""

import csv
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from biasline.data.json_objects import Record
from biasline.errors import BiaslineError, shown

# Whether the first line of a delimited file names its columns: asked with the file's path and its first records.
IsHeader = Callable[[Path, list[list[str]]], bool]
# What is looked at before the first row is given: characters, or the first line where that is longer, and records.
_SAMPLE, _SAMPLED = 1 << 18, 2_000
# Commas and tabs are tried first; another delimiter needs this share of the records to be as wide as the first.
_OTHERS, _CONSISTENT = ";|", 0.9


def read_delimited(path: Path, buffer: str, blocks: Iterator[str], is_header: IsHeader) -> Iterator[Record]:
    """Rows of a CSV or TSV file; columns without a header are called by their number.

    Args:
        path: for messages.
        buffer: the beginning of the text, more than white space.
        blocks: the rest.
        is_header: judges the first line.

    Raises:
        BiaslineError: for the first row that is broken, with its place.
    """
    csv.field_size_limit(1 << 28)
    buffer, sample = _sampled(buffer, blocks)
    delimiter = _delimiter(sample)
    reader = csv.reader(_lines(buffer, blocks), **_dialect(delimiter))
    names: list[str] = []
    number = 0
    try:
        for values in filter(None, reader):
            if not names:
                header = is_header(path, _records(sample, delimiter) or [values])
                names = values if header else [str(place) for place in range(1, len(values) + 1)]
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


def segments(path: Path, text: str, is_header: IsHeader) -> Iterator[tuple[int, str]]:
    """The text of a CSV or TSV file in parts: the number of a record, from 0, and its own lines.

    What belongs to no record, a header or blank lines, has the number -1.
    """
    csv.field_size_limit(1 << 28)
    _, sample = _sampled(text, iter(()))
    delimiter = _delimiter(sample)
    lines = list(_lines(text, iter(())))
    reader = csv.reader(iter(lines), **_dialect(delimiter))
    number, done, begun = -1, 0, False
    for values in reader:
        part, done = "".join(lines[done : reader.line_num]), reader.line_num
        if not values:
            yield -1, part
            continue
        if not begun:
            begun = True
            if is_header(path, _records(sample, delimiter) or [values]):
                yield -1, part
                continue
        number += 1
        yield number, part


def _sampled(buffer: str, blocks: Iterator[str]) -> tuple[str, str]:
    """The text read so far, and of that whole lines to look at; the same however long blocks are."""
    parts, length = [buffer], len(buffer)
    start = length - len(buffer.lstrip("\n"))  # blank lines
    in_first_line = buffer.find("\n", start) < 0
    while length < _SAMPLE or in_first_line:
        block = next(blocks, None)
        if block is None:
            buffer = "".join(parts)
            return buffer, buffer
        parts.append(block)
        length += len(block)
        in_first_line = in_first_line and "\n" not in block
    buffer = "".join(parts)
    end = buffer.rfind("\n", start, _SAMPLE)
    return buffer, buffer[: (end if end >= 0 else buffer.index("\n", start)) + 1]


def _dialect(delimiter: str) -> dict[str, Any]:
    # Tab-separated files as the field ships them (GLUE) do not quote: a lone quote mark is text there.
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    return {"delimiter": delimiter, "quoting": quoting, "strict": True}


def _records(sample: str, delimiter: str) -> list[list[str]]:
    """The first records, up to one that is broken or cut off by the end of the sample."""
    records = []
    try:
        for values in islice(csv.reader(_lines(sample, iter(())), **_dialect(delimiter)), _SAMPLED):
            if values:
                records.append(values)
    except csv.Error:
        pass
    return records


def _delimiter(sample: str) -> str:
    """A tab in the first line, else commas where they fit, else another delimiter that makes the records as wide."""
    if "\t" in sample.lstrip("\n").split("\n", 1)[0]:
        return "\t"
    shares = {delimiter: _consistency(_records(sample, delimiter)) for delimiter in ("," + _OTHERS)}
    if shares[","] < _CONSISTENT:
        best = max(_OTHERS, key=lambda delimiter: shares[delimiter])
        if shares[best] >= _CONSISTENT:
            return best
    return ","


def _consistency(records: list[list[str]]) -> float:
    """The share of records that are as wide as the first; nothing where that has one field."""
    widths = Counter(map(len, records))
    first = len(records[0]) if records else 1
    return widths[first] / len(records) if first > 1 else 0.0


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
