"""Answers of a model at hand to rows as a caller gives them."""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from biasline.bases.limits import limits_of
from biasline.bases.pin import Pin, load_tokenizer, wants_token_types
from biasline.bases.tokenizer import Tokenizer
from biasline.bitfit import Manifest
from biasline.bitfit.asked import AskedTenants
from biasline.bitfit.pretrained import PretrainedModel
from biasline.data.turns import turn_of
from biasline.errors import BiaslineError
from biasline.evaluation.generate import Drawing
from biasline.kinds.answering import find_answering
from biasline.kinds.learning import columns_of
from biasline.params import Evaluate, Task, changed
from biasline.tokens.mask import Encoder
from biasline.tokens.template import Template, Turn
from biasline.tokens.texts import TextEncoder
from biasline.tokens.words import WordEncoder, placed, words_of

_DRAWN = tuple(field.name for field in fields(Drawing))
_SHOWN = 60
# MLflow hands over a table by columns as one row of lists.
_BY_ROWS = "give one text per row; columns of texts go as dataframe_split"


@dataclass(frozen=True)
class Predictor:
    """A task's model with all that turns rows into its inputs.

    Attributes:
        task: template, lengths and generation settings.
        labels: label names in the order of the model's outputs; empty unless they are labels.
        score: `mean` and `std` that a score is in units of; empty unless it is one.
        model: in eval mode, with the task's biases.
        tokenizer: the base's.
        token_types: whether the base tells the two texts of a pair apart.
        positions: how many tokens the base can read and write in a row; None where it has no limit.
        about: what the delta tells of its origin, and what was chosen after training.
        tenants: of a fleet, whose deltas the model answers with.
    """

    task: Task
    labels: Sequence[str]
    score: Mapping[str, float]
    model: PretrainedModel
    tokenizer: Tokenizer
    token_types: bool
    positions: int | None = None
    about: Mapping[str, str] = field(default_factory=dict)
    tenants: AskedTenants | None = None

    @classmethod
    def of(
        cls,
        task: Task,
        told: Manifest,
        model: PretrainedModel,
        pin: Pin,
        folder: Path,
        tenants: AskedTenants | None = None,
    ) -> "Predictor":
        """With the tokenizer that lies in the base's folder, and what the delta tells about its outputs."""
        tokenizer, limits = load_tokenizer(pin, folder), limits_of(folder)
        types = wants_token_types(folder)
        return cls(task, told.labels, told.score, model, tokenizer, types, limits.positions, told.about, tenants)

    def __call__(self, records: Sequence[dict[str, Any]], params: dict[str, Any] | None = None) -> list[Any]:
        """One answer per row, in their order: a text, or a dict with what the task's kind answers by its names.

        Args:
            records: rows with the columns that the task's kind is given, one at least; all but the first may be
                missing, None or NaN. `history` is what was said before: a list of {role, content}, or that as JSON.
                Of a fleet each row names its tenant, in the column of `tenants.column`.
            params: of a model that writes texts, settings that take the place of the task's: `max_new_tokens` (up to
                `longest_answer`), `temperature`, `top_p`, `seed`.

        Raises:
            BiaslineError: naming the first row and column that is no text or no history, the tenant that is not known,
                or the setting that is out of its limits.
        """
        with self.asked(self.owners(records)):
            return find_answering(self.task.kind).answer(self, records, params or {})

    def asked(self, owners: Sequence[str]) -> AbstractContextManager[None]:
        """The block in which the model is asked rows of these tenants; of a task of one, any block.

        Raises:
            BiaslineError: for a tenant that is not known.
        """
        return nullcontext() if self.tenants is None else self.tenants.asked(owners)

    def owners(self, records: Sequence[Mapping[str, Any]]) -> list[str]:
        """The tenant of each row; none where the task is of one.

        Raises:
            BiaslineError: naming the first row that names none.
        """
        if self.tenants is None:
            return []
        column, names = self.task.tenants.column, []
        for number, record in enumerate(records, 1):
            given = record.get(column)
            if isinstance(given, bool):
                given = str(given).lower()
            elif isinstance(given, int | float) and math.isfinite(given):
                # A table makes 7.0 of 7 where a row has none.
                given = str(int(given)) if given == int(given) and str(given) not in self.tenants else str(given)
            if not isinstance(given, str) or not given.strip():
                raise BiaslineError(f"row {number}: `{column}` must name the tenant, not {_told(given)}")
            names.append(given.strip())  # as validation does
        return names

    def inputs(
        self, records: Sequence[dict[str, Any]], max_new_tokens: int | None = None
    ) -> list[dict[str, list[int]]]:
        """What the model is given for each row: `input_ids` and, where the base wants them, `token_type_ids`.

        Args:
            records: as for answers.
            max_new_tokens: longest answer that must have room behind a prompt; by default the task's.

        Raises:
            BiaslineError: as for answers.
        """
        if not len(records):
            raise BiaslineError("no rows", "ask one at least")
        return find_answering(self.task.kind).inputs(self, records, max_new_tokens)

    def prompt_texts(self, records: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
        """The texts of each row, one for each column of the prompt; empty where the row lacks it.

        Raises:
            BiaslineError: naming the first row and column that is no text.
        """
        return _columns(records, *columns_of(self.task.kind).prompt)

    def word_rows(self, records: Sequence[dict[str, Any]]) -> list[tuple[str, list[tuple[str, int, int]]]]:
        """The text of each row and its words, each with the place of its first character and the one behind its last.

        A row has its words as a list under the first column of the prompt, or a text, which is parted into words.

        Raises:
            BiaslineError: naming the first row that has neither.
        """
        first = columns_of(self.task.kind).prompt[0]
        rows = []
        for number, record in enumerate(records, 1):
            given = record.get(first)
            if isinstance(given, str):
                _check_characters(given, number, first)
                _check_filled(given, number, first)
                rows.append((given, words_of(given)))
            else:
                words = _words(given, number, first)
                rows.append((" ".join(words), placed(words)))
        return rows

    def said_before(self, records: Sequence[dict[str, Any]]) -> list[list[Turn]]:
        """The turns before each row's question; none where its `history` is missing, None, NaN or empty.

        Raises:
            BiaslineError: naming the first row with another history.
        """
        return [_history(number, record.get("history")) for number, record in enumerate(records, 1)]

    @cached_property
    def dialogue_encoder(self) -> Encoder:
        """What turns dialogues into tokens."""
        return Encoder.from_params(self.tokenizer, self.task.tokens)

    @cached_property
    def text_encoder(self) -> TextEncoder:
        """What turns texts, or pairs of them, into tokens."""
        return TextEncoder(self.tokenizer, self.task.tokens.max_length, self.token_types)

    @cached_property
    def word_encoder(self) -> WordEncoder:
        """What turns rows of words into tokens."""
        return WordEncoder(self.tokenizer, self.task.tokens.max_length, self.token_types)

    @property
    def template(self) -> Template:
        """What turns a dialogue into text."""
        return self.dialogue_encoder.template

    @property
    def stops(self) -> list[int]:
        """Tokens that end an answer."""
        return self.dialogue_encoder.stops()

    @property
    def batches(self) -> tuple[int, int]:
        """The token that rows of a batch are padded with, and how many rows it has."""
        return self.model.config.pad_token_id, self.task.evaluate.batch_size

    @property
    def longest_answer(self) -> int:
        """Most tokens that may be asked for: what a row of training could hold, and the task's own setting at least.

        Nothing longer was ever trained, and without a limit one request could keep a server busy for hours. Where the
        base has a number of positions, prompts of `tokens.max_length` keep theirs; the task's own setting takes what it
        needs of them.
        """
        most = self.task.tokens.max_length
        if self.positions is not None:
            most = min(most, self.positions - self.task.tokens.max_length)
        most = max(most, self.task.evaluate.max_new_tokens)
        return most if self.positions is None else min(most, self.positions - 1)

    def settings(self, params: Mapping[str, Any]) -> Evaluate:
        """How texts are written.

        Args:
            params: as for answers.

        Raises:
            BiaslineError: naming the setting that is unknown or out of its limits.
        """
        if unknown := sorted(params.keys() - _DRAWN):
            raise BiaslineError(f"params: {unknown[0]}: unknown; known are {', '.join(_DRAWN)}")
        settings = changed(self.task.evaluate, params, "params")
        if settings.max_new_tokens > (most := self.longest_answer):
            raise BiaslineError(f"params: max_new_tokens: {settings.max_new_tokens} is refused: at most {most}")
        return settings


def asked_rows(task: Task, rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows as a caller would ask them: what the model is given, and of a fleet whose they are.

    Raises:
        BiaslineError: where rows for a fleet name no tenants, as those of another data file.
    """
    asked = find_answering(task.kind).asked(rows)
    if not task.tenants.many:
        return asked
    column = task.tenants.column
    if column not in rows.columns:
        raise BiaslineError(f"the rows have no column {column!r}, by which a fleet knows its tenants")
    return [{**row, column: owner} for row, owner in zip(asked, rows[column], strict=True)]


def _columns(records: Sequence[dict[str, Any]], first: str, *further: str) -> list[tuple[str, ...]]:
    rows = []
    for number, record in enumerate(records, 1):
        row: dict[str, Any] = {first: record.get(first)}
        row |= {name: "" if _is_absent(record.get(name)) else record[name] for name in further}
        for name, given in row.items():
            if not isinstance(given, str):
                raise BiaslineError(
                    f"row {number}: `{name}` must be a text, not {_told(given)}", _BY_ROWS * isinstance(given, list)
                )
            _check_characters(given, number, name)
        _check_filled(row[first], number, first)
        rows.append(tuple(row.values()))
    return rows


def _words(given: Any, number: int, name: str) -> list[str]:
    if not isinstance(given, list | tuple | np.ndarray):
        raise BiaslineError(f"row {number}: `{name}` must be a text or a list of words, not {_told(given)}")
    words: list[str] = []
    for word in given:
        if not isinstance(word, str) or word.split() != [word]:
            told = f"a value of type {type(word).__name__}" if not isinstance(word, str) else f"{word[:_SHOWN]!r}"
            hint = _BY_ROWS * (isinstance(word, str) and bool(word.strip()))
            raise BiaslineError(f"row {number}: `{name}` must be a text or a list of words; {told} is no word", hint)
        _check_characters(word, number, name)
        words.append(word)
    if not words:
        raise BiaslineError(f"row {number}: `{name}` must be a text or a list of words, not an empty one")
    return words


def _history(number: int, given: Any) -> list[Turn]:
    if _is_absent(given) or given == "":
        return []
    try:
        turns = [Turn(*turn_of(item)) for item in (json.loads(given) if isinstance(given, str) else given)]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise BiaslineError(f"row {number}: `history` must be a list of {{role, content}}") from None
    for turn in turns:
        _check_characters(turn.content, number, "history")
    spoken = turns[1:] if turns and turns[0].role == "system" else turns
    if [turn.role for turn in spoken] != ["user", "assistant"] * (len(spoken) // 2):
        raise BiaslineError(f"row {number}: in `history` user and assistant must speak in turn, the assistant last")
    return turns


def _is_absent(given: Any) -> bool:
    """None, or the NaN that a table has where a row lacks a column."""
    return given is None or (isinstance(given, float) and math.isnan(given))


def _told(given: Any) -> str:
    return "missing" if _is_absent(given) else f"a value of type {type(given).__name__}"


def _check_filled(text: str, number: int, name: str) -> None:
    if not text.strip():
        raise BiaslineError(f"row {number}: `{name}` must be a text, not an empty one")


def _check_characters(text: str, number: int, name: str) -> None:
    """Half a surrogate pair, as a cut emoji in JSON leaves behind, is no character: tokenizers refuse it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BiaslineError(f"row {number}: `{name}` has half a surrogate pair at character {error.start}") from None
