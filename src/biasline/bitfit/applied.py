"""What is done to a model at the moment: a delta applied, biases injected, gradients masked."""

import weakref
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from biasline.bitfit.injection import Injection


@dataclass
class Traces:
    """What training leaves on a model besides values: hooks on its parameters, and which of them want gradients."""

    wanting: dict[str, bool] = field(default_factory=dict)  # before training; empty where there was none
    hooks: list[RemovableHandle] = field(default_factory=list)

    def unhook(self) -> None:
        """Take every hook off again."""
        for hook in self.hooks:
            hook.remove()
        self.hooks = []

    def remove(self, model: nn.Module) -> None:
        """Make the model want the gradients that it wanted before, and nothing mask them."""
        self.unhook()
        if not self.wanting:
            return
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(self.wanting.get(name, False))
            parameter.grad = None


@dataclass(frozen=True)
class Applied:
    """A delta that is in a model, with what it displaced. Nothing here refers to the model itself."""

    delta: object
    originals: dict[str, torch.Tensor]
    injection: Injection
    traces: Traces


# Gone with the model.
_applied: "weakref.WeakKeyDictionary[nn.Module, Applied]" = weakref.WeakKeyDictionary()


def applied_to(model: nn.Module) -> Applied | None:
    """What is applied to a model; None where it is a plain base."""
    return _applied.get(model)


def set_applied(model: nn.Module, applied: Applied | None) -> None:
    """Note what is applied to a model, or (None) that it is plain."""
    if applied is None:
        _applied.pop(model, None)
    else:
        _applied[model] = applied
