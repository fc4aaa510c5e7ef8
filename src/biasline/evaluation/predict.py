"""Answers of a model at hand to rows as a caller gives them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from biasline.bases.pin import Pin, load_tokenizer, wants_token_types
from biasline.bitfit import Manifest
from biasline.data.kinds import KINDS, turn_of
from biasline.evaluation.classify import probabilities
from biasline.evaluation.generate import Drawing, generate
from biasline.evaluation.regress import scores
from biasline.params import Task
from biasline.tokens.mask import Encoder
from biasline.tokens.template import Turn
from biasline.tokens.texts import TextEncoder


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
    """

    task: Task
    labels: Sequence[str]
    score: Mapping[str, float]
    model: Any
    tokenizer: Any
    token_types: bool

    @classmethod
    def of(cls, task: Task, told: Manifest, model: Any, pin: Pin, folder: Path) -> "Predictor":
        """With the tokenizer that lies in the base's folder, and what the delta tells about its outputs."""
        return cls(task, told.labels, told.score, model, load_tokenizer(pin, folder), wants_token_types(folder))

    def __call__(self, records: Sequence[dict[str, Any]], params: dict[str, Any] | None = None) -> list[Any]:
        """One answer per row, in their order: a text, `{"label", "probability"}`, or `{"score"}`.

        Args:
            records: rows with the columns of the task's kind; all but the first may be missing, None or NaN. `history`
                is what was said before an instruction: a list of {role, content}, or that as JSON.
            params: generation settings that take the place of the task's: `max_new_tokens`, `temperature`, `top_p`,
                `seed`.

        Errors: `ValueError` naming the first row without a text, or with a history that is none.
        """
        rows = _columns(records, *KINDS[self.task.kind].prompt)
        if self.task.kind != "instruction":
            return self._judge(rows)
        said = [_history(number, record.get("history")) for number, record in enumerate(records, 1)]
        dialogues = [[*before, Turn("user", *row)] for before, row in zip(said, rows, strict=True)]
        return self._answer(dialogues, params or {})

    @cached_property
    def _dialogues(self) -> Encoder:
        return Encoder(self.tokenizer, self.task.tokens.template, self.task.tokens.max_length)

    @cached_property
    def _texts(self) -> TextEncoder:
        return TextEncoder(self.tokenizer, self.task.tokens.max_length, self.token_types)

    def _answer(self, dialogues: Sequence[Sequence[Turn]], params: dict[str, Any]) -> list[str]:
        ids = self._dialogues.prompts(dialogues)
        settings = self.task.evaluate
        drawing = replace(Drawing.of(settings), **params)
        answers = generate(self.model, self.tokenizer, ids, drawing, settings.batch_size, self._dialogues.stops())
        return [answer.text for answer in answers]

    def _judge(self, rows: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        inputs = self._texts.texts([text for text, _ in rows], [pair for _, pair in rows])
        batches = self.model.config.pad_token_id, self.task.evaluate.batch_size
        if self.task.kind == "regression":
            return [{"score": float(score)} for score in scores(self.model, inputs, *batches, self.score)]
        found = probabilities(self.model, inputs, *batches)
        return [{"label": self.labels[row.argmax()], "probability": float(row.max())} for row in found]


def _columns(records: Sequence[dict[str, Any]], first: str, second: str) -> list[tuple[str, str]]:
    rows = []
    for number, record in enumerate(records, 1):
        text, further = record.get(first), record.get(second)
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"row {number}: `{first}` must be a text")
        rows.append((text, further if isinstance(further, str) else ""))
    return rows


def _history(number: int, given: Any) -> list[Turn]:
    """The turns before a row's instruction; none where it is missing, None or NaN."""
    if given is None or given == "" or isinstance(given, float):
        return []
    try:
        turns = [Turn(*turn_of(item)) for item in (json.loads(given) if isinstance(given, str) else given)]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"row {number}: `history` must be a list of {{role, content}}") from None
    spoken = turns[1:] if turns and turns[0].role == "system" else turns
    if [turn.role for turn in spoken] != ["user", "assistant"] * (len(spoken) // 2):
        raise ValueError(f"row {number}: in `history` user and assistant must speak in turn, the assistant last")
    return turns
