"""Looks at the validation rows while training, and which step is kept."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn

from biasline.training.loss import Batch, Objective
from biasline.training.ranks import of_all

_SPARED, _ROUNDING = 2, 1e-9


@dataclass(frozen=True)
class Look:
    """What one look found.

    Attributes:
        loss: mean per target.
        accuracy: of labels, the share that is right, each counted by its weight; else None.
        credit: what each target adds to the accuracy, float64 on the CPU; the same targets at every look.
        odd: numbers of the rows in whose passes a loss is not finite.
    """

    loss: float
    accuracy: float | None
    credit: torch.Tensor
    odd: tuple[int, ...] = ()


def look_at(model: nn.Module, objective: Objective, batches: Iterable[Batch], accelerator: Accelerator) -> Look:
    """Mean loss per target of the validation rows and, of labels, the share that is right."""
    training = model.training
    model.eval()
    losses: list[torch.Tensor] = []
    hits: list[torch.Tensor] = []
    weights: list[torch.Tensor] = []
    odd: list[int] = []
    with torch.no_grad():
        for batch in batches:
            judged = objective.judged(model, batch)
            if batch.counts:
                for found, given in zip((losses, hits, weights), judged, strict=True):
                    found.append(given)
                if not judged[0].isfinite().all():
                    odd += batch.rows
    model.train(training)
    # On the CPU: some accelerators have no float64.
    every, hit, weight = (
        torch.cat(found).cpu().double() if found else torch.zeros(0, dtype=torch.float64)
        for found in (losses, hits, weights)
    )
    if accelerator.num_processes > 1:
        every, hit, weight = (_together(part, accelerator.num_processes) for part in (every, hit, weight))
    credit = hit * weight / weight.sum()
    accuracy = float(credit.sum()) if objective.labelled else None
    return Look(float(every.mean()), accuracy, credit, tuple(of_all(accelerator, odd)))


def _together(part: torch.Tensor, processes: int) -> torch.Tensor:
    """Every process's values of one kind; of rows in the order that one process would have: each has every n-th."""
    found = torch.tensor(gather_object(part.tolist()), dtype=part.dtype)
    order = [place for first in range(processes) for place in range(first, len(found), processes)]
    return torch.empty_like(found).index_copy_(0, torch.tensor(order, dtype=torch.int64), found)


@dataclass
class Keeper:
    """Decides at each look whether its step is the one to keep.

    Of answers and scores that is the one of the lowest loss. Of labels, right ones count: a head grows surer than it
    should be, and its loss rises, long before it gives worse labels. They are counted on few rows, so that the highest
    count is often luck: a later step, which was trained longer, stands for it unless it is worse by more than two
    standard errors of their difference on the same rows (as Breiman et al. 1984, section 3.4.3, spare one to prune).

    Args:
        always: keep the last step, whatever was found.

    Attributes:
        waited: looks since the best one.
        highest: the best one.
    """

    always: bool
    waited: int = 0
    highest: Look | None = None

    def keeps(self, look: Look) -> bool:
        """Whether the step of this look is to be kept."""
        before = self.highest
        if before is None:
            self.highest = look
            return True
        gain = before.loss - look.loss if look.accuracy is None else look.accuracy - (before.accuracy or 0.0)
        if gain > 0:
            self.highest, self.waited = look, 0
        else:
            self.waited += 1
        if self.always or look.accuracy is None:
            return self.always or gain > 0
        squares = (look.credit - before.credit).square().sum()
        return gain >= -_SPARED * math.sqrt(float(squares)) - _ROUNDING
