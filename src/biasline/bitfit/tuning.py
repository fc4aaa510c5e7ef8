"""Training biases in place: everything else frozen, fp32 masters beside the model's own values."""

from collections.abc import Sequence

import torch
from torch import nn

from biasline.bitfit.inventory import Bias, Inventory, inspect_biases, value_hash
from biasline.bitfit.selection import Selection, select_biases


class BiasTuning:
    """The chosen biases of one model, ready to train.

    One flat fp32 vector, `master`, holds all trained entries in the order of `selection.biases`. The optimizer works
    on it: a bf16 bias would lose small updates, and a fused bias can be trained in part because only its chosen
    entries are in the vector. A step is: backward; `collect()`; clip; `optimizer.step()`; `write()`.
    `base_values` are the hashes of what training started from.
    """

    def __init__(self, model: nn.Module, inventory: Inventory, selection: Selection) -> None:
        self.inventory = inventory
        self.selection = selection
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self._parameters = {bias.name: parameters[bias.name] for bias in selection.biases}
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for parameter in self._parameters.values():
            parameter.requires_grad_(True)
        self.base_values = {bias.key: value_hash(bias.read(self._parameters[bias.name])) for bias in selection.biases}
        start = torch.cat([bias.read(self._parameters[bias.name]).float() for bias in selection.biases])
        self.master = nn.Parameter(start)
        self.master.grad = torch.zeros_like(start)

    def parameters(self) -> Sequence[nn.Parameter]:
        """The model's own parameters that receive gradients (a fused bias whole)."""
        return list(self._parameters.values())

    def collect(self) -> None:
        """Move the model's gradients into `master.grad` (fp32) and clear them.

        A parameter that had no part in the loss (its gradient is None) counts as zero.
        """
        grad = self.master.grad
        assert grad is not None
        offset = 0
        for bias in self.selection.biases:
            found = self._parameters[bias.name].grad
            part = grad[offset : offset + bias.count]
            if found is None:
                part.zero_()
            else:
                part.copy_(bias.read(found))
            offset += bias.count
        for parameter in self._parameters.values():
            parameter.grad = None

    def write(self) -> None:
        """Copy the masters into the model, cast to its dtype."""
        for bias, values in self._split(self.master.detach()):
            bias.write(self._parameters[bias.name], values)

    def values(self) -> dict[str, torch.Tensor]:
        """Key → trained entries, fp32, flat, on the CPU: what a delta stores."""
        return {bias.key: values.to("cpu", copy=True) for bias, values in self._split(self.master.detach())}

    def norms(self, vector: torch.Tensor) -> dict[str, float]:
        """L2 norm per role of a vector laid out like `master`, such as its gradient."""
        squares: dict[str, float] = {}
        for bias, values in self._split(vector):
            squares[bias.role] = squares.get(bias.role, 0.0) + float(values.square().sum())
        return {role: square**0.5 for role, square in squares.items()}

    def _split(self, vector: torch.Tensor) -> list[tuple[Bias, torch.Tensor]]:
        parts = torch.split(vector, [bias.count for bias in self.selection.biases])
        return list(zip(self.selection.biases, parts, strict=True))


def tune_biases(model: nn.Module, roles: str = "all", layers: str = "", pattern: str = "") -> BiasTuning:
    """Freeze `model` but for the chosen biases (see `select_biases`) and prepare them for training."""
    inventory = inspect_biases(model)
    return BiasTuning(model, inventory, select_biases(inventory, roles, layers, pattern))
