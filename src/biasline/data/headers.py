"""Whether the first line of a delimited file names its columns: judged by known names, and by the cells below it."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

from biasline.data.turns import DIALOGUES
from biasline.errors import BiaslineError, shown
from biasline.kinds.columns import Columns
from biasline.params import Source

_NUMBER = re.compile(r"[-+]?(?:\d[\d.,]*|[.,]\d+)(?:e[-+]?\d+)?%?", re.IGNORECASE)
_MISSING = {"", "nan", "na", "n/a", "null", "none", "?", "-"}
# A column of few values: each stands this often, in so many cells at least, and nearly none stands but once.
_REPEATED, _ENOUGH, _ALONE = 5, 10, 0.02
# A column of texts has cells of this length; a name above it is no longer than that.
_TEXT, _NAME = 20, 30
# So many rows at least, before the length of the first alone is a doubt.
_ROWS = 5


@dataclass(frozen=True)
class Evidence:
    """What the cells of the first line say, beside those below; each reason in words.

    Attributes:
        type: cells that are no numbers above numbers, as names are.
        repetition: cells that do not come again above few values, as names do not, and rare values neither.
        length: short cells above long texts, as names are, and some texts.
        row: cells that are numbers above numbers, or come again: values.
        texts: whether there are columns of texts.
    """

    type: tuple[str, ...] = ()
    repetition: tuple[str, ...] = ()
    length: tuple[str, ...] = ()
    row: tuple[str, ...] = ()
    texts: bool = False

    @property
    def verdict(self) -> Literal["header", "row", "doubt"]:
        """What the first line is; a row where nothing says anything."""
        if self.type:
            return "doubt" if self.row else "header"
        if self.row:
            return "row"
        if self.repetition and (self.length or not self.texts):
            return "header"
        return "doubt" if self.repetition or self.length else "row"

    @property
    def header(self) -> tuple[str, ...]:
        """All that speaks for a header, the strongest first."""
        return (*self.type, *self.repetition, *self.length)


class Headers:
    """Judges the first line of each delimited file of a task; remembers what should be noted.

    Args:
        kind: whose known names count.
        source: what params say.
    """

    def __init__(self, kind: Columns, source: Source) -> None:
        self._source = source
        names = {name.lower() for names in kind.aliases.values() for name in names}
        names |= {name.lower() for name in source.columns.values()}
        if kind.context:
            names |= {*DIALOGUES, *kind.context}
        # Columns without a header are called by their place: such a name speaks for no header.
        self._known = {name for name in names if not name.isdecimal()}
        self._by_place = any(name.isdecimal() for name in names)
        self._judged: dict[tuple[str, ...], tuple[Path, bool]] = {}
        self.notes: list[str] = []

    def __call__(self, path: Path, records: Sequence[list[str]]) -> bool:
        """Whether the first record names the columns.

        Args:
            path: for messages.
            records: the first records of the file, all fields as text.

        Raises:
            BiaslineError: where it may be both.
        """
        if self._source.header != "auto":
            return self._source.header == "present"
        first = records[0]
        elsewhere, is_header = self._judged.get(tuple(first), (path, False))
        if is_header:  # a smaller file with the header of another
            return True
        is_header = self._is_header(path, records)
        if is_header and elsewhere != path:
            why_row = f"it was taken as one in {shown(elsewhere)}, which begins with the same line"
            raise self._in_doubt(path, first, "the cells below it are unlike it", why_row)
        self._judged[tuple(first)] = path, is_header
        return is_header

    def _is_header(self, path: Path, records: Sequence[list[str]]) -> bool:
        first = records[0]
        if _counts_columns(records):
            self._note("header: the first line numbers the columns")
            return True
        evidence = judged(records)
        known = [place for place, cell in enumerate(first) if cell.strip().lower() in self._known]
        if known:
            again = [first[place].strip() for place in known if _comes_again(records, place)]
            if len(again) == len(known) and not (evidence.type or evidence.repetition):
                why_row = f"{again[0]!r} comes again further down in its column"
                raise self._in_doubt(path, first, f"{again[0]!r} is the name of a column", why_row)
            return True
        verdict = evidence.verdict
        if self._by_place:
            verdict = "doubt" if evidence.type or verdict == "header" else "row"
        if verdict == "doubt":
            why_row = "params name columns by their place" if self._by_place else "no name in it is known"
            raise self._in_doubt(path, first, evidence.header[0], (*evidence.row, why_row)[0])
        if verdict == "header":
            self._note(f"header: the first line names the columns, since {evidence.header[0]}")
            return True
        self._note(f"no header: the first line has no known column name, so columns are called 1 to {len(first)}")
        return False

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)

    @staticmethod
    def _in_doubt(path: Path, first: Sequence[str], why_header: str, why_row: str) -> BiaslineError:
        line = ", ".join(first)
        line = line if len(line) <= 80 else line[:79] + "…"
        return BiaslineError(
            f"{shown(path)}: the first line ({line}) may be a header, since {why_header}, or a row, since {why_row}",
            f"`source.header: present` takes it as names; `absent` as a row of columns 1 to {len(first)}, to be named "
            "in source.columns",
        )


def judged(records: Sequence[list[str]]) -> Evidence:
    """Hold each cell of the first record against the cells below it: their type, repetition and length.

    Args:
        records: the first records of a file.

    Returns:
        What speaks for a header and what for a row; nothing where too few rows are there to tell.
    """
    first = [cell.strip() for cell in records[0]]
    rows = [row for row in records[1:] if len(row) == len(first)]
    type_, repetition, row, shorter = [], [], [], []
    texts = 0
    for place, cell in enumerate(first):
        below = [filled for values in rows if (filled := values[place].strip()).lower() not in _MISSING]
        if cell.lower() in _MISSING or len(below) < 2:
            continue
        if all(map(_NUMBER.fullmatch, below)):
            if _NUMBER.fullmatch(cell):
                row.append(f"{cell!r} is a number, as all of its column")
            else:
                type_.append(f"{cell!r} is no number, and all below it are")
            continue
        counts = Counter(below)
        if cell in counts:
            row.append(f"{cell!r} comes again further down in its column")
        elif _is_of_few_values(counts):
            repetition.append(f"{cell!r} does not come again in a column of {len(counts)} values")
        elif median(map(len, below)) >= _TEXT:
            texts += 1
            lengths = sorted(map(len, below))
            if len(cell) <= _NAME and len(cell) < lengths[int(len(lengths) * _ALONE)]:
                shorter.append(cell)
    length = [f"{cell!r} is shorter than nearly every text below it" for cell in shorter]
    if len(rows) < _ROWS or len(shorter) < texts:
        length = []
    return Evidence(tuple(type_), tuple(repetition), tuple(length), tuple(row), texts > 0)


def _is_of_few_values(counts: Counter[str]) -> bool:
    cells = counts.total()
    alone = sum(count == 1 for count in counts.values())
    return cells >= _ENOUGH and len(counts) * _REPEATED <= cells and alone <= cells * _ALONE


def _counts_columns(records: Sequence[list[str]]) -> bool:
    """Whether the first line is 0, 1, 2, … (or from 1 on), as a table without names is written, above other cells."""
    first = [cell.strip() for cell in records[0]]
    counts = any(first == [str(start + place) for place in range(len(first))] for start in (0, 1))
    cells = [cell for row in records[1:] for cell in row]
    return counts and len(first) > 1 and not all(map(_NUMBER.fullmatch, cells))


def _comes_again(records: Sequence[list[str]], place: int) -> bool:
    cell = records[0][place].strip()
    return any(len(row) > place and row[place].strip() == cell for row in records[1:])
