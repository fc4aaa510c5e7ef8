"""Rows in what servers kept: found, counted, taken out."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import polars as pl

from biasline.data.split import content_key
from biasline.erasing.rows import asked_keys
from biasline.layout import replacing, write_parquet, write_text
from biasline.params import Task
from biasline.serving.traffic import FEEDBACK, read_traffic, traffic_files


def served_rows(
    folder: Path, name: str, task: Task, keys: Collection[str], texts: Collection[str], *, take_out: bool
) -> int:
    """How many rows of a server's folder are among some, or have their text in a prompt or an earlier turn.

    A row stays, without what was asked and answered: its place among those of its request names it for feedback.

    Args:
        folder: the server's `traffic`.
        name: of the task.
        task: its parameters.
        keys: content keys, of a fleet with the tenant.
        texts: folded texts, to look for in prompts.
        take_out: whether texts are taken out of the files, and what people said of these rows.

    Raises:
        BiaslineError: for a file that no server wrote.
    """
    marked, gone = {}, set[tuple[str, int]]()
    for path in traffic_files(folder):
        rows = read_traffic(path, pl.lit(True), list(pl.read_parquet_schema(path)))
        among = _among(rows, name, task, keys, texts)
        if among.any():
            marked[path] = among
            places = rows.select("request", index=pl.int_range(pl.len()).over("request")).filter(among)
            gone |= {(request, int(index)) for request, index in places.iter_rows() if request is not None}
    if take_out:
        # First, while the rows still say which these are: a crash in between is made up for by the next try.
        for path in sorted((folder / FEEDBACK).glob("*.jsonl")):
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
            kept = [line for line in lines if not _is_about(line, gone)]
            if kept != lines:
                write_text(path, "\n".join(kept))
        for path, among in marked.items():
            rows = pl.read_parquet(path)
            emptied = [pl.when(~among).then(one).alias(one) for one in _TEXTS if one in rows.columns]
            with replacing(path) as draft:
                write_parquet(rows.with_columns(emptied), draft)
    return sum(int(among.sum()) for among in marked.values())


_TEXTS = ("asked", "answer", "shadow_answer")
_SHORTEST = 12  # characters of a text that is looked for within others


def _among(rows: pl.DataFrame, name: str, task: Task, keys: Collection[str], texts: Collection[str]) -> pl.Series:
    """Which rows are among some; those without a text are none."""
    if rows["asked"].null_count() == rows.height:
        return pl.repeat(False, rows.height, dtype=pl.Boolean, eager=True)
    asked, owners = rows["asked"].to_list(), rows["tenant"].fill_null("").to_list()
    known = asked_keys(asked, owners, task)
    many, long = task.tenants.many, [text for text in texts if len(text) >= _SHORTEST]

    def has(text: str, owner: str) -> bool:
        folded = content_key(" ".join(_strings(text)))
        return any(one in folded and (not many or f"{owner}\x1f{one}" in keys) for one in long)

    mine = (rows["task"] == name).to_list()
    found = [
        own and text is not None and (key in keys or has(text, owner))
        for own, text, key, owner in zip(mine, asked, known, owners, strict=True)
    ]
    return pl.Series(found, dtype=pl.Boolean)


def _strings(told: str) -> Iterator[str]:
    """The texts of what was asked: itself, or those of the values of an object, a dialogue's turns among them."""
    try:
        value = json.loads(told)
    except ValueError:
        value = told
    pending = [value]
    while pending:
        one = pending.pop(0)
        if isinstance(one, dict | list):
            pending += one.values() if isinstance(one, dict) else one
        else:
            yield str(one)


def _is_about(line: str, gone: Collection[tuple[str, int]]) -> bool:
    try:
        told: Any = json.loads(line)
        return (told["request"], int(told["index"])) in gone
    except (ValueError, KeyError, TypeError):
        return False
