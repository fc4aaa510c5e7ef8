"""One base and one task's rows, from which training after training begins alike."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from biasline.bitfit import BiasDelta, BiasTuning
from biasline.errors import BiaslineError
from biasline.layout import TaskPlace, home
from biasline.params import ResolvedTrain, Run, Task, Train, read_task, resolved
from biasline.tokens.saved import IGNORED
from biasline.training.batches import Rows, passes
from biasline.training.feed import Feed
from biasline.training.loop import fit
from biasline.training.loss import Batch
from biasline.training.methods import prepare_model
from biasline.training.prepare import prepare
from biasline.training.rates import resolve_learning_rates
from biasline.training.runtime.launch import joined
from biasline.training.train import Loaded, head_values, load_training, memory_told, plan_of

# Told of a look at the validation rows: steps done, and what was found. Says whether training goes on.
GoesOn = Callable[[int, "Judged"], bool]
# What rows in tokens depend on.
_OF_TOKENS = ("kind", "base", "data", "source", "quality", "split", "augment", "tokens")
# Among models that are right equally often the surer one is the better; by less than any row counts.
_TIE = 1e-6


@dataclass(frozen=True)
class Judged:
    """What the validation rows say of a model.

    Attributes:
        scores: of each row, summed over its targets (itself, its words, or its supervised tokens): of labels 1 where
            the right one is the likeliest, else 0, by weight; of all else the loss, negative.
        counts: of each row the weight of its targets, or how many they are.
        loss: the mean over targets.
        labelled: whether scores are of labels.
    """

    scores: np.ndarray
    counts: np.ndarray
    loss: float
    labelled: bool

    @property
    def score(self) -> float:
        """The mean over targets: the higher, the better."""
        return float(self.scores.sum() / self.counts.sum())

    @property
    def value(self) -> float:
        """What a search makes as low as it can."""
        return 1.0 - self.score + _TIE * min(self.loss, 1e3) if self.labelled else self.loss

    @property
    def told(self) -> str:
        """In words."""
        return f"{self.score:.2%} right, loss {self.loss:.4f}" if self.labelled else f"loss {self.loss:.4f}"


def current_task(name: str, asked: Task) -> tuple[Task, TaskPlace]:
    """The task as params.yaml has it now, which its tokens must have been made by.

    Raises:
        BiaslineError: where it has no tokens yet, or others.
    """
    place, way_out = TaskPlace(name), f"dvc repro tokenize@{name}"
    if not place.resolved.is_file() or not place.tokens.is_dir():
        raise BiaslineError(f"{place.tokens}: no rows in tokens yet", f"{way_out}, in the project's folder")
    task, before = resolved(asked, home()), read_task(place.resolved)
    if odd := [part for part in _OF_TOKENS if getattr(task, part) != getattr(before, part)]:
        raise BiaslineError(f"{place.tokens}: made before {odd[0]} of the task was changed in params.yaml", way_out)
    return task, place


class _Stopped(Exception):
    """A training that is not worth going on with."""


class Trainee:
    """A base that is loaded once, with what its rows are.

    Args:
        task: a resolved task.
        place: where its tokens lie.

    Raises:
        BiaslineError: as `load_training`; and where there is no validation row to judge by.
    """

    def __init__(self, task: Task, place: TaskPlace) -> None:
        torch.set_num_threads(task.train.threads)
        # In this process alone, with the whole base, and not compiled: compiled layers would not see what comes and
        # goes with each trial.
        run = Run(recompute=task.run.recompute)
        self.task, self.place = task.model_copy(update={"run": run}), place
        self._accelerator = joined(run)
        self._loaded: Loaded | None = None
        self._start: dict[str, torch.Tensor] | None = None
        if not len(self.loaded.sets.valid):
            raise BiaslineError(f"{place.tokens}: no validation row to judge by", "raise split.valid")

    @property
    def loaded(self) -> Loaded:
        """The base as training would begin with it, and the rows."""
        if self._loaded is None:
            self._loaded = load_training(self.task, self.place)
            if self._start is None:
                self._start = head_values(self.task, self._loaded, self._accelerator)
            for name, value in self._start.items():
                self._loaded.model.get_parameter(name).data.copy_(value)
            prepare(self._loaded.model, (), self.task.run, self._accelerator)
        return self._loaded

    def settings(self, train: Train) -> ResolvedTrain:
        """The parameters with the rates that they come to."""
        return resolve_learning_rates(train, self.loaded.model)

    @property
    def passes(self) -> float:
        """Passes over the training rows that the task's own parameters ask for."""
        return passes(len(self.loaded.sets.train), self.task.train)

    def steps(self, train: Train) -> int:
        """How many steps a training has."""
        return plan_of(self.loaded, train).total_steps

    def train(self, train: Train, looks: Iterable[int], goes_on: GoesOn) -> Judged | None:
        """Train from the start; the base is as it was afterwards.

        Args:
            train: the parameters.
            looks: numbers of steps after which `goes_on` is told of what the validation rows say.
            goes_on: see `GoesOn`.

        Returns:
            what the validation rows say of the values that training keeps; None where it was stopped.

        Raises:
            BiaslineError: where a loss is not finite, memory runs out, or nothing can be trained so.
        """
        loaded, settings, at = self.loaded, self.settings(train), set(looks)
        prepared = prepare_model(loaded.model, loaded.head, settings)
        feed = Feed(Rows(loaded.sets.valid), loaded.sets.objective, loaded.sets.pad, settings, self._accelerator)

        def report(step: int, _: Any, earlier: bool) -> None:
            if step in at and not goes_on(step, self._judged(prepared.model, feed, step)):
                raise _Stopped

        plan = plan_of(loaded, settings)
        try:
            with memory_told(self._accelerator.device):
                fit(
                    prepared.model,
                    prepared.tuning,
                    plan,
                    loaded.sets,
                    settings,
                    report,
                    accelerator=self._accelerator,
                )
                return self._judged(prepared.model, feed, plan.total_steps)
        except _Stopped:
            return None
        finally:
            if isinstance(prepared.tuning, BiasTuning):
                BiasDelta.of(prepared.tuning, frozen="not looked at").revert(loaded.model)
            else:
                self._loaded = None  # adapters and whole weights are not taken off again

    @torch.no_grad()
    def _judged(self, model: torch.nn.Module, feed: Feed, step: int) -> Judged:
        objective, training = self.loaded.sets.objective, model.training
        model.eval()
        losses, scores, counts = [], [], []
        for batch in feed.whole():
            loss, hits, weights = (part.cpu().double() for part in objective.judged(model, batch))
            owners = torch.repeat_interleave(torch.arange(len(batch.rows)), _targets(batch, len(loss)))
            empty = torch.zeros(len(batch.rows), dtype=torch.float64)
            score, weight = (hits * weights, weights) if objective.labelled else (-loss, torch.ones_like(loss))
            losses.append(loss)
            scores.append(empty.index_add(0, owners, score))
            counts.append(empty.index_add(0, owners, weight))
        model.train(training)
        found = Judged(
            torch.cat(scores).numpy(),
            torch.cat(counts).numpy(),
            float(torch.cat(losses).mean()),
            objective.labelled,
        )
        if not math.isfinite(found.loss):
            raise BiaslineError(f"step {step}: the validation loss is {found.loss}", "lower train.learning_rate")
        return found


def _targets(batch: Batch, count: int) -> torch.Tensor:
    """How many targets each row of a batch has, of which there are so many in all."""
    if count == len(batch.rows):
        return torch.ones(count, dtype=torch.int64)
    labels = batch.labels.cpu()
    # Of a language model's, the first token is none.
    found = [(labels[:, first:] != IGNORED).sum(1) for first in (1, 0)]
    return next(one for one in found if int(one.sum()) == count)
