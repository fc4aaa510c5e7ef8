"""Preference data: answers of which some are better than others. Trained as if all were good, a model learns the bad.

Four shapes are known: pairs (`chosen` and `rejected`), a truth value beside each answer (as KTO has it), several
answers a row, best first or with scores, and numbers beside answers, which are only noted: they may be anything.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from biasline.data.answers import chosen_answers
from biasline.data.dialogues import joined_turns
from biasline.data.raw import Raw, mean_of
from biasline.data.turns import DIALOGUES, MESSAGES, SYSTEM
from biasline.errors import BiaslineError
from biasline.kinds.columns import Columns
from biasline.params import Source

# Names of what was preferred and what was not.
_CHOSEN = ("chosen", "chosen_response", "response_chosen", "preferred", "winner_response")
_REJECTED = ("rejected", "rejected_response", "response_rejected", "dispreferred", "loser_response")
# Columns whose truth values say whether an answer is a good one.
_VERDICTS: tuple[str, ...] = ("label", "labels", "kto_tag", "desirable", "is_desirable", "is_chosen", "preferred")
_VERDICTS += ("accepted", "rating", "is_correct", "correct", "score", "reward", "feedback", "thumbs_up", "is_good")
_VERDICTS += ("good", "chosen")
# Where answers come again so often, a truth value that follows from them is the class that they stand for.
_REPEATED = 5
_YES = ("true", "1", "1.0", "yes", "good", "chosen", "desirable", "accepted", "preferred", "up", "thumbs_up", "like")
_NO: tuple[str, ...] = ("false", "0", "0.0", "-1", "-1.0", "no", "bad", "rejected", "undesirable")
_NO += ("dispreferred", "down", "thumbs_down", "dislike")
# Columns of numbers beside answers that may be judgements of them.
_SCORES = ("rating", "score", "reward", "stars", "quality", "overall_score", "preference")
# Columns of numbers for each of several answers: the higher the better, or the lower.
_BEST_HIGH, _BEST_LOW = ("scores", "ratings", "rewards", *_SCORES), ("ranks", "ranking", "rank")
_WAY_OUT = "source.prefer: chosen trains on what was preferred and leaves the rest out"


def of_pairs(data: str, raw: Raw, kind: Columns, source: Source) -> tuple[Raw, Source, int]:
    """Pairs of better and worse answers as what was chosen, where `source.prefer` asks for it.

    Args:
        data: what errors call the file.
        raw: the records.
        kind: the task's.
        source: its names of columns, and what it prefers.

    Returns:
        the records, `source` with the columns that they have now, and how many answers were left out.

    Raises:
        BiaslineError: where there are pairs, and `source` does not say what to do with them.
    """
    if not kind.context:
        for name in ("prefer", "answers"):
            if value := getattr(source, name):
                raise BiaslineError(f"source.{name}: {value}: only an instruction has answers", "take it out")
        return raw, source, 0
    pairs = _pairs_of(raw)
    if pairs is None or {kind.answer, MESSAGES} & source.columns.keys():  # named: then it was decided
        return raw, source, 0
    if source.prefer != "chosen":
        chosen, rejected = pairs
        raise BiaslineError(
            f"{data}: preference data: {chosen!r} and {rejected!r} are better and worse answers to the same prompt",
            f"{_WAY_OUT}; training on one against the other (DPO) is not what this does",
        )
    prompt = source.columns.get(kind.prompt[0])
    if prompt and prompt not in raw.names:  # nor is it a path that some record has
        raise BiaslineError(
            f"{data}: no column {prompt!r} (source.columns.{kind.prompt[0]}); it has: {', '.join(raw.names)}",
            "mend source.columns in params.yaml",
        )
    raw, what = _chosen_of(raw, *pairs, prompt)
    if what == "answer":
        columns = source.columns | {kind.answer: pairs[0]}
    else:
        columns = {MESSAGES: pairs[0]} | {name: source.columns[name] for name in (SYSTEM,) if name in source.columns}
    return raw, source.model_copy(update={"columns": columns}), len(raw)


def verdict_columns(raw: Raw) -> list[str]:
    """Columns whose truth values may judge answers, by their names and values; looked for before rows are left out.

    A word beside yes and no ("neutral") makes no other kind of column of it; numbers beside 0 and 1 do.
    """
    found = []
    for name in filter(None, map(raw.looked_up, _VERDICTS)):
        good, bad, values = _truth(raw, name)
        unknown = values.filter(~(good | bad | (values == "")))
        words = unknown.cast(pl.Float64, strict=False).is_null().all() and 2 * len(unknown) < len(values)
        if (unknown.is_empty() or (good.any() and bad.any() and words)) and name not in found:
            found.append(name)
    return found


def judged(
    data: str, raw: Raw, verdicts: Sequence[str], taken: Mapping[str, str], source: Source, preferred: bool
) -> tuple[Raw, int, list[str]]:
    """Records whose answers are good as far as the file says, one answer each.

    Args:
        data: what errors call the file.
        raw: the records.
        verdicts: see `verdict_columns`.
        taken: our column → the file's.
        source: what the task prefers, and which of several answers it takes.
        preferred: whether pairs were found.

    Returns:
        the records, how many were left out, and what should be said.

    Raises:
        BiaslineError: where some answers are bad, and `source` does not say what to do with them; or where it prefers
            something and nothing tells what.
    """
    answer, left_out = taken.get("output"), 0
    notes: list[str] = []
    verdict = None if source.prefer == "all" else _verdict_of(raw, verdicts, set(taken.values()), answer)
    if verdict is not None:
        name, good, bad = verdict
        if source.prefer != "chosen":
            raise BiaslineError(
                f"{data}: preference data: column {name!r} says of {int(bad.sum()):,} of {len(bad):,} answers that "
                "they are bad",
                f"{_WAY_OUT}; another choice by source.where; source.prefer: all if it says nothing about the answers",
            )
        left_out = int((~good).sum())
        raw, preferred = raw.kept(good), True
    listed = answer is not None and bool(raw.nested(answer).any())
    if answer is not None and (source.answers or (listed and source.prefer == "chosen")):
        which = source.answers or "first"
        best = _best_of(raw, answer) if source.prefer == "chosen" and which == "first" else None
        raw, notes = chosen_answers(raw, answer, which, best)
        preferred |= listed
    if source.prefer == "chosen" and not preferred:
        raise BiaslineError(
            f"{data}: source.prefer: chosen: nothing says which answers are better; it has: {', '.join(raw.names)}",
            "known are chosen and rejected, a truth value (label) that calls some bad, and lists of ranked answers; "
            "anything else is chosen by source.where",
        )
    if source.prefer != "all" and not source.where and verdict is None:
        notes += _scores_note(raw, set(taken.values()))
    return raw, left_out, notes


def _pairs_of(raw: Raw) -> tuple[str, str] | None:
    """The columns of what was chosen and what was rejected, where a file has both."""
    chosen, rejected = raw.looked_up(*_CHOSEN), raw.looked_up(*_REJECTED)
    return (chosen, rejected) if chosen and rejected else None


def _chosen_of(raw: Raw, chosen: str, rejected: str, prompt: str | None = None) -> tuple[Raw, str]:
    """Pairs as what was chosen alone.

    Args:
        raw: the records.
        chosen: the column of what was preferred.
        rejected: the column of what was not.
        prompt: the column of prompts, where its name is none of the usual ones.

    Returns:
        the records without `rejected`, and what `chosen` holds now: `dialogue` (turns, those of the prompt in front) or
        `answer` (a text, to a prompt in a column of its own).
    """
    raw = raw.without([rejected])
    texts, nested = raw.text(chosen), raw.nested(chosen)
    if not nested.any() and mean_of(texts.str.contains(r"^\s*Human:")) < 0.5:
        return raw, "answer"
    asked = prompt or raw.looked_up(*DIALOGUES, "prompt", "question", "instruction")
    before = raw.text(asked).to_list() if asked else [None] * len(raw)
    joined = [joined_turns(question, answer) for question, answer in zip(before, texts.to_list(), strict=True)]
    return raw.without([asked] if asked else []).replaced(chosen, joined, True), "dialogue"


def _verdict_of(
    raw: Raw, verdicts: Sequence[str], taken: set[str], answer: str | None
) -> tuple[str, pl.Series, pl.Series] | None:
    """The first column of truth values that calls some answers bad: its name, and which are good and which bad."""
    for name in verdicts:
        if name in taken:
            continue
        good, bad, values = _truth(raw, name)
        if bad.any() and not _is_class(values, raw, answer):
            return name, good, bad
    return None


def _truth(raw: Raw, name: str) -> tuple[pl.Series, pl.Series, pl.Series]:
    """Which values of a column say yes, which no, and the values."""
    values = raw.text(name).fill_null("").str.strip_chars().str.to_lowercase()
    return values.is_in(_YES), values.is_in(_NO), values


def _is_class(values: pl.Series, raw: Raw, answer: str | None) -> bool:
    """Whether a truth value only says which class an answer stands for: 1 beside each "positive"."""
    if answer is None or raw.text(answer).n_unique() * _REPEATED > len(raw):
        return False
    pairs = pl.DataFrame({"value": values, "answer": raw.text(answer)}).unique()
    return pairs.height == pairs["answer"].n_unique()


def _scores_note(raw: Raw, taken: set[str]) -> list[str]:
    """A note for a column of numbers beside the answers that may judge them."""
    found = raw.looked_up(*_SCORES)
    if found is None or found in taken:
        return []
    texts = raw.text(found).drop_nulls()
    numbers = texts.filter(texts.str.strip_chars() != "").str.strip_chars().cast(pl.Float64, strict=False)
    if not len(numbers) or numbers.null_count() or numbers.min() == numbers.max():
        return []
    least, most = numbers.to_numpy().min(), numbers.to_numpy().max()
    return [
        f"a column {found!r} of numbers ({least:g} to {most:g}) stands beside the answers: if it "
        f'judges them, keep the good ones by source.where, as "{found} >= …"'
    ]


def _best_of(raw: Raw, answers: str) -> list[int] | None:
    """The place of the best answer of each row, by a column of scores or ranks for each; None where there is none."""
    for names, sign in ((_BEST_HIGH, 1), (_BEST_LOW, -1)):
        found = raw.looked_up(*names)
        if found is None or not raw.nested(found).any():
            continue
        places = []
        for text, given in zip(raw.text(found).to_list(), raw.text(answers).to_list(), strict=True):
            scores, several = _list(text), _list(given)
            fits = len(scores) == len(several) and scores and all(isinstance(score, int | float) for score in scores)
            places.append(max(range(len(scores)), key=lambda place: sign * scores[place]) if fits else 0)
        return places
    return None


def _list(text: str | None) -> list[Any]:
    try:
        value = json.loads(text or "")
    except (ValueError, RecursionError):
        return []
    return value if isinstance(value, list) else []
