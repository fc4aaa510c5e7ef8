"""What the processes of one training tell each other.

Every process holds the whole trained vector, which is small, and takes its share of each step's rows. One sum over all
processes is what a step exchanges: as long as what is trained, plus two numbers. A look at the validation rows
exchanges their losses.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import nn

from biasline.errors import BiaslineError

T = TypeVar("T")
# A launcher ends all processes when one is gone: those with nothing to tell or to save give the others time.
_LINGER_S = 3.0


def same_error(accelerator: Accelerator, error: BiaslineError) -> BaseException:
    """What to raise where all processes met the same error: the first tells it, the others end without a word."""
    return error if accelerator.is_main_process else ended(accelerator, 1)


def ended(accelerator: Accelerator, code: int) -> SystemExit:
    """What to raise in order to end: the first process, which has something to save, before the others."""
    if not accelerator.is_main_process:
        time.sleep(_LINGER_S)
    return SystemExit(code)


def together(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Do what may fail in some processes and not in others, which would wait for them.

    Where it fails, all end: the first of those in which it did tells why.
    """
    if accelerator.num_processes == 1:
        return work()
    made, error = None, None
    try:
        made = work()
    except Exception as found:
        error = found
    failed = of_all(accelerator, [accelerator.process_index] if error else [])
    if not failed:
        return cast(T, made)
    if error and accelerator.process_index == min(failed):
        raise error
    time.sleep(_LINGER_S)
    raise SystemExit(1)


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


def of_first(accelerator: Accelerator, made: Callable[[], T]) -> T:
    """What the first process makes, in every process."""
    shared = [together(accelerator, lambda: made() if accelerator.is_main_process else None)]
    if accelerator.num_processes > 1:
        broadcast_object_list(shared)
    return cast(T, shared[0])


def tensors_of_first(accelerator: Accelerator, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors that the first process has, in every process, on the CPU.

    One after the other, so that a card, which is what they travel through, needs room for one of them.
    """
    if accelerator.num_processes == 1:
        return tensors
    found = {}
    kinds = of_first(accelerator, lambda: [(name, part.shape, part.dtype) for name, part in tensors.items()])
    for name, shape, dtype in kinds:
        part = tensors[name] if accelerator.is_main_process else torch.empty(shape, dtype=dtype)
        part = part.to(accelerator.device)
        torch.distributed.broadcast(part, 0)
        found[name] = part.cpu()
    return found


def of_all(accelerator: Accelerator, found: list[Any]) -> list[Any]:
    """What every process found, together."""
    return gather_object(found) if accelerator.num_processes > 1 else found
