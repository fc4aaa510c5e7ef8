"""Rows of users beside those that the champion was evaluated on: what changed, by day and by tenant."""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from biasline.data.nearness import near_duplicates
from biasline.watching.drift import (
    Check,
    decided,
    numbers,
    rate,
    shares,
    tenants_that_changed,
    told_apart,
    vectors_apart,
)
from biasline.watching.requests import Asked, said

# Rows of a tenant, on either side, from which it is looked at by itself.
TENANT_ROWS = 20
# Labels that a table of days has columns for.
_LABELS = 6
# How models of the field begin an answer that is none; in so many characters at its beginning.
_REFUSAL = re.compile(
    r"\b(?:I['’]?m|I am) (?:sorry|afraid|(?:un|not )able to)\b|\bI (?:can['’]?t|cannot|won['’]t|will not) "
    r"(?:help|assist|answer|provide|comply|do that)\b|\bas an AI\b"
    r"|抱歉|对不起|(?:无法|不能)(?:回答|提供|协助)|作为.{0,6}(?:AI|人工智能)",
    re.IGNORECASE,
)
_BEGINNING = 120


@dataclass(frozen=True)
class Reading:
    """What is known of the model that answers, for what can be told of texts.

    Attributes:
        unknown: for each text the share of its tokens that the tokenizer does not know; None where there is no such
            token.
        lengths: tokens of each text.
        longest: tokens that an answer has at most; 0 where answers are no texts.
        vectors: of texts, (texts, width), by the frozen base; None where it is not to be asked.
        trained: texts of the training rows; empty where they are not at hand.
    """

    unknown: Callable[[Sequence[str]], np.ndarray] | None = None
    lengths: Callable[[Sequence[str]], np.ndarray] | None = None
    longest: int = 0
    vectors: Callable[[Sequence[str]], np.ndarray] | None = None
    trained: Sequence[str] = ()


@dataclass(frozen=True)
class Day:
    """Rows of one day.

    Attributes:
        day: as 2026-01-31.
        rows: of it.
        length: median of the texts', in characters.
        said: what was answered most, over all days → its share on this one.
    """

    day: str
    rows: int
    length: float
    said: dict[str, float]


@dataclass(frozen=True)
class Report:
    """What a look at rows of users found.

    Attributes:
        task, version, fingerprint: of the model.
        rows: of users that were looked at.
        before: rows that the model was evaluated on.
        since, until: when the first and the last was asked; empty where nobody knows.
        level: share of reports without a change in which something alarms nonetheless.
        tenants_rate: share of the tenants named that have not changed.
        checks: of all rows.
        by_day: rows day by day.
        tenants: that changed → what alarms.
        tenants_tested, tenants_few: how many were looked at by themselves, and how many have too few rows.
        models: fingerprint → rows that it answered.
        near_training: share of rows that nearly repeat a training row; None where those are not at hand.
        right: share of right answers and its rows, where right ones came along; None else.
        notes: what could not be looked at, and why.
    """

    task: str
    version: str
    fingerprint: str
    rows: int
    before: int
    since: str
    until: str
    level: float
    tenants_rate: float
    checks: list[Check]
    by_day: list[Day] = field(default_factory=list)
    tenants: dict[str, list[Check]] = field(default_factory=dict)
    tenants_tested: int = 0
    tenants_few: int = 0
    models: dict[str, int] = field(default_factory=dict)
    near_training: float | None = None
    right: tuple[float, int] | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def alarms(self) -> bool:
        """Whether anything does."""
        return bool(self.tenants) or any(check.alarms for check in self.checks)

    @property
    def tells(self) -> bool:
        """Whether there were rows enough for any test."""
        return self.tenants_tested > 0 or any(check.told for check in self.checks)

    @property
    def verdict(self) -> str:
        """In a word or a few."""
        if self.alarms:
            return f"{sum(check.alarms for check in self.checks) + len(self.tenants)} changed"
        return "quiet" if self.tells else "too few rows to tell"

    @property
    def as_data(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"alarms": self.alarms, "verdict": self.verdict, **asdict(self)}


def recent(rows: Asked, days: float, now: datetime | None = None) -> Asked:
    """Rows of the last days; all where no time is known.

    Args:
        rows: of users.
        days: how many; 0 for all.
        now: the end; by default this moment.
    """
    if not days:
        return rows
    since = (now or datetime.now(UTC)) - timedelta(days=days)
    return rows.chosen([place for place, at in enumerate(rows.at) if at is None or aware(at) >= since])


def look(
    model: tuple[str, str, str],
    before: Asked,
    now: Asked,
    reading: Reading,
    *,
    level: float,
    tenants_rate: float,
    near: float,
    notes: Sequence[str] = (),
) -> Report:
    """Hold rows of users against those that a model was evaluated on.

    Args:
        model: its task, version and fingerprint.
        before: the rows of its evaluation.
        now: those of users.
        reading: what else can be told of texts.
        level: false alarms of all rows' checks together, as a share of reports.
        tenants_rate: false discovery rate among tenants.
        near: similarity from which a row nearly repeats a training row.
        notes: what could not be looked at, and why.
    """
    checks = decided(_checks(before, now, reading), level)
    of_tenants, few = _of_tenants(before, now)
    changed = tenants_that_changed(of_tenants, tenants_rate)
    known = sorted(aware(at) for at in now.at if at is not None)
    right = _right(now)
    return Report(
        *model,
        rows=len(now),
        before=len(before),
        since=known[0].isoformat() if known else "",
        until=known[-1].isoformat() if known else "",
        level=level,
        tenants_rate=tenants_rate,
        checks=checks,
        by_day=_by_day(now),
        tenants=changed,
        tenants_tested=len(of_tenants),
        tenants_few=few,
        models=dict(Counter(filter(None, now.fingerprints)).most_common()),
        near_training=_near_training(reading.trained, now.texts, near),
        right=(float(right.mean()), len(right)) if len(right) else None,
        notes=list(notes),
    )


