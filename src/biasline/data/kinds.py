"""The kinds of examples: their columns, and the names under which files have them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Kind:
    """Columns of one kind of example.

    Attributes:
        prompt: text columns that the model is given; the first is required.
        context: what was said before: `history`, a JSON list of [role, content], empty for a single turn.
        answer: the column that it is to produce; required.
        aliases: our column → names that files use for it, best first.
        answered: whether rows have their answer; those that a model is asked need none.
    """

    prompt: tuple[str, ...]
    answer: str
    aliases: dict[str, tuple[str, ...]]
    context: tuple[str, ...] = ()
    answered: bool = True

    @property
    def given(self) -> tuple[str, ...]:
        """All that the model is given."""
        return (*self.prompt, *self.context)

    @property
    def columns(self) -> tuple[str, ...]:
        """All of our columns; any other column of a file is metadata."""
        return (*self.given, self.answer) if self.answered else self.given

    @property
    def required(self) -> tuple[str, ...]:
        return (self.prompt[0], self.answer) if self.answered else self.prompt[:1]


# A column of whole dialogues: lists of {role, content}, or of {from, value} as ShareGPT has them.
DIALOGUES = ("messages", "conversations", "conversation", "dialogue", "dialog")
ROLES = {"system": "system", "user": "user", "human": "user"}
ROLES |= dict.fromkeys(("assistant", "gpt", "bot", "model", "chatgpt"), "assistant")


def turn_of(item: Any) -> tuple[str, str]:
    """(role, what is said) of a turn as files have it: {role, content}, ShareGPT's {from, value}, or [role, content].

    Errors: `ValueError`, `TypeError`, `KeyError` or `AttributeError` for anything else.
    """
    if isinstance(item, Mapping):
        role, said = (item["role"], item["content"]) if "role" in item else (item["from"], item["value"])
    else:
        role, said = item
    if not isinstance(said, str):
        raise TypeError(f"{type(said).__name__} is no text")
    return ROLES[role.lower()], said


# What has a label or a score.
_TEXTS = {
    "text": ("text", "sentence", "review", "content", "comment", "sentence1", "premise", "question1", "question"),
    "text_pair": ("text_pair", "sentence2", "hypothesis", "question2"),
}

KINDS = {
    "instruction": Kind(
        prompt=("instruction", "input"),
        answer="output",
        context=("history",),
        aliases={
            "instruction": ("instruction", "prompt", "question", "query", "human", "user"),
            "input": ("input", "context", "passage"),
            "output": ("output", "response", "answer", "std_answer", "completion", "target", "assistant", "reply"),
        },
    ),
    "classification": Kind(
        prompt=("text", "text_pair"),
        answer="label",
        aliases={**_TEXTS, "label": ("label", "labels", "sentiment", "class", "category", "target")},
    ),
    "regression": Kind(
        prompt=("text", "text_pair"),
        answer="score",
        aliases={**_TEXTS, "score": ("score", "similarity", "rating", "stars", "grade", "label", "target")},
    ),
}


def asked_of(rows: "pl.DataFrame", kind: str) -> list[dict[str, Any]]:
    """Rows as a caller would ask them: what the model is given, and nothing else."""
    return rows.select(name for name in KINDS[kind].given if name in rows.columns).to_dicts()
