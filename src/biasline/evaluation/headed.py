"""A base with a head of its own on the test rows: what a head alone can do on it frozen, and what was trained."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from biasline.bases.load import best_device, placed
from biasline.bases.pin import Pin
from biasline.bitfit.pretrained import PretrainedModel
from biasline.data.clean import read_split
from biasline.evaluation.compared import bias_change
from biasline.evaluation.heads import PROBED
from biasline.evaluation.scoring import PASSES, TIMED, latency_ms
from biasline.evaluation.tuned import Tuned, owners_in, tuned_model
from biasline.kinds.protocols import Learning
from biasline.layout import TaskPlace
from biasline.params import Task
from biasline.progress import Progress, progress
from biasline.tokens.saved import read_token_set


@dataclass(frozen=True)
class Asked:
    """What was given to the test rows, in their order.

    Attributes:
        probe: by a head alone on the frozen base.
        tuned: by the tuned model.
        timed: milliseconds that each model takes for one row.
    """

    probe: Any
    tuned: Any
    timed: dict[str, float]


@dataclass(frozen=True)
class Headed:
    """A base with a new head, before what was trained is in it, and what it is asked.

    Attributes:
        tuned: puts in what was trained, and gives the model to ask.
        taught: training rows for a probe, evenly spread, since files are often sorted by label.
        rows: the test rows in tokens.
        batches: the token to pad with, and rows per batch.
        change: how far training moved the biases, see `bias_change`.
        owners: the tenant of each test row; none where the task is of one.
    """

    model: PretrainedModel
    tuned: Callable[[], Tuned]
    taught: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    batches: tuple[int, int]
    change: pl.DataFrame
    owners: Sequence[str] = ()

    def asked(self, probed: Callable[..., Any], given: Callable[..., Any]) -> Asked:
        """Ask the base, which is the tuned model from then on.

        Args:
            probed: (model, training rows, test rows, pad, batch size, advance=…) → what a head alone gives; told of
                training rows and test rows.
            given: (model, test rows, pad, batch size, advance=…) → what a model gives; told of the test rows.
        """
        with progress("evaluate", self._work) as shown:
            note = "head alone on the frozen base"
            probe = probed(self.model, self.taught, self.rows, *self.batches, advance=shown.part(note=note))
            timed = {"base": self._latency(self.model, shown)}
            served = self.tuned()
            with served.asked(self.owners):
                tuned = given(served.model, self.rows, *self.batches, advance=shown.part(note="tuned model"))
                timed["tuned"] = self._latency(served.model, shown)
        return Asked(probe, tuned, timed)

    @property
    def _work(self) -> int:
        """Rows that go through a model: those of the probe, and the test rows for it, for the head, for the clock."""
        return len(self.taught) + 2 * len(self.rows) + 2 * PASSES * min(len(self.rows), TIMED)

    def _latency(self, model: PretrainedModel, shown: Progress) -> float:
        """Milliseconds that a model takes for one row."""
        return latency_ms(model, self.rows, self.batches[0], shown.part(note="latency"))


def load_headed(
    learning: Learning, task: Task, place: TaskPlace, pin: Pin, folder: Path, labels: Sequence[str]
) -> Headed:
    """The base of a kind with a head, ready to be asked.

    Args:
        learning: the kind's.
        task: its parameters.
        place: where its tokens and its model lie.
        pin: of the base.
        folder: the base's files, verified.
        labels: names in the order of the head's outputs; none where it gives no labels.
    """
    model, _ = learning.load(pin, folder, task.load, task.train, labels)
    placed(model, best_device())
    train = read_token_set(place, "train")
    spread = np.unique(np.linspace(0, len(train) - 1, PROBED).astype(int))
    rows, pad = read_token_set(place, "test").to_list(), model.config.pad_token_id
    return Headed(
        model,
        lambda: tuned_model(task, place, model),
        train.select(spread).to_list(),
        rows,
        (pad, task.evaluate.batch_size),
        bias_change(task, place, model),
        owners_in(task, read_split(place, "test")) if task.tenants.many else (),
    )
