"""Rows of users, and those that a model was evaluated on, in one form: when, whose, what was asked and answered."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from biasline.data.records import read_records
from biasline.errors import BiaslineError, first_few, first_line, shown
from biasline.kinds.answering import find_answering

TIMES = ("at", "time", "timestamp", "date", "datetime", "created_at")
ANSWERS, RIGHT = ("answer", "prediction", "answered"), "right"


@dataclass(frozen=True)
class Asked:
    """Rows, one entry of each list for one row.

    Attributes:
        at: when it was asked, UTC; None where nobody knows.
        tenants: whose it is; empty of a task of one.
        texts: what was asked, its columns joined.
        answers: as a server gives them, a text or an object by the names of the kind's outputs; None if not known.
        right: the right answer as text; None where nobody said.
        fingerprints: of the model that answered; empty where nobody knows.
    """

    at: list[datetime | None]
    tenants: list[str]
    texts: list[str]
    answers: list[Any]
    right: list[str | None]
    fingerprints: list[str]

    def __len__(self) -> int:
        return len(self.texts)

    def chosen(self, places: Sequence[int]) -> "Asked":
        """Some rows."""
        return Asked(*([rows[place] for place in places] for rows in vars(self).values()))


def evaluated(kind: str, predictions: pl.DataFrame, tenant_column: str) -> Asked:
    """The test rows of a model, with what it answered.

    Args:
        kind: of task.
        predictions: of its evaluation.
        tenant_column: of a fleet; else empty.
    """
    answering = find_answering(kind)
    count = predictions.height
    owners = predictions[tenant_column].to_list() if tenant_column else [""] * count
    texts = [_text(row, answering.learning.columns.prompt) for row in answering.asked(predictions)]
    answers = answering.evaluated(predictions)
    return Asked([None] * count, owners, texts, answers, [None] * count, [""] * count)


def of_traffic(folder: Path, task: str, kind: str) -> Asked:
    """What a server kept of a task (`traffic` and `traffic_texts`).

    Raises:
        BiaslineError: where the folder is not there, has no row of the task, or none with its text; and for a file that
            no server wrote.
    """
    if not folder.is_dir():
        raise BiaslineError(f"{shown(folder)}: no such folder", "name the server's `traffic`")
    files = sorted(folder.glob("*.parquet"))
    wanted = ["at", "tenant", "fingerprint", "asked", "answer"]
    parts = []
    for file in files:
        try:
            parts.append(pl.scan_parquet(file).filter(pl.col("task") == task).select(wanted).collect())
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
            raise BiaslineError(
                f"{shown(file)}: not a file of a server's traffic: {first_line(error)}", "move it out of the folder"
            ) from None
    rows = pl.concat(parts) if parts else pl.DataFrame(schema=dict.fromkeys(wanted, pl.String))
    if not rows.height:
        raise BiaslineError(f"{shown(folder)}: no row of {task}", "name the folder of the server that answers it")
    without = rows["asked"].null_count()
    rows = rows.drop_nulls("asked").sort("at")
    if not rows.height:
        raise BiaslineError(
            f"{shown(folder)}: {without:,} rows of {task}, and none has its text",
            "serve with traffic_texts: true, or name a file of rows (--rows)",
        )
    columns = find_answering(kind).learning.columns.prompt
    texts = [_text(_object(told), columns) for told in rows["asked"]]
    answers = [_answer(told, kind) for told in rows["answer"]]
    return Asked(
        rows["at"].to_list(),
        rows["tenant"].fill_null("").to_list(),
        texts,
        answers,
        [None] * rows.height,
        rows["fingerprint"].fill_null("").to_list(),
    )


def of_file(path: Path, kind: str, tenant_column: str) -> Asked:
    """Rows of a file: the kind's own columns, and where there are such, a time, an answer, the right one, a tenant.

    Raises:
        BiaslineError: naming the file and what it lacks.
    """
    if not path.is_file():
        raise BiaslineError(f"{shown(path)}: no such file", "name a file of rows")
    columns = find_answering(kind).learning.columns
    records = list(read_records(path, lambda *_: True))
    if not records:
        raise BiaslineError(f"{shown(path)}: no rows", "name a file of rows")
    names = list(dict.fromkeys(name for record in records for name in record))
    if columns.prompt[0] not in names:
        raise BiaslineError(
            f"{shown(path)}: no column {columns.prompt[0]!r} beside {first_few(map(repr, names), 8)}",
            "call the text's column so",
        )
    time = next((name for name in TIMES if name in names), "")
    answer = next((name for name in ANSWERS if name in names), "")
    at = [_moment(record.get(time), path, number) for number, record in enumerate(records, 1)] if time else []
    return Asked(
        at or [None] * len(records),
        [str(record.get(tenant_column) or "") if tenant_column else "" for record in records],
        [_text(record, columns.prompt) for record in records],
        [_answer(record.get(answer), kind) if answer else None for record in records],
        [None if record.get(RIGHT) is None else str(record[RIGHT]) for record in records],
        [""] * len(records),
    )


def said(answer: Any) -> str:
    """What an answer says, as text: its label or labels, its score, or itself."""
    if not isinstance(answer, dict):
        return str(answer)
    for name in ("label", "labels", "score", "tags"):
        if name in answer:
            value = answer[name]
            return "+".join(map(str, value)) if isinstance(value, list) else str(value)
    return json.dumps(answer, ensure_ascii=False, sort_keys=True)


def _text(row: Any, columns: Sequence[str]) -> str:
    if not isinstance(row, dict):
        return str(row)
    parts = [row.get(name) for name in columns]
    return "\n".join(" ".join(map(str, one)) if isinstance(one, list) else str(one) for one in parts if one)


def _object(told: str) -> Any:
    try:
        return json.loads(told)
    except ValueError:
        return told


def _answer(told: Any, kind: str) -> Any:
    if not isinstance(told, str) or not find_answering(kind).outputs:
        return told
    found = _object(told)
    first = next(iter(find_answering(kind).outputs))
    return found if isinstance(found, dict) else {first: found}


def _moment(value: Any, path: Path, number: int) -> datetime | None:
    if value is None or isinstance(value, datetime):
        return value
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        raise BiaslineError(
            f"{shown(path)}: row {number}: {str(value)[:40]!r} is no time", "write it as 2026-01-31T12:00:00"
        ) from None
