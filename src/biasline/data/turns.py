"""Turns of dialogues: the names under which files have them, and which of them are learned."""

from collections.abc import Mapping
from typing import Any

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
