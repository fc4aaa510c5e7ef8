"""Entities that tags of words mark: B-X begins one of type X, I-X goes on with it, O is outside of all.

As seqeval and conlleval have it, an I-X that follows neither B-X nor I-X begins one too. Plain tags, such as parts of
speech, mark a word each.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

OUTSIDE = "O"


class Entity(NamedTuple):
    """An entity: its type, its first word, and the one behind its last."""

    type: str
    start: int
    end: int


def marks(tag: str) -> bool:
    """Whether a tag is B-X or I-X."""
    return tag[:2] in ("B-", "I-") and len(tag) > 2


def has_entities(tags: Iterable[str]) -> bool:
    """Whether some tags mark entities; else they are plain, such as parts of speech."""
    return any(map(marks, tags))


def begins(tag: str, before: str) -> bool:
    """Whether an entity begins at a tag, given the one before."""
    return marks(tag) and (tag[0] == "B" or not marks(before) or before[2:] != tag[2:])


def mended(tags: Sequence[str]) -> Iterator[str]:
    """The tags with B-X wherever an entity begins."""
    for before, tag in zip([OUTSIDE, *tags], tags, strict=False):
        yield f"B-{tag[2:]}" if begins(tag, before) else tag


def entities(tags: Sequence[str]) -> list[Entity]:
    """The entities that tags mark, in order."""
    found: list[Entity] = []
    for place, tag in enumerate(tags):
        before = tags[place - 1] if place else OUTSIDE
        if marks(tag) and not begins(tag, before):
            found[-1] = found[-1]._replace(end=place + 1)
        elif tag != OUTSIDE:
            found.append(Entity(tag[2:] if marks(tag) else tag, place, place + 1))
    return found
