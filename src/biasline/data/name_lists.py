"""Several names in one cell: as JSON, in one order and without repeats."""

import ast
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import polars as pl

_WHOLE = re.compile(r"-?[0-9]+")


def in_order(names: Iterable[str], order: Sequence[str] = ()) -> list[str]:
    """Names without repeats: first those of `order` in its order, then numbers by value, then texts."""
    rank = {name: place for place, name in enumerate(order)}

    def key(name: str) -> tuple[int, bool, int, str]:
        whole = _WHOLE.fullmatch(name) is not None
        return rank.get(name, len(rank)), not whole, int(name) if whole else 0, name

    return sorted(set(names), key=key)


def canonical(names: Iterable[str], order: Sequence[str] = ()) -> str:
    """Names as rows have them: the JSON of a list, see `in_order`."""
    return json.dumps(in_order(names, order), ensure_ascii=False)


def sets_of(labels: pl.Series) -> list[list[str]]:
    """The names in each cell of clean rows."""
    known: dict[str, list[str]] = {cell: json.loads(cell) for cell in labels.unique()}
    return [known[cell] for cell in labels]


def one_by_one(frame: pl.DataFrame) -> pl.DataFrame:
    """A row for each label of each row: `row`, `label`."""
    rows = [(row, name) for row, names in zip(frame["row"], sets_of(frame["labels"]), strict=True) for name in names]
    return pl.DataFrame(rows, schema={"row": pl.Int64, "label": pl.String}, orient="row")


def parsed(cell: str) -> Any:
    """What a cell says as JSON, or as Python writes a list; the text itself where it is neither."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
    return cell
