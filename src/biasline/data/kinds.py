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
        context: what was said before: `history`, a JSON list of [role, content], empty for a single turn; an answer
            that is not to be learned is [role, content, 0].
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
        """The columns that every row must have a text in."""
        return (self.prompt[0], self.answer) if self.answered else self.prompt[:1]


# What a column of whole dialogues is taken for, and what it is called in `source.columns`.
DIALOGUE, MESSAGES = "dialogue", "messages"
# What was said before an instruction: rounds of [question, answer], or turns of {role, content}.
HISTORY = "history"
# What the system says before an instruction or a dialogue: the first turn of its history.
SYSTEM = "system"
# Columns with what the system says before an instruction or a dialogue.
SYSTEMS = ("system", "system_prompt", "system_message", "systemprompt", "system_instruction")
# A column of whole dialogues: lists of {role, content}, or of {from, value} as ShareGPT has them.
DIALOGUES = ("messages", "conversations", "conversation", "dialogue", "dialog")
ROLES = {"system": "system", "developer": "system", "user": "user", "human": "user"}
ROLES |= dict.fromkeys(("assistant", "gpt", "bot", "model", "chatgpt"), "assistant")


def turn_of(item: Any) -> tuple[str, str]:
    """Role and content of a turn as files have it.

    These are {role, content}, ShareGPT's {from, value}, or [role, content] with a weight or without.

    Raises:
        ValueError: for anything else; as may be TypeError, KeyError and AttributeError.
    """
    if isinstance(item, Mapping):
        role, said = (item["role"], item["content"]) if "role" in item else (item["from"], item["value"])
    else:
        role, said, *weight = item
        if len(weight) > 1 or not all(isinstance(one, int | float) for one in weight):
            raise ValueError(f"{list(item)[:4]} is no turn")
    if isinstance(said, list) and said and all(isinstance(part, Mapping) and part["type"] == "text" for part in said):
        said = "".join(part["text"] for part in said)  # in parts, as models of text and pictures have it
    if not isinstance(said, str):
        raise TypeError(f"{type(said).__name__} is no text")
    return ROLES[role.lower()], said


# What an assistant's turn says about being learned: a weight, or a truth value.
_WEIGHTS = ("weight", "train", "loss")
_ZERO = ("0", "0.0", "false", "no")


def is_supervised(item: Any) -> bool:
    """Whether an assistant's turn is to be learned: a turn says no by `weight: 0` or `train: false`.

    Args:
        item: a turn as files have it; as a list `[role, content, weight]`.
    """
    if isinstance(item, Mapping):
        if item.get("masked") is True:
            return False
        said = [item.get(name) for name in _WEIGHTS]
    else:
        said = list(item[2:3]) if isinstance(item, list | tuple) else []
    return not any(value is not None and str(value).strip().lower() in _ZERO for value in said)


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