def _checks(before: Asked, now: Asked, reading: Reading) -> list[Check]:
    """All that is looked at of all rows."""
    found = [*_of_answers(before.answers, now.answers, reading=reading), *_of_texts(before.texts, now.texts)]
    right = [_right(rows) for rows in (before, now)]
    if all(map(len, right)):
        found.append(rate("answers that are right", *right))
    if reading.unknown is not None:
        unknown = [reading.unknown(rows.texts) > 0 for rows in (before, now)]
        found.append(rate("texts with tokens that the base does not know", *unknown))
    found.append(told_apart("texts, by their characters", before.texts, now.texts))
    if reading.vectors is not None:
        vectors = [reading.vectors(rows.texts) for rows in (before, now)]
        found.append(vectors_apart("texts, by the frozen base's vectors", *vectors))
    return found


def _right(rows: Asked) -> np.ndarray:
    """Of rows whose right answer is known, whether it was given; of scores nothing is right or wrong."""
    pairs = [
        (answer, wanted)
        for answer, wanted in zip(rows.answers, rows.right, strict=True)
        if wanted is not None and answer is not None and not (isinstance(answer, dict) and "score" in answer)
    ]
    return np.array([said(answer).strip() == said(wanted).strip() for answer, wanted in pairs], dtype=bool)


def _of_texts(before: Sequence[str], now: Sequence[str]) -> list[Check]:
    sizes = [np.array([len(text) for text in texts]) for texts in (before, now)]
    blank = [np.array([not text.strip() for text in texts], dtype=bool) for texts in (before, now)]
    return [numbers("length of texts", *sizes), rate("empty texts", *blank)]


def _of_answers(before: Sequence[Any], now: Sequence[Any], *, reading: Reading | None = None) -> list[Check]:
    """What is said, and how surely; of what the rows have answers to."""
    pair = [[one for one in answers if one is not None] for answers in (before, now)]
    if not all(pair):
        return []
    found: list[Check] = []
    if all(isinstance(one, str) for answers in pair for one in answers):
        sizes = [np.array([len(text) for text in texts]) for texts in pair]
        found += [numbers("length of answers", *sizes), rate("empty answers", *(part == 0 for part in sizes))]
        refused = [np.array([bool(_REFUSAL.search(text[:_BEGINNING])) for text in texts]) for texts in pair]
        found.append(rate("answers that refuse", *refused))
        if reading is not None and reading.lengths is not None and reading.longest:
            endless = [reading.lengths(texts) >= reading.longest for texts in pair]
            found.append(rate("answers that come to no end", *endless))
        return found

    def values(name: str) -> list[list[Any]]:
        return [[one[name] for one in answers if isinstance(one, dict) and name in one] for answers in pair]

    for name, told in (("label", "labels given"), ("labels", "sets of labels given")):
        texts = [
            ["+".join(map(str, one)) if isinstance(one, list) else str(one) for one in part] for part in values(name)
        ]
        if all(texts):
            found.append(shares(told, *texts))
    for name, told in (("score", "scores given"), ("probability", "how sure the model is")):
        part = values(name)
        if all(part):
            found.append(numbers(told, *(np.array(one, dtype=float) for one in part)))
    counts = [np.array([len(one) for one in part], dtype=float) for part in values("entities")]
    if all(map(len, counts)):
        found.append(numbers("entities found in a text", *counts))
    return found


def _of_tenants(before: Asked, now: Asked) -> tuple[dict[str, list[Check]], int]:
    """Checks of each tenant that has rows enough on both sides, and how many have too few."""
    places: list[dict[str, list[int]]] = []
    for rows in (before, now):
        part = defaultdict(list)
        for place, name in enumerate(rows.tenants):
            if name:
                part[name].append(place)
        places.append(part)
    found, few = {}, 0
    for name in sorted(places[1]):
        if min(len(part.get(name, ())) for part in places) < TENANT_ROWS:
            few += 1
            continue
        own = [rows.chosen(part[name]) for rows, part in zip((before, now), places, strict=True)]
        found[name] = [*_of_answers(*(one.answers for one in own)), *_of_texts(*(one.texts for one in own))]
    return found, few


def _by_day(rows: Asked) -> list[Day]:
    most = [name for name, _ in Counter(said(one) for one in rows.answers if one is not None).most_common(_LABELS)]
    told = most if any(isinstance(one, dict) and ("label" in one or "labels" in one) for one in rows.answers) else []
    days = defaultdict(list)
    for place, at in enumerate(rows.at):
        if at is not None:
            days[aware(at).date().isoformat()].append(place)
    found = []
    for day in sorted(days):
        part = rows.chosen(days[day])
        answers = Counter(said(one) for one in part.answers)
        found.append(
            Day(
                day,
                len(part),
                float(np.median([len(text) for text in part.texts])),
                {name: answers[name] / len(part) for name in told},
            )
        )
    return found


def _near_training(trained: Sequence[str], texts: Sequence[str], threshold: float) -> float | None:
    """Share of rows that nearly repeat a training row."""
    if not trained or not texts:
        return None
    import polars as pl

    every = pl.Series([*trained, *texts], dtype=pl.String)
    parts = pl.Series(np.repeat([0, 1], [len(trained), len(texts)]))
    return len(near_duplicates(every, threshold, parts)) / len(texts)


def aware(at: datetime) -> datetime:
    """A moment in UTC, which it is taken to be in where it does not say."""
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
