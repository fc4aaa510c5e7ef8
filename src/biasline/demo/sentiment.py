"""The sentiment data: short reviews with their label, in both languages, and a few that must be refused.

The same reviews that the base read about, in no template at all: a second task on the same frozen base.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from biasline.demo.reviews import sentiments

ROWS_PER_LANGUAGE = 700
BROKEN_PER_KIND = 5
SEED = 2025

Row = tuple[str, str, str]  # text, label, language

_LABELS = {"正面": "positive", "负面": "negative"}
_BREAKAGES: dict[str, Callable[[Row], Row]] = {
    "no text": lambda row: ("", row[1], row[2]),
    "blank text": lambda row: ("  ", row[1], row[2]),
    "no label": lambda row: (row[0], "", row[2]),
    "control characters": lambda row: (row[0][:3] + "\x07" + row[0][3:], row[1], row[2]),
    "mojibake": lambda row: (row[0][:-1] + "\ufffd\ufffd", row[1], row[2]),
}


@dataclass(frozen=True)
class SentimentData:
    """The rows in file order, and how many of them are broken, by kind."""

    rows: tuple[Row, ...]
    broken: dict[str, int]

    def to_tsv(self) -> str:
        """The file's text: tab-separated, with a header."""
        return "".join("\t".join(row) + "\n" for row in (("text", "label", "language"), *self.rows))


def make_rows(seed: int = SEED) -> SentimentData:
    """Draw reviews, spoil copies of further ones, and spread these among them."""
    rng = random.Random(seed)
    sound: list[Row] = []
    spare: list[Row] = []
    for skill in sentiments():
        cases = [*skill.free, *skill.held]
        rng.shuffle(cases)
        rows = [(case.slots["r"], _LABELS.get(case.answer, case.answer), skill.language) for case in cases]
        sound += rows[:ROWS_PER_LANGUAGE]
        spare += rows[ROWS_PER_LANGUAGE : ROWS_PER_LANGUAGE + 100]
    rng.shuffle(sound)
    rng.shuffle(spare)
    rows, broken = list(sound), Counter[str]()
    for kind, spoil in _BREAKAGES.items():
        for _ in range(BROKEN_PER_KIND):
            rows.insert(rng.randrange(len(rows) + 1), spoil(spare.pop()))
            broken[kind] += 1
    for _ in range(BROKEN_PER_KIND):
        rows.insert(rng.randrange(len(rows) + 1), rng.choice(sound))
        broken["exact duplicate"] += 1
    return SentimentData(tuple(rows), dict(broken))
