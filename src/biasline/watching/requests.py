"""Rows of users, and those that a model was evaluated on, in one form: when, whose, what was asked and answered."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from biasline.data.records import read_records
from biasline.errors import BiaslineError, first_few, shown
from biasline.kinds.answering import find_answering
from biasline.serving.traffic import read_traffic, traffic_files
from biasline.tokens.words import words_of

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
        right: the right answers, likewise; None where nobody said.
        fingerprints: of the model that answered; empty where nobody knows.
    """

    at: list[datetime | None]
    tenants: list[str]
    texts: list[str]
    answers: list[Any]
    right: list[Any]
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
    texts = [_text(row, kind) for row in answering.asked(predictions)]
    answers = answering.evaluated(predictions)
    column = answering.learning.columns.answer
    right = [answer_of(one, kind) for one in predictions[column]] if column in predictions.columns else [None] * count
    return Asked([None] * count, owners, texts, answers, right, [""] * count)


def of_traffic(folder: Path, task: str, kind: str) -> Asked:
    """What a server kept of a task (`traffic` and `traffic_texts`).

    Raises:
        BiaslineError: where the folder is not there, has no row of the task, or none with its text; and for a file that
            no server wrote.
    """
    wanted = ["at", "tenant", "fingerprint", "asked", "answer"]
    parts = [read_traffic(path, pl.col("task") == task, wanted) for path in traffic_files(folder)]
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
    texts = [_text(_object(told), kind) for told in rows["asked"]]
    answers = [answer_of(told, kind) for told in rows["answer"]]
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
    known = {
        name: [
            answer_of(record.get(column), kind, f"{shown(path)}: row {number}") if column else None
            for number, record in enumerate(records, 1)
        ]
        for name, column in (("answer", answer), ("right", RIGHT))
    }
    return Asked(
        at or [None] * len(records),
        [owner_of(record.get(tenant_column)) if tenant_column else "" for record in records],
        [_text(record, kind) for record in records],
        known["answer"],
        known["right"],
        [""] * len(records),
    )


def answered_by(rows: Asked, fingerprint: str) -> Asked:
    """The same rows, with the answers of one training alone, and those of which nobody knows whose they are."""
    pairs = zip(rows.answers, rows.fingerprints, strict=True)
    return replace(rows, answers=[answer if one in ("", fingerprint) else None for answer, one in pairs])


def said(answer: Any) -> str:
    """What an answer says, as text: its label or labels, its score, its tags, or itself."""
    found = value_of(answer)
    if isinstance(found, list):
        return ("+".join(sorted(map(str, found)))) if "labels" in answer else " ".join(map(str, found))
    return json.dumps(found, ensure_ascii=False, sort_keys=True) if isinstance(found, dict) else str(found)


def value_of(answer: Any) -> Any:
    """What an answer says, as a raw file has it: its label, labels, score or tags, or itself."""
    if not isinstance(answer, dict):
        return answer
    return next((answer[name] for name in ("labels", "label", "score", "tags") if name in answer), answer)


def _text(row: Any, kind: str) -> str:
    """What was asked; of words those, whatever stood between them."""
    learning = find_answering(kind).learning
    parts = [row.get(name) for name in learning.columns.prompt] if isinstance(row, dict) else [row]
    text = "\n".join(" ".join(map(str, one)) if isinstance(one, list) else str(one) for one in parts if one)
    if learning.auto_class == "AutoModelForTokenClassification":
        return " ".join(word for word, *_ in words_of(text))
    return text


def _object(told: str) -> Any:
    try:
        return json.loads(told)
    except ValueError:
        return told


def answer_of(told: Any, kind: str, where: str = "") -> Any:
    """An answer as a server gives it; None where there is none.

    Args:
        told: an object of the kind's outputs, as JSON or not, or the first of these alone.
        kind: of task.
        where: the file and row, for an error.
    """
    outputs = find_answering(kind).outputs
    if told is None or (outputs and isinstance(told, str) and not told.strip()):
        return None
    if not outputs:
        return str(told)
    found = _object(told) if isinstance(told, str) and told.lstrip()[0] in "{[" else told
    if isinstance(found, dict):
        return found
    if "tags" in outputs:
        return {"tags": found if isinstance(found, list) else str(found).split()}
    name, shape = next(iter(outputs.items()))
    if shape == "double":
        try:
            return {name: float(found)}
        except (TypeError, ValueError):
            raise BiaslineError(f"{where}: {str(told)[:40]!r} is no {name}", "write a number, or nothing") from None
    if isinstance(shape, list):
        return {name: found if isinstance(found, list) else str(found).split("|")}
    return {name: str(told).lower() if isinstance(told, bool) else str(told)}


def owner_of(value: Any) -> str:
    """A tenant's name, as serving reads it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))  # a table makes 7.0 of 7 where a row has none
    return "" if value is None else str(value).strip()


def _moment(value: Any, path: Path, number: int) -> datetime | None:
    if value is None or isinstance(value, datetime):
        return value
    if not str(value).strip():
        return None
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        raise BiaslineError(
            f"{shown(path)}: row {number}: {str(value)[:40]!r} is no time", "write it as 2026-01-31T12:00:00"
        ) from None
