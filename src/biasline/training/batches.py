"""Which rows make which step: a pure function of seed, step and parameters, so that nothing needs to be remembered."""

import math
from dataclasses import dataclass

import torch

from biasline.params import Train


@dataclass(frozen=True)
class Plan:
    """Steps over a training set.

    Attributes:
        rows: size of the training set.
        batch_size: rows per optimizer step; the last step of an epoch takes what is left.
        total_steps: optimizer steps in all.
        seed: with the epoch's number it fixes the epoch's order.
    """

    rows: int
    batch_size: int
    total_steps: int
    seed: int

    @classmethod
    def of(cls, rows: int, params: Train) -> "Plan":
        """The plan for `epochs` passes, lengthened to `min_steps` where that is more."""
        steps = math.ceil(math.ceil(rows / params.batch_size) * params.epochs)
        return cls(rows, params.batch_size, max(steps, params.min_steps), params.seed)

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.rows / self.batch_size)

    def epoch(self, step: int) -> float:
        """Passes finished after `step` steps."""
        return step / self.steps_per_epoch

    def indices(self, step: int) -> list[int]:
        """Row indices of the step number `step`, from 0: each row once an epoch, in an order of the epoch's own."""
        epoch, within = divmod(step, self.steps_per_epoch)
        order = torch.randperm(self.rows, generator=torch.Generator().manual_seed(self.seed * 1_000_003 + epoch))
        return order[within * self.batch_size : (within + 1) * self.batch_size].tolist()


def learning_rate_factor(step: int, total: int, warmup: float, schedule: str) -> float:
    """The share of the peak rate at step number `step`, from 0: a linear climb, then `schedule` down to 0."""
    climb = max(1, round(total * warmup))
    if step < climb:
        return (step + 1) / climb
    progress = (step - climb) / max(1, total - climb)
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1 - progress
