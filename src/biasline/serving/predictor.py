"""Answers of a model at hand to rows as a caller gives them."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from biasline.bases.limits import limits_of
from biasline.bases.pin import Pin, load_tokenizer, wants_token_types
from biasline.bases.tokenizer import Tokenizer
from biasline.bitfit import Manifest
from biasline.bitfit.pretrained import PretrainedModel
from biasline.data.turns import turn_of
from biasline.errors import BiaslineError
from biasline.evaluation.classify import probabilities
from biasline.evaluation.generate import Drawing, generate
from biasline.evaluation.regress import scores
from biasline.kinds.learning import columns_of
from biasline.params import Evaluate, Task, changed
from biasline.tokens.checks import prompt_room
from biasline.tokens.mask import Encoder
from biasline.tokens.template import Template, Turn
from biasline.tokens.texts import TextEncoder

_DRAWN = tuple(field.name for field in fields(Drawing))


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
    """

    task: Task
    labels: Sequence[str]
    score: Mapping[str, float]
    model: PretrainedModel
    tokenizer: Tokenizer
    token_types: bool
    positions: int | None = None

    @classmethod
    def of(cls, task: Task, told: Manifest, model: PretrainedModel, pin: Pin, folder: Path) -> "Predictor":
        """With the tokenizer that lies in the base's folder, and what the delta tells about its outputs."""
        tokenizer, limits = load_tokenizer(pin, folder), limits_of(folder)
        return cls(task, told.labels, told.score, model, tokenizer, wants_token_types(folder), limits.positions)

    def __call__(self, records: Sequence[dict[str, Any]], params: dict[str, Any] | None = None) -> list[Any]:
        """One answer per row, in their order: a text, `{"label", "probability"}`, or `{"score"}`.

        Args:
            records: rows with the columns of the task's kind, one at least; all columns but the first may be missing,
                None or NaN. `history` is what was said before an instruction: a list of {role, content}, or that as
                JSON.
            params: generation settings that take the place of the task's: `max_new_tokens` (up to `longest_answer`),
                `temperature`, `top_p`, `seed`.

        Raises:
            BiaslineError: naming the first row and column that is no text or no history, or the setting that is out of
                its limits.
        """
        if self.task.kind != "instruction":
            return self._judge(self.inputs(records))
        drawing = Drawing.of(self._settings(params or {}))
        return self._answer([one["input_ids"] for one in self.inputs(records, drawing.max_new_tokens)], drawing)

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
        rows = _columns(records, *columns_of(self.task.kind).prompt)
        if self.task.kind != "instruction":
            return self._texts.texts([text for text, _ in rows], [pair for _, pair in rows])
        said = [_history(number, record.get("history")) for number, record in enumerate(records, 1)]
        dialogues = [[*before, Turn("user", *row)] for before, row in zip(said, rows, strict=True)]
        longest = max_new_tokens or self.task.evaluate.max_new_tokens
        room = prompt_room(self.task.tokens.max_length, longest, self.positions)
        return [{"input_ids": ids} for ids in self._dialogues.prompts(dialogues, room)]

    @property
    def template(self) -> Template:
        """What turns a dialogue into text."""
        return self._dialogues.template

    @property
    def stops(self) -> list[int]:
        """Tokens that end an answer."""
        return self._dialogues.stops()

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

    def _settings(self, params: Mapping[str, Any]) -> Evaluate:
        if unknown := sorted(params.keys() - _DRAWN):
            raise BiaslineError(f"params: {unknown[0]}: unknown; known are {', '.join(_DRAWN)}")
        settings = changed(self.task.evaluate, params, "params")
        if settings.max_new_tokens > (most := self.longest_answer):
            raise BiaslineError(f"params: max_new_tokens: {settings.max_new_tokens} is refused: at most {most}")
        return settings

    @cached_property
    def _dialogues(self) -> Encoder:
        return Encoder.from_params(self.tokenizer, self.task.tokens)

    @cached_property
    def _texts(self) -> TextEncoder:
        return TextEncoder(self.tokenizer, self.task.tokens.max_length, self.token_types)

    def _answer(self, ids: list[list[int]], drawing: Drawing) -> list[str]:
        answers = generate(self.model, self.tokenizer, ids, drawing, self.task.evaluate.batch_size, self.stops)
        return [answer.text for answer in answers]

    def _judge(self, inputs: Sequence[dict[str, list[int]]]) -> list[dict[str, Any]]:
        batches = self.model.config.pad_token_id, self.task.evaluate.batch_size
        if self.task.kind == "regression":
            return [{"score": float(score)} for score in scores(self.model, inputs, *batches, self.score)]
        found = probabilities(self.model, inputs, *batches)
        return [{"label": self.labels[row.argmax()], "probability": float(row.max())} for row in found]


def _columns(records: Sequence[dict[str, Any]], first: str, second: str) -> list[tuple[str, str]]:
    rows = []
    for number, record in enumerate(records, 1):
        text: Any = record.get(first)
        further: Any = "" if _is_absent(record.get(second)) else record[second]
        for name, given in ((first, text), (second, further)):
            if not isinstance(given, str):
                # MLflow hands over a table by columns as one row of lists.
                hint = (
                    "give one text per row; columns of texts go as dataframe_split" if isinstance(given, list) else ""
                )
                raise BiaslineError(f"row {number}: `{name}` must be a text, not {_told(given)}", hint)
            _check_characters(given, number, name)
        if not text.strip():
            raise BiaslineError(f"row {number}: `{first}` must be a text, not an empty one")
        rows.append((text, further))
    return rows


def _history(number: int, given: Any) -> list[Turn]:
    """The turns before a row's instruction; none where it is missing, None, NaN or empty."""
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


def _check_characters(text: str, number: int, name: str) -> None:
    """Half a surrogate pair, as a cut emoji in JSON leaves behind, is no character: tokenizers refuse it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BiaslineError(f"row {number}: `{name}` has half a surrogate pair at character {error.start}") from None
