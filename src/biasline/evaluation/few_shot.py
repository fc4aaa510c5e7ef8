"""An untuned base that is shown training rows before each question: what one would do instead of training.

Brown et al. (2020), "Language Models are Few-Shot Learners". The rows are shown as training would show them, template,
answer and end of sequence, one after the other.
"""

import random
from collections.abc import Mapping, Sequence
from typing import Any

from biasline.bases.limits import Limits
from biasline.errors import BiaslineError


class Examples:
    """Training rows that stand before each question.

    Args:
        rows: `input_ids` of the training rows; those that are shown are drawn from the shorter half of them.
        count: how many are shown; all there are, if fewer.
        seed: of drawing them.
        begin: tokens that begin every sequence, which stand in front once.
    """

    def __init__(self, rows: Sequence[Sequence[int]], count: int, seed: int, begin: Sequence[int]) -> None:
        short = sorted(range(len(rows)), key=lambda place: (len(rows[place]), place))[: max(count, -(-len(rows) // 2))]
        drawn = random.Random(seed).sample(sorted(short), min(count, len(short)))
        self._begin = list(begin)
        self.count = len(drawn)
        self.ids = self._begin + [token for place in drawn for token in self._without_begin(rows[place])]

    def _without_begin(self, ids: Sequence[int]) -> list[int]:
        found = list(ids)
        return found[len(self._begin) :] if found[: len(self._begin)] == self._begin else found

    def prompts(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Prompts, each behind the examples."""
        return [self.ids + self._without_begin(ids) for ids in prompts]

    def columns(self, columns: Mapping[str, list[Any]], ignored: int) -> dict[str, list[Any]]:
        """A token set's columns with its rows behind the examples, of which nothing is supervised."""
        inputs, labels = columns["input_ids"], columns["labels"]
        cut = [len(row) - len(self._without_begin(row)) for row in inputs]
        return {
            "row": columns["row"],
            "input_ids": self.prompts(inputs),
            "labels": [[ignored] * len(self.ids) + list(row[size:]) for row, size in zip(labels, cut, strict=True)],
        }

    def check(self, limits: Limits, longest: int, room: int) -> None:
        """Whether they leave room.

        Args:
            limits: of the base.
            longest: tokens of the longest prompt or row without them.
            room: tokens that an answer may have.

        Raises:
            BiaslineError: where the base has too few positions.
        """
        wanted = len(self.ids) + longest + room
        if limits.positions is not None and wanted > limits.positions:
            raise BiaslineError(
                f"evaluate.examples: {self.count} training rows before a question take {wanted} tokens in all, the "
                f"base has {limits.positions} positions",
                "show fewer",
            )
