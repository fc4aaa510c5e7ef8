"""What the processes of one training tell each other: a step's gradients, and whether something stops it.

Every process holds the whole trained vector, which is small, and takes its share of each step's rows. One sum over all
processes a step is all that they exchange: as long as what is trained, plus two numbers.
"""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn


def summed(accelerator: Accelerator, masters: Sequence[nn.Parameter], *more: torch.Tensor) -> list[torch.Tensor]:
    """Add up the gradients of all processes, in place, and further single numbers; one exchange for all of it."""
    if accelerator.num_processes == 1:
        return list(more)
    parts = [master.grad for master in masters if master.grad is not None]
    flat = torch.cat([*(part.flatten() for part in parts), *(value.reshape(1).float() for value in more)])
    flat = accelerator.reduce(flat, "sum")
    sizes = [*(part.numel() for part in parts), *(1 for _ in more)]
    found = torch.split(flat, sizes)
    for part, total in zip(parts, found, strict=False):
        part.copy_(total.view_as(part))
    return [value[0] for value in found[len(parts) :]]


def of_all(accelerator: Accelerator, found: list[Any]) -> list[Any]:
    """What every process found, together."""
    return gather_object(found) if accelerator.num_processes > 1 else found
