"""CoNLL columns: a word a line, its tag in the last column, an empty line between sentences.

Of CoNLL-U, as treebanks are written, words and universal parts of speech are read.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from biasline.data.json_objects import Record
from biasline.errors import BiaslineError, shown

# Endings by which such a file is known: the content of many could be that of a table.
_TREEBANK = ".conllu"
CONLL = {".conll", ".conll03", ".bio", ".iob", ".iob2", _TREEBANK}
# Columns of a treebank: the number of a word (a range or a decimal is none), the word, its part of speech.
_NUMBER, _FORM, _UPOS, _WIDTH, _UNSAID = 0, 1, 3, 10, "_"
_PACKED = {".gz", ".zst"}
_TAG = re.compile(r"O|[BIESLUM]-.+")
_DOCUMENT = "-DOCSTART-"
_LOOKED = 2_000
_SHOWN = 60


def is_conll(path: Path, first: str = "") -> bool:
    """Whether a file has CoNLL columns: by its name, or since a text begins with words that have tags of entities.

    Args:
        path: the file.
        first: the beginning of its text.
    """
    if _suffix(path) in CONLL:
        return True
    lines = [_cells(line) for line in first.removesuffix("\n").split("\n")[:_LOOKED]]
    words = [cells for cells in lines if cells and cells[0] != _DOCUMENT]
    return (
        len({len(cells) for cells in words}) == 1
        and [] in lines
        and all(len(cells) > 1 and _TAG.fullmatch(cells[-1]) for cells in words)
    )


def _suffix(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in _PACKED]
    return suffixes[-1] if suffixes else ""


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
    width, known, treebank = 0, set[str](), _suffix(path) == _TREEBANK
    for number, line in enumerate(_lines(first, blocks), 1):
        if not line.strip(" \t"):
            if words:
                yield {"tokens": words, "tags": tags}
                words, tags = [], []
            continue
        cells = _cells(line)
        if cells[0] == _DOCUMENT:
            if words:
                yield {"tokens": words, "tags": tags}
                words, tags = [], []
            continue
        if treebank and line.startswith("#"):
            continue
        if treebank:
            if len(cells) != _WIDTH:
                raise _broken(path, number, line, f"{len(cells)} columns, and a treebank's lines have {_WIDTH}")
            if cells[_NUMBER].isdecimal():
                words.append(cells[_FORM])
                tags.append("" if cells[_UPOS] == _UNSAID else cells[_UPOS])
            continue
        tag = cells[-1]
        # A word may be `#`, or begin with it. A comment is `# …` before a sentence, in as many cells as it likes.
        fits = len(cells) == (width or max(2, len(cells)))
        is_word = bool(words) or not line.startswith("# ") or tag in known or _TAG.fullmatch(tag) is not None
        if line.startswith("#") and not (fits and is_word):
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


def _cells(line: str) -> list[str]:
    """Columns of a line: parted by tabs where it has some, else by spaces."""
    cells = line.split("\t") if "\t" in line else line.split(" ")
    return [cell.strip(" \r") for cell in cells if cell.strip(" \r")]


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
