"""What people say of answers, beside what a server kept of them: rows that were asked, with their right answers."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from biasline.data.records import read_records
from biasline.errors import BiaslineError, first_few, shown
from biasline.kinds.answering import find_answering
from biasline.serving.traffic import FEEDBACK, plain_id, read_traffic, traffic_files
from biasline.watching.requests import answer_of, owner_of, value_of

_IDS, _PLACES, _RIGHT = ("request", "id", "request_id"), ("index", "row"), ("right", "correction", "correct")
_THUMBS = {"up": True, "+1": True, "1": True, "true": True, "👍": True}
_THUMBS |= {"down": False, "-1": False, "0": False, "false": False, "👎": False}
# Why something that was said comes to no row.
UNKNOWN, OF_ANOTHER_TASK, OF_ANOTHER_TENANT = (
    "no such request",
    "an answer of another task",
    "an answer of another tenant",
)
NO_SUCH_ROW, NO_TEXT = "the request has no such row", "its text was not kept (traffic_texts)"
NO_ANSWER = "what is said to be right is no answer of this kind"
NO_TEMPLATE, ONLY_WRONG = "asked without the task's template", "said to be wrong, and not what would be right"
CHANGED_MIND = "said again later"


@dataclass(frozen=True)
class Said:
    """What somebody says of one answer.

    Attributes:
        request: its id, see `plain_id`.
        index: which of the request's rows.
        right: what would have been right; None where that is not said.
        good: whether the answer was right; None where only `right` is said.
        where: file and row, for errors.
        task: whose answer it was; empty where nobody says.
        tenant: likewise.
    """

    request: str
    index: int
    right: Any
    good: bool | None
    where: str
    task: str = ""
    tenant: str = ""


@dataclass(frozen=True)
class Corrected:
    """A row that was asked, with its right answer.

    Attributes:
        name: of the row, `request:index`.
        row: as it was asked, by the kind's columns.
        right: as a raw file has it: a text, a number, or a list.
        answered: what the model said, likewise.
        tenant: whose it is.
        fingerprint: of the training that answered.
        at: when.
    """

    name: str
    row: dict[str, Any]
    right: Any
    answered: Any
    tenant: str
    fingerprint: str
    at: str


@dataclass
class Matched:
    """What was said, beside what was answered.

    Attributes:
        rows: that can be learned from.
        left_out: reason → what was said so, by file and row or by request.
        confirmed: of the rows, those whose answer was right.
        notes: what a person should know.
    """

    rows: list[Corrected] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    confirmed: int = 0
    notes: list[str] = field(default_factory=list)

    def leave_out(self, reason: str, what: str) -> None:
        """Count something that is not learned from."""
        self.left_out.setdefault(reason, []).append(what)


def said_in_folder(traffic: Path, task: str) -> tuple[list[Said], list[str]]:
    """What clients told a server of answers of a task (`POST /v1/feedback`), oldest first, and notes."""
    said: list[tuple[str, Said]] = []
    notes = []
    for path in sorted((traffic / FEEDBACK).glob("*.jsonl")):
        for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
            if not line.strip():
                continue
            where = f"{shown(path)}: line {number}"
            try:
                told = json.loads(line)
                one = Said(
                    _string(told["request"]),
                    int(told["index"]),
                    told["right"],
                    _good(told["thumb"], where),
                    where,
                    _string(told["task"]),
                    _string(told["tenant"]),
                )
                at = str(told["at"])
            except (ValueError, KeyError, TypeError, BiaslineError):  # a server that was killed while it wrote
                notes.append(f"{where} is cut off: left out")
                continue
            if one.task == task:
                said.append((at, one))
    return [one for _, one in sorted(said, key=lambda pair: pair[0])], notes


def said_in_file(path: Path, tenant_column: str) -> list[Said]:
    """What a file says of answers: a CSV, or any other file of records, with `request` and `right` or `thumb`.

    Args:
        path: the file.
        tenant_column: of a fleet; the file may have it.

    Raises:
        BiaslineError: naming the file, its row and what it lacks.
    """
    if not path.is_file():
        raise BiaslineError(f"{shown(path)}: no such file", "name a file of requests and what is right")
    records = list(read_records(path, lambda *_: True))
    names = list(dict.fromkeys(name for record in records for name in record))
    ids, place, right = (next((name for name in known if name in names), "") for known in (_IDS, _PLACES, _RIGHT))
    if not ids or not (right or "thumb" in names):
        raise BiaslineError(
            f"{shown(path)}: the columns `request`, and `right` or `thumb`, were expected, got "
            f"{first_few(map(repr, names), 8) or 'no rows'}",
            "an answer's id stands in it, and in its header x-request-id",
        )
    found = []
    for number, record in enumerate(records, 1):
        where = f"{shown(path)}: row {number}"
        request = str(record.get(ids) or "").strip()
        if not request:
            raise BiaslineError(f"{where}: no {ids}", "name the answer that it is about")
        asked = record.get(place) if place else None
        index = 0 if asked in (None, "") else asked
        if not str(index).isdecimal():
            raise BiaslineError(f"{where}: {place}: {str(index)[:40]!r} is no number of a row", "they begin at 0")
        said = record.get(right) if right else None
        said = None if isinstance(said, str) and not said.strip() else said
        good = _good(record.get("thumb"), where)
        if said is None and good is None:
            raise BiaslineError(f"{where}: neither right nor thumb is filled in", "fill one in")
        owner = owner_of(record.get(tenant_column)) if tenant_column else ""
        found.append(Said(plain_id(request), int(index), said, good, where, str(record.get("task") or ""), owner))
    return found


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _good(thumb: Any, where: str) -> bool | None:
    if thumb is None or not str(thumb).strip():
        return None
    found = _THUMBS.get(str(thumb).strip().lower())
    if found is None:
        raise BiaslineError(f"{where}: thumb: {str(thumb)[:40]!r}", "up or down was expected")
    return found


def matched(said: list[Said], traffic: Path, task: str, kind: str) -> Matched:
    """Rows out of what was said and what was answered; of what was said of one answer, the last counts.

    Args:
        said: by people, oldest first.
        traffic: the server's folder.
        task: name of the task.
        kind: of task.

    Raises:
        BiaslineError: for a file that no server wrote, and where a right answer is none of the kind.
    """
    found = Matched()
    answers = _answers(traffic, {one.request for one in said})
    last: dict[tuple[str, int], Said] = {}
    heard = []
    for one in said:
        rows, place = answers.get(one.request), (one.request, one.index)
        if rows is None:
            found.leave_out(UNKNOWN, f"{one.request} ({one.where})")
        elif one.index >= len(rows):
            found.leave_out(NO_SUCH_ROW, f"{one.request}:{one.index} ({one.where})")
        elif reason := _is_not_theirs(one, rows[one.index], task):
            found.leave_out(reason, f"{one.request} ({one.where})")
        else:
            heard.append(one)
            # That an answer is wrong takes nothing from what was said to be right instead.
            if place not in last or one.right is not None or one.good:
                last[place] = one
    for one in heard:
        if last[one.request, one.index] is not one:
            found.leave_out(CHANGED_MIND, one.where)
        elif isinstance(row := _corrected(one, answers[one.request][one.index], kind), str):
            found.leave_out(row, f"{one.request} ({one.where})")
        else:
            found.rows.append(row)
            found.confirmed += row.right == row.answered
    return found


def _is_not_theirs(one: Said, kept: Mapping[str, Any], task: str) -> str:
    """Why somebody cannot say anything of a row; empty where they can."""
    if kept["task"] != task or one.task not in ("", task):
        return OF_ANOTHER_TASK
    return OF_ANOTHER_TENANT if one.tenant and one.tenant != (kept["tenant"] or "") else ""


def _corrected(one: Said, kept: Mapping[str, Any], kind: str) -> Corrected | str:
    """A row, or why it is none."""
    owner = kept["tenant"] or ""
    if one.right is None and not one.good:
        return ONLY_WRONG
    if kept["asked"] is None or kept["answer"] is None:
        return NO_TEXT
    try:
        row = json.loads(kept["asked"])
    except ValueError:
        row = None
    if not isinstance(row, dict):
        return NO_TEMPLATE
    answered = value_of(answer_of(kept["answer"], kind, one.where))
    try:
        right = answered if one.right is None else value_of(answer_of(one.right, kind, one.where))
    except BiaslineError:
        if not one.task:  # of a file, which its writer can mend
            raise
        return NO_ANSWER
    columns = find_answering(kind).learning.columns.given
    row = {name: row[name] for name in columns if row.get(name) not in (None, "", [])}
    name = f"{one.request}:{one.index}"
    return Corrected(name, row, right, answered, owner, kept["fingerprint"] or "", kept["at"].isoformat())


def _answers(traffic: Path, wanted: set[str]) -> dict[str, list[dict[str, Any]]]:
    """Request → its rows, in their order."""
    found: dict[str, list[dict[str, Any]]] = {}
    for path in traffic_files(traffic):
        for row in read_traffic(path, pl.col("request").is_in(wanted)).iter_rows(named=True):
            found.setdefault(row["request"], []).append(row)
    return found
