"""Several answers to one prompt: which of them become rows."""

import json
from collections.abc import Sequence
from typing import Any

import polars as pl

from biasline.data.raw import Raw

# The number of the record that a row was made of, where records give several.
RECORD = "record"


def chosen_answers(raw: Raw, name: str, which: str, best: list[int] | None = None) -> tuple[Raw, list[str]]:
    """Records whose column of answers holds lists of texts, with one answer each.

    Args:
        raw: the records.
        name: the column of answers; what is no list of texts there stays as it is.
        which: `first`, `longest`, or `each` (a row for each answer).
        best: of `first`, the place of the answer that counts as first in each row.

    Returns:
        the records, with `each` numbered anew (`row`), their own number in a column `record`; and what to say.
    """
    lists = [_texts(text) if nested else None for text, nested in zip(raw.text(name), raw.nested(name), strict=True)]
    several = sum(found is not None and len(found) > 1 for found in lists)
    if all(found is None for found in lists):
        return raw, [f"source.answers: {which}: no record has a list of answers in {name!r}"]
    if which == "each":
        return _one_row_each(raw, name, lists)
    texts: list[str | None] = []
    for place, (text, found) in enumerate(zip(raw.text(name).to_list(), lists, strict=True)):
        if found is None:
            texts.append(text)
        elif not found:
            texts.append(None)
        elif which == "longest":
            texts.append(max(found, key=len))
        else:
            texts.append(_at(text, best[place]) or found[0] if best else found[0])
    flags = raw.not_text(name) & pl.Series([found is None for found in lists], dtype=pl.Boolean)
    told = "best" if best else which
    note = f"records with several answers in {name!r}, of which the {told} is taken: {several:,}"
    return raw.replaced(name, texts, flags), [note] if several else []


def _one_row_each(raw: Raw, name: str, lists: list[list[str] | None]) -> tuple[Raw, list[str]]:
    plain = raw.text(name).to_list()
    places: list[int] = []
    texts: list[str | None] = []
    flags: list[bool] = []
    was_not_text = raw.not_text(name).to_list()
    for place, found in enumerate(lists):
        answers: Sequence[str | None] = [plain[place]] if found is None else found or [None]
        for text in answers:
            places.append(place)
            texts.append(text)
            flags.append(found is None and was_not_text[place])
    called = RECORD
    while called in raw.names:
        called += "_"
    records = raw.frame["row"].gather(places)
    frame = raw.frame[places].with_columns(pl.int_range(1, len(places) + 1, dtype=pl.Int64).alias("row"))
    more = Raw(frame, raw.names).replaced(name, texts, pl.Series(flags, dtype=pl.Boolean))
    more = more.replaced(called, records.cast(pl.String))
    note = f"source.answers: each: {len(raw):,} records give {len(places):,} rows; the record's number is in {called!r}"
    return more, [note]


def _at(text: str | None, place: int) -> str | None:
    """One item of a list, by its place among all of them."""
    items = json.loads(text or "[]")
    return items[place] if place < len(items) else None


def _texts(text: str | None) -> list[str] | None:
    """A list of texts, empty ones left out; None for anything else."""
    try:
        value: Any = json.loads(text or "")
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list) or not all(item is None or isinstance(item, str) for item in value):
        return None
    return [item for item in value if item and item.strip()]
