"""What a skill is: cases, ways to ask for and to state them; and which cases pretraining must not see.

A skill is written once and read twice. The pretraining corpus states and asks its *free* cases in many forms,
and the instruction data asks again, in the one form that tuning has to teach. Two rules keep the demo honest.

- Knowledge (a translation, an opposite, the colour of a thing) must have been read to be known. Its test rows
  are combinations of a fact and a phrasing that tuning did not show, not facts that nobody showed.
- What can be worked out (sums, comparisons, sentences, passages, reviews) keeps a share of its combinations
  out of the pretraining text altogether: the *held* cases, chosen by a hash of the combination. No skill may
  leak another's: all of them ask `is_held` about the same combination.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

HELD_SHARE = 0.25


@dataclass(frozen=True)
class Case:
    """One thing to ask: what fills the blanks of a template, and the one right answer."""

    slots: Mapping[str, str]
    answer: str


@dataclass(frozen=True)
class Skill:
    """Cases of one kind in one language, with templates that ask for them or state them.

    `asks` and `new_asks` hold an instruction and, after a line break, an input. The new ones are kept for
    the instruction data; the corpus never uses them. `states` may use `{answer}` besides the case's slots.
    `weight` is how often the corpus turns to the skill, relative to the others.
    """

    name: str
    language: str
    free: tuple[Case, ...]
    held: tuple[Case, ...]
    asks: tuple[str, ...]
    new_asks: tuple[str, ...]
    states: tuple[str, ...]
    weight: float = 1.0


def is_held(*combination: object) -> bool:
    """Whether a combination stays out of the pretraining text; the same on every machine."""
    digest = hashlib.sha256("\x1f".join(map(str, combination)).encode()).digest()
    return int.from_bytes(digest[:8], "big") < HELD_SHARE * 2**64


def lines(text: str) -> tuple[str, ...]:
    r"""One template per line; a line break inside a template is written `\n`."""
    return tuple(line.strip().replace("\\n", "\n") for line in text.strip().splitlines())


def knowledge(
    name: str,
    language: str,
    facts: Iterable[tuple[str, str]],
    *,
    asks: str,
    new_asks: str,
    states: str,
    weight: float = 1.0,
) -> Skill:
    """A skill whose every case maps one word, `{x}`, to an answer, and holds nothing back."""
    cases = tuple(Case({"x": word}, answer) for word, answer in facts)
    return Skill(name, language, cases, (), lines(asks), lines(new_asks), lines(states), weight)


def combined(
    name: str,
    language: str,
    cases: Iterable[tuple[bool, Case]],
    *,
    asks: str,
    new_asks: str,
    states: str,
    weight: float = 1.0,
) -> Skill:
    """A skill whose cases come marked as held or free."""
    marked = tuple(cases)
    free = tuple(case for held, case in marked if not held)
    kept = tuple(case for held, case in marked if held)
    return Skill(name, language, free, kept, lines(asks), lines(new_asks), lines(states), weight)


def capitalised(text: str) -> str:
    """The text with its first letter as at the start of a sentence; the rest stays as it is."""
    return text[:1].upper() + text[1:]
