"""Dialogues as files have them: taken apart into the last question, its answer, and what was said before."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import polars as pl

from biasline.data.raw import NOT_TEXT_SUFFIX, Raw
from biasline.data.turns import DIALOGUE, DIALOGUES, HISTORY, ROLES, SYSTEM, is_supervised, turn_of

# What a dialogue's row is refused for, beside turns that are not in turn; also the names of rules.
TOOL_TURNS, NOT_LEARNED = "tool_turns", "not_learned"
_TOOL_ROLES = ("tool", "function", "function_call", "function_response", "tool_call", "observation", "ipython")
_TOOL_KEYS = ("tool_calls", "function_call", "tool_call_id")
_REASONING = ("reasoning_content", "reasoning", "thinking")
# What is counted, and what a note says about it.
_NOTES = {
    "reasoning": "turns with a reasoning (reasoning_content) beside their content, which is left out: {:,}",
    "fraction": "turns with a weight other than 0 and 1, which counts as 1: {:,}",
    "unlearned": "earlier answers of weight 0, which the model reads and is not trained on: {:,}",
    "dropped": "dialogues whose last answers have weight 0, which end before them: {:,}",
    "system": "rows with a system column and another system turn in their dialogue, which is kept: {:,}",
}

# Why a dialogue is no row, for the rules.
PROBLEM = "dialogue__problem"
# Columns beside a dialogue with what the model could call or see.
_UNSEEN: tuple[str, ...] = ("tools", "functions", "image", "images", "audio", "audios", "video", "videos", *_REASONING)
_UNSEEN += ("options", "choices", "documents", "document")
# A column that may say how much a row counts.
_ROW_WEIGHTS = ("weight", "sample_weight", "loss_weight")

# Where a text is a dialogue, as in Anthropic's helpful and harmless answers.
_HUMAN = re.compile(r"(?:^|\n\n)(Human|Assistant): ?")


class _Row(NamedTuple):
    """A dialogue as one row.

    Attributes:
        instruction, output: the last question and its answer; of a broken dialogue its raw text, and None.
        history: what was said before, as JSON; empty for nothing, None where the dialogue is broken.
        problem: `TOOL_TURNS` or `NOT_LEARNED`, where that is what is wrong.
    """

    instruction: str | None
    output: str | None
    history: str | None
    problem: str | None = None


class _Turn(NamedTuple):
    role: str
    content: str
    supervised: bool = True


class _ToolTurn(Exception):
    """A turn that calls a tool or comes from one."""


def with_history(raw: Raw, taken: Mapping[str, str], answered: bool) -> tuple[pl.DataFrame, list[str]]:
    """Records with what was said before; whole dialogues taken apart into our columns.

    Args:
        raw: the records.
        taken: our column → the file's: `DIALOGUE`, `HISTORY`, `SYSTEM` are looked at.
        answered: whether rows must have their answer.

    Returns:
        the records with `history`, its companion and `PROBLEM` (and `instruction`, `input`, `output`, where there are
        dialogues); and what should be said.
    """
    seen: Counter[str] = Counter()
    frame = raw.frame.with_columns(pl.lit(None, pl.String).alias(PROBLEM))
    if DIALOGUE in taken:
        rows = [_parted(text, answered, seen) for text in raw.text(taken[DIALOGUE])]
        schema = dict.fromkeys(("instruction", "output", HISTORY, PROBLEM), pl.String)
        ours = pl.DataFrame(rows, schema=schema, orient="row").get_columns()
        frame = frame.with_columns(*ours, pl.lit("").alias("input"))
    elif HISTORY in taken:
        said = [_said_before(text, seen) for text in raw.text(taken[HISTORY])]
        frame = frame.with_columns(pl.Series(HISTORY, said, dtype=pl.String))
    else:
        frame = frame.with_columns(pl.lit("").alias(HISTORY))
    not_text: pl.Expr | pl.Series = pl.lit(False)
    if SYSTEM in taken:
        systems = raw.text(taken[SYSTEM]).fill_null("")
        if (systems != "").any():
            pairs = zip(frame[HISTORY], systems, strict=True)
            said = [_with_system(history, system, seen) for history, system in pairs]
            frame = frame.with_columns(pl.Series(HISTORY, said, dtype=pl.String))
        not_text = raw.not_text(taken[SYSTEM])
    told = _notes(seen)
    for name in filter(None, map(raw.looked_up, _UNSEEN)):
        if name not in taken.values():
            count = int((~raw.text(name).fill_null("").str.strip_chars().is_in(["", "[]", "{}", "null"])).sum())
            told += [f"rows with {name!r}, which the model is not shown: {count:,}"] if count else []
    if (weight := raw.looked_up(*_ROW_WEIGHTS)) is not None and weight not in taken.values():
        told.append(f"column {weight!r} is metadata: each row counts the same; source.where leaves rows out")
    return frame.with_columns(not_text.alias(HISTORY + NOT_TEXT_SUFFIX)), told


def with_joined_prompts(raw: Raw, answered: bool) -> tuple[Raw, str | None]:
    """Prompts that are turns, with their answers' turns behind them, as TRL has it (`prompt`, `completion`).

    Args:
        raw: the records.
        answered: whether rows must have their answer.

    Returns:
        the records with whole dialogues in the prompt's column, and its name; None where prompts are no turns.
    """
    asked, answer = raw.looked_up("prompt"), raw.looked_up("completion", "response", "answer", "output")
    if asked is None or raw.looked_up(*DIALOGUES) or (answered and answer is None):
        return raw, None
    texts = raw.text(asked)
    if not (raw.nested(asked) & texts.str.contains(r"^\[\s*\{\s*\"(?:role|from|content|value)\"")).any():
        return raw, None
    if answered and answer is not None:
        joined = [joined_turns(*pair) for pair in zip(texts.to_list(), raw.text(answer).to_list(), strict=True)]
        raw = raw.replaced(asked, joined, True)
    return raw.without([answer] if answer else []), asked


def joined_turns(asked: str | None, answer: str | None) -> str | None:
    """A dialogue out of a prompt and its answer.

    Args:
        asked: the prompt: a text, or turns as JSON; left out where the answer holds the whole dialogue.
        answer: a text, turns or one turn as JSON, or a text "Human: … Assistant: …".

    Returns:
        the turns as JSON; the answer as it is where it holds none.
    """
    turns = _turns(answer) or ([{"role": "assistant", "content": answer}] if asked and answer else [])
    if not turns:
        return answer
    first = turns[0]
    role = str(first.get("role", first.get("from"))).lower() if isinstance(first, Mapping) else ""
    if asked and ROLES.get(role) == "assistant":
        turns = [*(_turns(asked) or [{"role": "user", "content": asked}]), *turns]
    return json.dumps(turns, ensure_ascii=False)


def _turns(text: str | None) -> list[Any]:
    """Turns of a list, of one turn alone, or of a text "Human: … Assistant: …"."""
    if text is None:
        return []
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        roles = {"Human": "user", "Assistant": "assistant"}
        found = _HUMAN.split(text.strip())[1:]
        return [
            {"role": roles[role], "content": said.strip()} for role, said in zip(found[::2], found[1::2], strict=True)
        ]
    return value if isinstance(value, list) else [value] if isinstance(value, Mapping) else []


def _parted(text: str | None, answered: bool, seen: Counter[str]) -> _Row:
    """A dialogue (the JSON of a list of turns) as one row.

    Args:
        text: the JSON; None where the record has none.
        answered: whether it must have its answer; otherwise a dialogue that ends with the user is one to be answered.
        seen: counts what `_notes` tells.
    """
    try:
        turns = [_read(item, seen) for item in json.loads(text or "")]
    except _ToolTurn:
        return _Row(text, None, None, TOOL_TURNS)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return _Row(text, None, None)
    if not answered and turns and turns[-1].role == "user":  # it is to be answered now
        turns.append(_Turn("assistant", ""))
    while turns and turns[-1].role != "assistant":  # a question without an answer teaches nothing
        turns.pop()
    if not _in_turn([turn.role for turn in turns]) or len(turns) < 2:
        return _Row(text, None, None)
    if answered and not turns[-1].supervised:
        learned = [place for place, turn in enumerate(turns) if turn.role == "assistant" and turn.supervised]
        if not learned:
            return _Row(text, None, None, NOT_LEARNED)
        turns = turns[: learned[-1] + 1]
        seen["dropped"] += 1
    *before, question, answer = turns
    return _Row(question.content, answer.content, _dumped(before, seen))


def _said_before(text: str | None, seen: Counter[str]) -> str | None:
    """A column `history` as we keep it: rounds of [question, answer], or turns; None where it is no dialogue."""
    if not text:
        return ""
    try:
        items = json.loads(text)
        pairs = all(isinstance(item, list) and len(item) == 2 for item in items)
        rounds = pairs and not all(str(item[0]).lower() in ROLES for item in items)
        turns = (
            [_Turn(*turn) for asked, said in items for turn in (("user", asked), ("assistant", said))]
            if rounds
            else [_read(item, seen) for item in items]
        )
    except (_ToolTurn, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if not _in_turn([turn.role for turn in turns]) or not all(isinstance(turn.content, str) for turn in turns):
        return None
    return _dumped(turns, seen)


def _with_system(history: str | None, system: str, seen: Counter[str]) -> str | None:
    """A history that begins with what the system says, unless it has a system turn of its own."""
    if history is None or not system.strip():
        return history
    turns = json.loads(history) if history else []
    if turns and turns[0][0] == "system":
        seen["system"] += turns[0][1] != system
        return history
    return json.dumps([["system", system], *turns], ensure_ascii=False)


def _in_turn(roles: Sequence[str]) -> bool:
    """Whether user and assistant speak in turn, the assistant last, but for a system turn in front."""
    spoken = roles[1:] if roles and roles[0] == "system" else roles
    return list(spoken) == ["user", "assistant"] * (len(spoken) // 2)


def _notes(seen: Counter[str]) -> list[str]:
    """What was counted, as sentences."""
    return [told.format(seen[name]) for name, told in _NOTES.items() if seen[name]]


def _read(item: Any, seen: Counter[str]) -> _Turn:
    if isinstance(item, Mapping):
        role = item.get("role", item.get("from"))
        if (isinstance(role, str) and role.lower() in _TOOL_ROLES) or any(item.get(key) for key in _TOOL_KEYS):
            raise _ToolTurn
        seen["reasoning"] += any(item.get(key) for key in _REASONING)
        weight = item.get("weight")
        seen["fraction"] += isinstance(weight, float | int) and weight not in (0, 1)
    role, content = turn_of(item)
    return _Turn(role, content, is_supervised(item) or role != "assistant")


def _dumped(turns: Sequence[_Turn], seen: Counter[str]) -> str:
    if not turns:
        return ""
    seen["unlearned"] += sum(not turn.supervised for turn in turns)
    kept = [[turn.role, turn.content] if turn.supervised else [turn.role, turn.content, 0] for turn in turns]
    return json.dumps(kept, ensure_ascii=False)
