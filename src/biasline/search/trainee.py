"""One base and one task's rows, from which training after training begins alike."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from biasline.bitfit import BiasDelta, BiasTuning
from biasline.errors import BiaslineError
from biasline.layout import TaskPlace
from biasline.params import ResolvedTrain, Run, Task, Train
from biasline.training.batches import Plan, Rows
from biasline.training.feed import Feed
from biasline.training.loop import fit
from biasline.training.methods import prepare_model
from biasline.training.prepare import prepare
from biasline.training.rates import resolve_learning_rates
from biasline.training.train import Loaded, head_values, load_training

# Told of a look at the validation rows: steps done, and what was found. Says whether training goes on.
GoesOn = Callable[[int, "Judged"], bool]
# Among models that are right equally often the surer one is the better; by less than any row counts.
_TIE = 1e-6


@dataclass(frozen=True)
class Judged:
    """What the validation rows say of a model.

    Attributes:
        scores: of each target (a row, a word, or a supervised token): of labels 1 where the right one is the likeliest,
            else 0, by weight; of all else the loss, negative.
        loss: the mean.
        labelled: whether scores are of labels.
    """

    scores: np.ndarray
    loss: float
    labelled: bool

    @property
    def value(self) -> float:
        """What a search makes as low as it can."""
        missed = 1.0 - float(self.scores.mean()) if self.labelled else self.loss
        return missed + self.labelled * _TIE * min(self.loss, 1e3)

    @property
    def told(self) -> str:
        """In words."""
        return f"{self.scores.mean():.2%} right, loss {self.loss:.4f}" if self.labelled else f"loss {self.loss:.4f}"


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
        # In this process alone, and with the whole base.
        run = Run(recompute=task.run.recompute, compile=task.run.compile)
        self.task, self.place = task.model_copy(update={"run": run}), place
        self._accelerator = Accelerator()
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

    def steps(self, train: Train) -> int:
        """How many steps a training has."""
        return Plan.of(len(self.loaded.sets.train), train).total_steps

    def train(self, train: Train, looks: Iterable[int], goes_on: GoesOn) -> Judged | None:
        """Train from the start; the base is as it was afterwards.

        Args:
            train: the parameters.
            looks: numbers of steps after which `goes_on` is told of what the validation rows say.
            goes_on: see `GoesOn`.

        Returns:
            what the validation rows say of the values that training keeps; None where it was stopped.

        Raises:
            BiaslineError: where a loss is not finite, or nothing can be trained so.
        """
        loaded, settings, at = self.loaded, self.settings(train), set(looks)
        prepared = prepare_model(loaded.model, loaded.head, settings)
        feed = Feed(Rows(loaded.sets.valid), loaded.sets.objective, loaded.sets.pad, settings, self._accelerator)

        def report(step: int, _: Any, earlier: bool) -> None:
            if step in at and not goes_on(step, self._judged(prepared.model, feed)):
                raise _Stopped

        plan = Plan.of(len(loaded.sets.train), settings)
        try:
            fit(
                prepared.model,
                prepared.tuning,
                plan,
                loaded.sets,
                settings,
                report,
                accelerator=self._accelerator,
            )
            return self._judged(prepared.model, feed)
        except _Stopped:
            return None
        finally:
            if isinstance(prepared.tuning, BiasTuning):
                BiasDelta.of(prepared.tuning, frozen="not looked at").revert(loaded.model)
            else:
                self._loaded = None  # adapters and whole weights are not taken off again

    @torch.no_grad()
    def _judged(self, model: torch.nn.Module, feed: Feed) -> Judged:
        objective, training = self.loaded.sets.objective, model.training
        model.eval()
        found: Sequence[list[torch.Tensor]] = ([], [], [])
        for batch in feed.whole():
            for parts, part in zip(found, objective.judged(model, batch), strict=True):
                parts.append(part.cpu().double())
        model.train(training)
        losses, hits, weights = (torch.cat(parts).numpy() for parts in found)
        scores = hits * weights / weights.mean() if objective.labelled else -losses
        return Judged(scores, float(losses.mean()), objective.labelled)
