"""Rows in what servers kept: found, counted, taken out."""

import json
from collections.abc import Collection
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
    """How many rows of a server's folder are among some, or have their text in a prompt.

    Args:
        folder: the server's `traffic`.
        name: of the task.
        task: its parameters.
        keys: content keys, of a fleet with the tenant.
        texts: folded texts, to look for in prompts.
        take_out: whether they are taken out of the files, what people said of them too.

    Raises:
        BiaslineError: for a file that no server wrote.
    """
    count, requests = 0, set()
    for path in traffic_files(folder):
        rows = read_traffic(path, pl.lit(True), _columns(path))
        gone = _among(rows, name, task, keys, texts)
        if not gone.any():
            continue
        count += int(gone.sum())
        requests |= set(rows["request"].filter(gone).drop_nulls())
        if take_out:
            left = rows.filter(~gone)
            if left.is_empty():
                path.unlink()
                continue
            with replacing(path) as draft:
                write_parquet(left, draft)
    if take_out:
        for path in sorted((folder / FEEDBACK).glob("*.jsonl")):
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
            kept = [line for line in lines if not _is_about(line, requests)]
            if kept != lines:
                write_text(path, "\n".join(kept))
    return count


def _columns(path: Path) -> list[str]:
    return list(pl.read_parquet_schema(path))


def _among(rows: pl.DataFrame, name: str, task: Task, keys: Collection[str], texts: Collection[str]) -> pl.Series:
    """Which rows are among some; those without a text are none."""
    if rows["asked"].null_count() == rows.height:
        return pl.repeat(False, rows.height, dtype=pl.Boolean, eager=True)
    asked, owners = rows["asked"].to_list(), rows["tenant"].fill_null("").to_list()
    known = asked_keys(asked, owners, task)
    folded = [content_key(text or "") for text in asked]
    mine = (rows["task"] == name).to_list()
    found = [
        own and text is not None and (key in keys or _is_within(plain, texts))
        for own, text, key, plain in zip(mine, asked, known, folded, strict=True)
    ]
    return pl.Series(found, dtype=pl.Boolean)


_SHORTEST = 12  # characters of a text that is looked for within others


def _is_within(prompt: str, texts: Collection[str]) -> bool:
    return prompt[:1] != "{" and any(len(text) >= _SHORTEST and text in prompt for text in texts)


def _is_about(line: str, requests: Collection[str]) -> bool:
    try:
        told: Any = json.loads(line)
    except ValueError:
        return False
    return isinstance(told, dict) and told.get("request") in requests
