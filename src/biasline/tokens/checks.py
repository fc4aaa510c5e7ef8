"""What is known of token sets before a training begins: whether the base can read them, and what was lost."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from biasline.bases.limits import Limits
from biasline.bases.tokenizer import Tokenizer
from biasline.errors import BiaslineError
from biasline.kinds.learning import find_learning
from biasline.params import Task
from biasline.tokens.mask import Encoder

# Shares of a split from which a loss is worth a warning.
_MUCH_LEFT_OUT, _MUCH_CUT, _MUCH_UNKNOWN = 0.05, 0.05, 0.01


def prompt_room(max_length: int, max_new_tokens: int, positions: int | None) -> int:
    """The most tokens that a prompt may have, so that its answer has room in the base's positions.

    Args:
        max_length: `tokens.max_length`.
        max_new_tokens: longest answer that is generated.
        positions: of the base; None where it has no limit.
    """
    room = max_length - 2
    return room if positions is None else min(room, positions - max_new_tokens)


def check_base_limits(task: Task, limits: Limits, base: str) -> None:
    """Whether sequences of `tokens.max_length`, and prompts with their answers, lie in the base's positions.

    Raises:
        BiaslineError: naming the parameter that asks for more.
    """
    positions, longest = limits.positions, task.tokens.max_length
    if positions is None:
        return
    if longest > positions:
        raise BiaslineError(
            f"tokens.max_length: {longest} is more than the {positions} positions of base {base}",
            f"set it to {positions} at most",
        )
    answer = task.evaluate.max_new_tokens
    if not find_learning(task.kind).headed and answer >= positions:
        raise BiaslineError(
            f"evaluate.max_new_tokens: {answer} leaves no room for a prompt in base {base}'s {positions} positions",
            "lower it",
        )


def check_token_ids(name: str, ids: np.ndarray, limits: Limits, tokenizer: Tokenizer, base: str) -> None:
    """Whether the base has an embedding for every token of a split.

    Raises:
        BiaslineError: naming the first token that it lacks.
    """
    if limits.vocabulary is None or not len(ids) or (highest := int(ids.max())) < limits.vocabulary:
        return
    token = tokenizer.convert_ids_to_tokens(highest)
    raise BiaslineError(
        f"the {name} split has the token {token!r} with id {highest}, base {base} has embeddings for "
        f"{limits.vocabulary} tokens",
        "take a base whose embeddings were resized for its tokenizer, or a template that does not write the token",
    )


def unknown_tokens(tokenizer: Tokenizer, ids: np.ndarray) -> int:
    """How many tokens stand for text that the vocabulary lacks."""
    unknown = tokenizer.unk_token_id
    # GPT-2's unknown token is its end of text, and never stands for a text.
    if unknown is None or unknown in (tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id):
        return 0
    return int((ids == unknown).sum())


def template_notes(encoder: Encoder) -> Iterator[str]:
    """What the user of a template should know."""
    if encoder.template.reads_clock:
        day = encoder.template.day.isoformat()
        yield f"the template writes today's date: it is given {day} always (tokens.date)"
    given, trained = encoder.template.generation_prompt()
    if given != trained:
        yield (
            f"to be answered the template writes {_end(given, trained)!r}, before the answers of its dialogues "
            f"{_end(trained, given)!r}: prompts are written as in training"
        )


def loss_warnings(task: Task, splits: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What a large part of the rows lost.

    Args:
        task: its parameters.
        splits: split → its counts, as summary.json has them.
    """

    def total(name: str) -> int:
        return sum(len(found) if isinstance(found := counts[name], list) else found for counts in splits.values())

    rows = total("rows") + total("rejected_rows")
    length = task.tokens.max_length
    if total("rejected_rows") > _MUCH_LEFT_OUT * rows:
        yield (
            f"{total('rejected_rows') / rows:.0%} of the rows have no place for their response in {length} tokens and "
            "are left out → raise tokens.max_length, or set tokens.long_response: truncate"
        )
    if total("cut_rows") > _MUCH_CUT * rows:
        lost = "their end" if find_learning(task.kind).headed else "a part of their question"
        share = total("cut_rows") / rows
        yield f"{share:.0%} of the rows are over {length} tokens and lose {lost} → raise tokens.max_length"
    if total("unknown_tokens") > _MUCH_UNKNOWN * total("tokens"):
        share = total("unknown_tokens") / total("tokens")
        yield (
            f"{share:.0%} of the tokens stand for text that the base's vocabulary lacks → take a base of the data's "
            "language"
        )


def _end(words: str, other: str) -> str:
    """What stands behind the beginning that both have, with some of that."""
    same = next((place for place, (one, two) in enumerate(zip(words, other, strict=False)) if one != two), None)
    start = min(len(words), len(other)) if same is None else same
    return words[max(0, start - _CONTEXT) :]


# Characters of what is the same that are told before a difference.
_CONTEXT = 24
