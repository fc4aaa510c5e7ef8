"""CoNLL columns: a word a line, its tag in the last column, an empty line between sentences."""

import re
from collections.abc import Iterator
from pathlib import Path

from biasline.data.json_objects import Record
from biasline.errors import BiaslineError, shown

# Endings by which such a file is known: its content alone could be that of a table.
CONLL = {".conll", ".conll03", ".bio", ".iob", ".iob2"}
_PACKED = {".gz", ".zst"}
_TAG = re.compile(r"O|[BIESLU]-.+")
_SHOWN = 60


def is_conll(path: Path) -> bool:
    """Whether a file's name says that it has CoNLL columns."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _PACKED]
    return bool(suffixes) and suffixes[-1] in CONLL


def read_conll(path: Path, first: str, blocks: Iterator[str]) -> Iterator[Record]:
    """The sentences of a file, each as its `tokens` and `tags`.

    Columns are parted by tabs where a line has one, else by spaces; those between word and tag are not read. Lines
    that begin documents (`-DOCSTART-`) and comments (`# …`) are no words.

    Args:
        path: for messages.
        first: the beginning of the text.
        blocks: the rest of it.

    Raises:
        BiaslineError: for a line that is no word with its tag, or has other columns than the lines before.
    """
    words: list[str] = []
    tags: list[str] = []
    width, known = 0, set[str]()
    for number, line in enumerate(_lines(first, blocks), 1):
        if not line.strip(" \t"):
            if words:
                yield {"tokens": words, "tags": tags}
                words, tags = [], []
            continue
        cells = line.split("\t") if "\t" in line else line.split(" ")
        cells = [cell.strip(" ") for cell in cells if cell.strip(" ")]
        if cells[0] == "-DOCSTART-":
            continue
        tag = cells[-1]
        # A word may be `#`, or begin with it: then a tag stands in the last column.
        is_word = len(cells) == (width or max(2, len(cells))) and (tag in known or _TAG.fullmatch(tag) is not None)
        if line.startswith("#") and not is_word:
            continue
        if len(cells) < 2:
            raise _broken(path, number, line, "a word and its tag were expected")
        if width and len(cells) != width:
            raise _broken(path, number, line, f"{len(cells)} columns, and {width} in the lines before")
        width = len(cells)
        known.add(tag)
        words.append(cells[0])
        tags.append(tag)
    if words:
        yield {"tokens": words, "tags": tags}


def _lines(first: str, blocks: Iterator[str]) -> Iterator[str]:
    rest = first
    while True:
        *lines, rest = rest.split("\n")
        yield from (line.removesuffix("\r") for line in lines)
        block = next(blocks, None)
        if block is None:
            break
        rest += block
    if rest:
        yield rest


def _broken(path: Path, number: int, line: str, told: str) -> BiaslineError:
    text = line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"
    return BiaslineError(
        f"{shown(path)}: line {number} ({text!r}): {told}",
        "mend it: a word, further columns if any, its tag; an empty line between sentences",
    )
