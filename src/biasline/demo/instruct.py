"""The instruction data: rows in Alpaca's shape, of all skills, and a few that a careful pipeline must refuse.

Nothing in the file tells a broken row from a sound one; that is for the pipeline to find out. `make_rows`
says which kinds were planted, for whoever wants to check.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from biasline.demo.skill import Skill
from biasline.demo.skills import all_skills

ROWS_PER_SKILL = 124
BROKEN_PER_KIND = 5
SEED = 2024

Row = dict[str, Any]


@dataclass(frozen=True)
class InstructData:
    """The rows in file order, and how many of them are broken, by kind."""

    rows: tuple[Row, ...]
    broken: dict[str, int]

    def to_jsonl(self) -> str:
        """The file's text: one JSON object per line, Chinese as it is read."""
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)


def make_rows(seed: int = SEED) -> InstructData:
    """Make the sound rows, spoil copies of further ones, and spread these among them."""
    rng = random.Random(seed)
    taken: set[tuple[str, str]] = set()
    sound = [row for skill in all_skills() for row in _sound_rows(rng, skill, ROWS_PER_SKILL, taken)]
    rng.shuffle(sound)
    rows = list(sound)
    broken: Counter[str] = Counter()
    for kind, spoil in _BREAKAGES.items():
        for _ in range(BROKEN_PER_KIND):
            fresh = _sentence_row(rng, taken)
            rows.insert(rng.randrange(len(rows) + 1), spoil(rng, fresh))
            broken[kind] += 1
    for _ in range(BROKEN_PER_KIND):
        rows.insert(rng.randrange(len(rows) + 1), dict(rng.choice(sound)))
        broken["exact duplicate"] += 1
    return InstructData(tuple(rows), dict(broken))


def _sound_rows(rng: random.Random, skill: Skill, count: int, taken: set[tuple[str, str]]) -> list[Row]:
    """Draw rows that were not drawn before, from all cases alike, whether pretraining saw them or not."""
    templates = skill.asks + skill.new_asks
    cases = skill.free + skill.held
    rows: list[Row] = []
    while len(rows) < count:
        case = rng.choice(cases)
        instruction, _, given = rng.choice(templates).format(**case.slots).partition("\n")
        if (instruction, given) not in taken:
            taken.add((instruction, given))
            rows.append({"instruction": instruction, "input": given, "output": case.answer, "skill": skill.name})
    return rows


def _skills_named(*names: str) -> list[Skill]:
    return [skill for skill in all_skills() if skill.name in names]


def _sentence_row(rng: random.Random, taken: set[tuple[str, str]]) -> Row:
    """A sound row with a whole sentence as input, so that every breakage has something to work on."""
    skills = _skills_named("negation", "past", "reading", "translate_sentence")
    while True:
        [row] = _sound_rows(rng, rng.choice(skills), 1, taken)
        if len(row["input"]) >= 10:
            return row


# --- breakages ------------------------------------------------------------------------------------


def _output(make: Callable[[random.Random, Row], Any]) -> Callable[[random.Random, Row], Row]:
    """A breakage that only replaces the output."""
    return lambda rng, row: {**row, "output": make(rng, row)}


def _no_instruction(rng: random.Random, row: Row) -> Row:
    if rng.random() < 0.5:
        return {**row, "instruction": ""}
    return {key: value for key, value in row.items() if key != "instruction"}


def _merged(rng: random.Random, row: Row) -> Row:
    other = rng.choice(
        (
            "\n\nHuman: Name a fruit.\n\nAssistant: apple",
            "\n\n### Instruction:\nName a fruit.\n\n### Response:\napple",
            "\n\nHuman: 说一种水果。\n\nAssistant: 苹果",
        )
    )
    return {**row, "output": row["output"] + other}


def _control(rng: random.Random, row: Row) -> Row:
    sign = rng.choice(("\u0000", "\u0007", "\u001b"))
    middle = len(row["output"]) // 2
    return {**row, "output": row["output"][:middle] + sign + row["output"][middle:]}


def _mojibake(rng: random.Random, row: Row) -> Row:
    if rng.random() < 0.5:
        return {**row, "output": "昨天我看见了苹果。".encode().decode("latin-1")}
    return {**row, "output": row["output"][:-3] + "\ufffd\ufffd"}


def _address(rng: random.Random, row: Row) -> Row:
    return {**row, "input": f"https://example.com/articles/{rng.randrange(10_000)}"}


def _loop(rng: random.Random, _: Row) -> str:
    return " ".join([rng.choice(("apple", "very", "好的", "the cat"))] * 40)


def _too_long(rng: random.Random, row: Row) -> str:
    """Many different sentences rather than one repeated, which would be a loop."""
    reading, _ = _skills_named("reading")
    more = _sound_rows(rng, reading, 100, set())
    return " ".join([row["output"], *(other["output"] for other in more)])


_BREAKAGES: dict[str, Callable[[random.Random, Row], Row]] = {
    "output null": _output(lambda rng, row: None),
    "output empty": _output(lambda rng, row: ""),
    "output blank": _output(lambda rng, row: rng.choice((" ", "\n", "\t \n"))),
    "output placeholder": _output(lambda rng, row: rng.choice(("N/A", "无", "None."))),
    "output not text": _output(lambda rng, row: rng.choice((42, 3.5, [row["output"]]))),
    "no instruction": _no_instruction,
    "output copies input": _output(lambda rng, row: row["input"]),
    "records merged": _merged,
    "control characters": _control,
    "mojibake": _mojibake,
    "output loops": _output(_loop),
    "input only an address": _address,
    "output too long": _output(_too_long),
}
