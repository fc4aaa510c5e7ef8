"""Training biases in place: everything else frozen, fp32 masters beside the model's own values."""

from collections.abc import Iterator, Sequence

import torch
from torch import nn

from biasline.bitfit.inventory import Bias, Inventory, inspect_biases, value_hash
from biasline.bitfit.selection import Selection, select_biases
from biasline.errors import BiaslineError


class BiasTuning:
    """The chosen biases of one model, ready to train, and a new head if there is one.

    One flat fp32 vector, `master`, holds all trained entries in the order of `selection.biases`. The optimizer works
    on it: a bf16 bias would lose small updates, and a fused bias can be trained in part because only its chosen
    entries are in the vector. A step is: backward; `collect()`; clip; `optimizer.step()`; `write()`.

    Attributes:
        master: the trained bias entries, (n,), fp32.
        head_master: the entries of the new head's parameters, weights and all, or None.
        base_values: hashes of what the biases started from.
    """

    def __init__(self, model: nn.Module, inventory: Inventory, selection: Selection, head: Sequence[str] = ()) -> None:
        self.inventory = inventory
        self.selection = selection
        parameters = dict(model.named_parameters(remove_duplicate=False))
        self.head = tuple(Bias(name, "head", None, tuple(parameters[name].shape)) for name in head)
        self._parameters = {entry.name: parameters[entry.name] for entry in (*selection.biases, *self.head)}
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for parameter in self._parameters.values():
            parameter.requires_grad_(True)
        self.base_values = {bias.key: value_hash(bias.read(self._parameters[bias.name])) for bias in selection.biases}
        self.master = self._master(selection.biases)
        self.head_master = self._master(self.head) if self.head else None

    @property
    def masters(self) -> list[nn.Parameter]:
        """What the optimizer works on: the biases, then the head if there is one."""
        return [self.master] if self.head_master is None else [self.master, self.head_master]

    @property
    def head_count(self) -> int:
        """Number of entries of the new head."""
        return sum(entry.count for entry in self.head)

    def to(self, device: torch.device) -> None:
        """Move the masters to where the model is."""
        for master in self.masters:
            master.data = master.data.to(device)
            master.grad = torch.zeros_like(master.data)

    def collect(self) -> None:
        """Move the model's gradients into the masters' (fp32) and clear them.

        A parameter that had no part in the loss (its gradient is None) counts as zero.
        """
        for entries, master in self._blocks():
            assert master.grad is not None
            for entry, part in _split(entries, master.grad):
                found = self._parameters[entry.name].grad
                if found is None:
                    part.zero_()
                else:
                    part.copy_(entry.read(found))
        for parameter in self._parameters.values():
            parameter.grad = None

    def write(self) -> None:
        """Copy the masters into the model, cast to its dtype."""
        for entries, master in self._blocks():
            for entry, values in _split(entries, master.detach()):
                entry.write(self._parameters[entry.name], values)

    def values(self) -> dict[str, torch.Tensor]:
        """Key → trained entries, fp32, flat, on the CPU: what a delta stores."""
        return {
            entry.key: values.to("cpu", copy=True)
            for entries, master in self._blocks()
            for entry, values in _split(entries, master.detach())
        }

    def gradient_norms(self) -> dict[str, float]:
        """L2 norm of the collected gradient per role."""
        squares: dict[str, float] = {}
        for entries, master in self._blocks():
            assert master.grad is not None
            for entry, values in _split(entries, master.grad):
                squares[entry.role] = squares.get(entry.role, 0.0) + float(values.square().sum())
        return {role: square**0.5 for role, square in squares.items()}

    def _master(self, entries: Sequence[Bias]) -> nn.Parameter:
        master = nn.Parameter(torch.cat([entry.read(self._parameters[entry.name]).float() for entry in entries]))
        master.grad = torch.zeros_like(master)
        return master

    def _blocks(self) -> Iterator[tuple[Sequence[Bias], nn.Parameter]]:
        yield self.selection.biases, self.master
        if self.head_master is not None:
            yield self.head, self.head_master


def tune_biases(
    model: nn.Module, roles: str = "all", layers: str = "", pattern: str = "", head: Sequence[str] = ()
) -> BiasTuning:
    """Freeze `model` but for the chosen biases (see `select_biases`) and prepare them for training.

    Args:
        head: names of the parameters of a new head. It is trained whole: a random head that stays frozen is the
            classic mistake. An existing head stays frozen, unless its biases are asked for by role.
    """
    inventory = inspect_biases(model)
    selection = select_biases(inventory, roles, layers, pattern)
    kept = tuple(bias for bias in selection.biases if bias.name not in head)
    if not kept:
        raise BiaslineError(f"biases {roles!r}: nothing but the new head, which is trained anyway", "choose 'all'")
    return BiasTuning(model, inventory, Selection(kept, selection.notes, selection.asked), head)


def _split(entries: Sequence[Bias], vector: torch.Tensor) -> Iterator[tuple[Bias, torch.Tensor]]:
    """Each entry with its part of a flat vector, as a view."""
    yield from zip(entries, torch.split(vector, [entry.count for entry in entries]), strict=True)
