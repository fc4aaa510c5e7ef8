"""Activations written in Python, one element-wise operation after another, in the hot path of a frozen model.

BLOOM's GELU and its own backward are a quarter of a step of a small base. Where a fused kernel of torch's gives the
same values and gradients, it takes the place of the Python for the training.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional

# Values and gradients may differ by so much, relative to 1 or to the value; in float64, so that what is compared are
# the functions and not their rounding.
_TOLERANCE = 1e-6
# nn.GELU and nn.SiLU are these kernels themselves.
_FUSED: tuple[Callable[[torch.Tensor], torch.Tensor], ...] = (
    partial(functional.gelu, approximate="tanh"),
    functional.gelu,
    functional.silu,
)


class Fused(nn.Module):
    """A fused kernel in an activation's place."""

    def __init__(self, kernel: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self._kernel = kernel

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """The activation of each value."""
        return self._kernel(values)


def fuse_activations(model: nn.Module) -> int:
    """Put fused kernels in the place of activations that are equal to them; returns of how many."""
    replaced = 0
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            # Each by itself: two of a class may have other settings.
            if _may_be(module) and (kernel := _equal_kernel(module)) is not None:
                setattr(parent, name, Fused(kernel))
                replaced += 1
    return replaced


def _may_be(module: nn.Module) -> bool:
    """A leaf without state of its own, by its name one of these activations, and not torch's own."""
    name = type(module).__name__.lower()
    bare = not list(module.children()) and not list(module.parameters()) and not list(module.buffers())
    own = type(module).__module__.startswith("torch.")
    return (
        bare and not own and not vars(module).get("_forward_hooks") and any(kind in name for kind in ("gelu", "silu"))
    )


def _equal_kernel(module: nn.Module) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """The kernel whose values and gradients are the module's, in training as in evaluation."""
    ends = torch.tensor([-1e4, -50.0, 50.0, 1e4], dtype=torch.float64)
    grid = torch.cat([torch.linspace(-12, 12, 4801, dtype=torch.float64), ends])
    expected = []
    before = module.training
    try:
        for mode in (True, False):
            module.train(mode)
            expected.append(_values_and_gradients(module, grid))
    except Exception:  # it wants something else than values: then it is no such activation
        return None
    finally:
        module.train(before)
    for kernel in _FUSED:
        got = _values_and_gradients(kernel, grid)
        if all(
            torch.allclose(mine, its, rtol=_TOLERANCE, atol=_TOLERANCE)
            for found in expected
            for mine, its in zip(got, found, strict=True)
        ):
            return kernel
    return None


def _values_and_gradients(function: Any, grid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    points = grid.clone().requires_grad_(True)
    values = function(points)
    [gradients] = torch.autograd.grad(values.sum(), points)
    return values.detach(), gradients
