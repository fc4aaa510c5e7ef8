"""What was asked and answered, for whoever wants to look at it later: Parquet in a folder of theirs."""

import json
import logging
import math
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from biasline.errors import first_line
from biasline.serving.traffic import FEEDBACK, SCHEMA

_log = logging.getLogger(__name__)
_ROWS, _SECONDS = 1000, 30.0  # a file has so many rows, or what came within that time
_MOST = 100_000  # rows that are kept where the folder cannot be written to


class NotKept(Exception):
    """Feedback comes to nothing: the server does not keep what it is about."""


class Traffic:
    """Rows that were answered, put into files as they come.

    Each has what answered it, and of a shadow whether it says the same; texts only where they are asked for. Not safe
    to be lost: what was not written yet goes with the process.

    Args:
        folder: where; empty for nowhere.
        texts: whether questions and answers are kept.
    """

    def __init__(self, folder: str = "", texts: bool = False) -> None:
        self._folder = Path(folder) if folder else None
        self._texts = texts
        self._rows: list[dict[str, Any]] = []
        self._since = time.monotonic()
        self._lock = threading.Lock()
        self._feedback = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:8]}.jsonl"

    def add(
        self,
        told: Mapping[str, str],
        tenants: Sequence[str],
        asked: Sequence[Any],
        answers: Sequence[Any],
        others: Sequence[Any] | None = None,
        unable: bool = False,
    ) -> None:
        """Keep rows of a request.

        Args:
            told: `request`, `task`, `version`, `fingerprint`, and of a shadow `shadow_version` and
                `shadow_fingerprint`.
            tenants: whose each row is; none where the task is of one.
            asked: the rows.
            answers: to them.
            others: the shadow's.
            unable: whether the shadow failed, so that it says something else.
        """
        if self._folder is None:
            return
        at = datetime.now(UTC)
        rows = []
        for number, answer in enumerate(answers):
            other = None if others is None else others[number]
            row = {**told, "at": at, "tenant": tenants[number] if tenants else ""}
            row["agrees"] = (False if unable else None) if others is None else agree(answer, other)
            if self._texts:
                row |= {"asked": _text(asked[number]), "answer": _text(answer)}
                row["shadow_answer"] = None if others is None else _text(other)
            rows.append(row)
        with self._lock:
            self._rows += rows
        if len(self._rows) >= _ROWS:
            self.flush()

    def add_feedback(self, told: Mapping[str, Any]) -> None:
        """Keep what somebody says of an answer; it is written at once, since it is rare and nobody says it twice.

        Args:
            told: task, tenant, request, index, right, thumb, and the key that said it.

        Raises:
            NotKept: where questions and answers are not kept, or cannot be.
        """
        if self._folder is None or not self._texts:
            raise NotKept("this server does not keep what it is asked: start it with `traffic` and `traffic_texts`")
        line = json.dumps({"at": datetime.now(UTC).isoformat(timespec="milliseconds"), **told}, ensure_ascii=False)
        path = self._folder / FEEDBACK / self._feedback
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._lock, path.open("a", encoding="utf-8", errors="replace") as file:
                file.write(line + "\n")
        except OSError as error:
            _log.error("%s: feedback was not kept: %s", path, first_line(error))
            raise NotKept("the server cannot write now; its log says why") from None

    def flush(self, only_old: bool = False) -> None:
        """Write what there is, or only where the oldest of it waited long enough."""
        with self._lock:
            if self._folder is None or not self._rows or (only_old and time.monotonic() - self._since < _SECONDS):
                return
            rows, self._rows, self._since = self._rows, [], time.monotonic()
        name = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:8]}"
        draft = self._folder / f".{name}.draft"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            pl.DataFrame(rows, schema=SCHEMA).write_parquet(draft)
            draft.rename(self._folder / f"{name}.parquet")
        except OSError as error:
            _log.error("%s: %d rows wait to be written: %s", self._folder, len(rows), first_line(error))
            with self._lock:
                self._rows = [*rows, *self._rows][-_MOST:]


def agree(answer: Any, other: Any) -> bool | None:
    """Whether two models say the same, however sure they are; None where answers are numbers alone."""
    if not isinstance(answer, dict) or not isinstance(other, dict):
        return bool(answer == other)
    said = [{name: value for name, value in one.items() if not _is_measure(value)} for one in (answer, other)]
    return said[0] == said[1] if said[0] else None


def _is_measure(value: Any) -> bool:
    """Whether a value says how sure a model is, and not what it says."""
    if isinstance(value, dict):
        return all(map(_is_measure, value.values()))
    if isinstance(value, list):
        return bool(value) and all(isinstance(one, dict) or _is_measure(one) for one in value)
    return isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool) and math.isfinite(value))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
