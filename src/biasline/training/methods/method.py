"""What a method of tuning is: the interfaces that its module fills in, and the training loop and evaluation use."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from biasline.bases.pin import Pin
from biasline.bitfit.pretrained import PretrainedModel
from biasline.params import Task, Train
from biasline.params.method_spec import MethodSpec, tuned_count


class Tuning(Protocol):
    """What the loop asks of whatever is trained.

    A step is: `zero_grad` of the optimizer; backward and `collect`, once or several times; clip; the optimizer's step;
    `write()`.
    """

    @property
    def masters(self) -> list[nn.Parameter]:
        """All that the optimizer works on, fp32."""

    @property
    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The masters by the learning rate that they have: `tuned`, `scales`, `head`; some may be empty or missing."""

    def to(self, device: torch.device) -> None:
        """Move it to where the model is."""

    def collect(self, add: bool = False) -> None:
        """Move the model's gradients to the masters, or add them to theirs; zero where there is none.

        Args:
            add: false for the first pass after the optimizer's `zero_grad`, true for those that follow it.
        """

    def write(self) -> None:
        """Copy what the optimizer made into the model, cast to its dtype."""

    def gradient_norms(self) -> dict[str, float]:
        """L2 norm of the collected gradient per part."""


@dataclass(frozen=True)
class Provenance:
    """Where a training comes from, as its artifact records it.

    Attributes:
        pin: of the base.
        labels: of a classification, in the order of the head's outputs.
        score: of a regression, see `BiasDelta.of`.
        about: names and hashes of what it was trained on.
    """

    pin: Pin
    labels: Sequence[str]
    score: dict[str, float]
    about: dict[str, str]

    def settled(self, further: dict[str, str]) -> "Provenance":
        """With what was chosen once training was over, see `InTraining.settled`."""
        return replace(self, about={**self.about, **further})


@dataclass
class PreparedModel:
    """A base that a method has prepared for training.

    Attributes:
        model: the base, with an adapter where the method has one.
        tuning: what is trained of it.
        total: parameters of the base with its head.
        counts: what is trained → number of entries: `biases`, `norm_scale`, `scale`, `adapter`, `weights`, `head`.
        what: what is trained, in words.
        roles: bias role, or part → number of trained entries.
        save: writes the artifact to the path that it is called with.
        notes: what should be said about the choice.
        injected: biases that were put in.
    """

    model: PretrainedModel
    tuning: Tuning
    total: int
    counts: dict[str, int]
    what: str
    roles: dict[str, int]
    save: Callable[[Path, Provenance], None]
    notes: Sequence[str] = ()
    injected: int = 0

    @property
    def trainable(self) -> dict[str, float]:
        """Trained entries: a new head apart from the rest, their sum, and the rest's share of all parameters.

        The head is not in the share: a figure that mixes the two, or hides the head, tells nothing. Scales are not in
        it either: they are no biases.
        """
        return {**self.counts, "total": sum(self.counts.values()), "share": tuned_count(self.counts) / self.total}


@dataclass(frozen=True)
class PeakRates:
    """Peak learning rates times the width of the base: of what is tuned, and of a new head.

    Found on a BERT of width 384; the wider a model, the lower they have to be (Yang et al. 2022, Tensor Programs V, for
    Adam).
    """

    tuned: float
    head: float


@dataclass(frozen=True)
class ExtraPositions:
    """Positions of the base that a method takes for itself, beside those of a row's tokens.

    Attributes:
        count: how many.
        what: what takes them, in words.
        parameter: the parameter that lowers them.
    """

    count: int
    what: str
    parameter: str


def _accept(task: Task) -> None:
    """Nothing that a task asks for is impossible."""


def _no_positions(params: Train) -> None:
    """A row's tokens are all that takes positions."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """How a method trains.

    Attributes:
        spec: what everybody else knows of it.
        peaks: its learning rates where parameters name none.
        prepare: freezes a base but for what the method trains; from the base, names of the parameters of a head that is
            trained whole, and the parameters. Raises `BiaslineError` where there is nothing to train.
        restore: puts an artifact into a base that was loaded as for training; gives the model to ask, for an adapter
            another object around the same base.
        check: raises `BiaslineError` where a task asks for what the method cannot do.
        extra_positions: what of the base's positions it takes for itself; None where it takes none.
    """

    spec: MethodSpec[Any]
    peaks: PeakRates
    prepare: Callable[[Any, list[str], Train], PreparedModel]
    restore: Callable[[Any, Path], Any]
    check: Callable[[Task], None] = _accept
    extra_positions: Callable[[Train], ExtraPositions | None] = _no_positions
