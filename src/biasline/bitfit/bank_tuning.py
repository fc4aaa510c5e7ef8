"""Many trainings in one pass: each slot of a bank with an Adam, a rate and a clip norm of its own.

Rows of a batch share nothing but the frozen weights, and Adam works element by element. So K trainings side by side are
the K trainings, as long as nothing is summed over slots: not the norm that is clipped, not the number of steps.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch

from biasline.bitfit.bank import Bank
from biasline.bitfit.roles import is_scale
from biasline.errors import BiaslineError

Group = Literal["tuned", "scales", "head"]
GROUPS: tuple[Group, ...] = ("tuned", "scales", "head")
_FROZEN = len(GROUPS)
_CLIP_EPS = 1e-6  # as torch's clip_grad_norm_


@dataclass(frozen=True)
class SlotState:
    """The optimizer's memory of one slot, as a checkpoint keeps it.

    Attributes:
        steps: how many were made.
        mean, square: Adam's moments of each entry of its delta, by key; fp32, flat.
    """

    steps: int
    mean: dict[str, torch.Tensor]
    square: dict[str, torch.Tensor]


class BankTuning:
    """Trains the deltas of a bank's slots side by side, each as `BiasTuning` and AdamW without decay would alone.

    A step is: with `bank.rows(slots)` a forward pass, the sum of each slot's mean loss, backward; as many passes as are
    wanted; then `step`. What is trained of a slot are the entries of the delta that is in it when `begin` is called.

        tuning = BankTuning(bank)
        for slot in (1, 2):
            tuning.begin(slot)
        with bank.rows(slots):
            losses = loss_of_each_row(model, batch)
            (losses * weights).sum().backward()
        norms = tuning.step({1: {"tuned": 1e-3}, 2: {"tuned": 5e-3}})

    Args:
        bank: its table is what is trained, from now on until `end`.
        betas: Adam's.
        eps: Adam's.
        max_norm: what the gradient of each slot is clipped to; 0 for not at all.
    """

    def __init__(
        self, bank: Bank, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, max_norm: float = 0.0
    ) -> None:
        self.bank, self.betas, self.eps, self.max_norm = bank, betas, eps, max_norm
        self._wanting = [parameter for parameter in bank.model.parameters() if parameter.requires_grad]
        for parameter in self._wanting:
            parameter.requires_grad_(False)
        bank.table.requires_grad_(True)
        self._mean, self._square = torch.zeros_like(bank.table), torch.zeros_like(bank.table)
        self._steps = torch.zeros(len(bank.table), dtype=torch.long)
        self._sites = bank.sites
        self._groups = torch.full(bank.table.shape, _FROZEN, dtype=torch.uint8, device=bank.table.device)

    def begin(self, slot: int, state: SlotState | None = None) -> None:
        """Train a slot from the values of the delta that is in it, and from what a checkpoint kept of its optimizer.

        Raises:
            BiaslineError: for an empty slot.
        """
        self._fit()
        self._groups[slot] = _FROZEN
        self._mean[slot] = self._square[slot] = 0.0
        self._steps[slot] = 0 if state is None else state.steps
        for key, (place, where) in self.bank.columns(slot).items():
            name: Group = "head" if place.role == "head" else "scales" if is_scale(place.role) else "tuned"
            self._groups[slot, where] = GROUPS.index(name)
            if state is not None:
                self._mean[slot, where] = state.mean[key].to(self._mean)
                self._square[slot, where] = state.square[key].to(self._square)
        if (waiting := self.bank.table.grad) is not None:  # of whoever had the slot before
            found = waiting.coalesce()
            found.values()[found.indices()[0] == slot] = 0.0
            self.bank.table.grad = found

    def state(self, slot: int) -> SlotState:
        """What a checkpoint needs of a slot beside its delta."""
        self._fit()
        columns = self.bank.columns(slot)
        mean, square = (
            {key: moments[slot, where].cpu() for key, (_, where) in columns.items()}
            for moments in (self._mean, self._square)
        )
        return SlotState(int(self._steps[slot]), mean, square)

    def end(self) -> None:
        """The bank's table is no longer trained, and the model wants the gradients that it wanted before."""
        self.bank.table.requires_grad_(False)
        self.bank.table.grad = None
        for parameter in self._wanting:
            parameter.requires_grad_(True)

    @torch.no_grad()
    def step(self, rates: Mapping[int, Mapping[Group, float]]) -> dict[int, float]:
        """One step of Adam for some slots, from the gradients since the last one, which are then forgotten.

        A slot whose gradient is not finite is left as it was, its moments too.

        Args:
            rates: slot → the learning rate of this step for its biases, scales and head. Gradients of other slots are
                dropped.

        Returns:
            slot → norm of its gradient before clipping; nan or inf where it was not finite, 0 where it had none.

        Raises:
            BiaslineError: for a slot that was not begun.
        """
        if not rates:
            return {}
        self._fit()
        if odd := [slot for slot in rates if bool((self._groups[slot] == _FROZEN).all())]:
            raise BiaslineError(f"slot {odd[0]}: nothing of it is trained", "begin it first")
        table = self.bank.table
        slots = list(rates)
        where = torch.tensor(slots, device=table.device)
        groups = self._groups[where].long()
        gradient = self._gradient(slots).masked_fill_(groups == _FROZEN, 0.0)
        table.grad = None
        norms = torch.linalg.vector_norm(gradient, dim=1)
        if self.max_norm:
            gradient *= (self.max_norm / (norms + _CLIP_EPS)).clamp(max=1.0)[:, None]
        told = dict(zip(slots, norms.tolist(), strict=True))
        sound = torch.isfinite(norms)
        if not sound.all():
            where, groups, gradient = where[sound], groups[sound], gradient[sound]
            slots = where.tolist()
        if not slots:
            return told
        self._steps[slots] += 1
        beta, other = self.betas
        mean, square = self._mean[where].lerp_(gradient, 1 - beta), self._square[where]
        square.mul_(other).addcmul_(gradient, gradient, value=1 - other)
        self._mean[where], self._square[where] = mean, square
        steps = self._steps[slots].double()
        chosen = torch.tensor([[rates[slot].get(name, 0.0) for name in GROUPS] + [0.0] for slot in slots])
        lengths = (chosen.double() / (1 - beta**steps)[:, None]).float().to(table.device).gather(1, groups)
        spread = (1 - other**steps).sqrt().float().to(table.device)[:, None]
        table[where] -= lengths * mean / square.sqrt_().div_(spread).add_(self.eps)
        return told

    def _gradient(self, slots: list[int]) -> torch.Tensor:
        """Of some slots, dense, (slots, n)."""
        table = self.bank.table
        made = torch.zeros(len(slots), table.shape[1], device=table.device)
        if table.grad is None:
            return made
        found = table.grad.coalesce()
        place = {slot: number for number, slot in enumerate(slots)}
        wanted = [(row, place[slot]) for row, slot in enumerate(found.indices()[0].tolist()) if slot in place]
        if wanted:
            rows, places = zip(*wanted, strict=True)
            made[list(places)] = found.values()[list(rows)]
        return made

    def _fit(self) -> None:
        """Grow as the bank did: a delta of another choice, or a larger head, has columns that were not there."""
        bank = self.bank
        if bank.sites == self._sites:
            return
        now = {site.name: site for site in bank.sites}
        for name, filled in (("_mean", 0.0), ("_square", 0.0), ("_groups", _FROZEN)):
            before = getattr(self, name)
            grown = torch.full(bank.table.shape, filled, dtype=before.dtype, device=before.device)
            for site in self._sites:
                start = now[site.name].start
                grown[:, start : start + site.count] = before[:, site.columns]
            setattr(self, name, grown)
        self._sites = bank.sites
