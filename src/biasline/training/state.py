"""What a training is made of between two steps: history, optimizer, the values to keep."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from biasline.training.runtime.checkpoint import Snapshot
from biasline.training.validation import Keeper, Look


@dataclass
class History:
    """What training went through.

    Attributes:
        rows: one dict per logged step, as `add_row` makes them.
        best_step: the step whose values were kept.
        best_loss: their validation loss; None without a validation set.
        tokens: of all rows that a step was made of, without padding.
        targets: what the loss was taken over, in all: supervised tokens, or labelled rows.
        losses: of the steps since the last row.
        seconds: of training so far, in all processes that had a part in it one after the other.
        way: how logits are made, as the objective chose; None before the first step.
        notes: what should be said about how it went.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    best_step: int = 0
    best_loss: float | None = None
    tokens: int = 0
    targets: int = 0
    losses: list[float] = field(default_factory=list)
    seconds: float = 0.0
    way: int | None = None
    notes: list[str] = field(default_factory=list)

    def add_row(
        self,
        step: int,
        epoch: float,
        looked: dict[str, float | None],
        learning_rate: float,
        grad_norm: float,
        norms: dict[str, float],
    ) -> None:
        """Log a step, with the mean loss of the steps since the last one that was logged.

        Args:
            step: its number, from 1 on.
            epoch: passes over the rows, finished by then.
            looked: what a look at the validation rows found; None where there was none.
            learning_rate: of this step.
            grad_norm: before it was clipped, as of this step.
            norms: likewise, by bias role or part.
        """
        loss = sum(self.losses) / len(self.losses)
        row = {"step": step, "epoch": epoch, "tokens": self.tokens, "targets": self.targets, "loss": loss, **looked}
        row |= {"learning_rate": learning_rate, "grad_norm": grad_norm, "seconds": self.seconds}
        self.rows.append(row | {f"grad_norm.{part}": norm for part, norm in norms.items()})
        self.losses.clear()


class State:
    """All that changes while a training goes on.

    Args:
        masters: what the optimizer works on.
        optimizer: one whose state is tensors by parameter, as AdamW's.
        keeper: decides which step is kept.

    Attributes:
        step: optimizer steps done.
        finished: no step follows.
        best: the values to keep so far.
    """

    def __init__(self, masters: Sequence[nn.Parameter], optimizer: torch.optim.Optimizer, keeper: Keeper) -> None:
        self.masters, self.optimizer, self.keeper = list(masters), optimizer, keeper
        self.history = History()
        self.step, self.finished = 0, False
        self.best: list[torch.Tensor] = []
        self.keep()

    def keep(self) -> None:
        """These values are the ones to keep."""
        self.best = [master.detach().clone() for master in self.masters]

    def put_back(self) -> None:
        """The kept values are the values."""
        with torch.no_grad():
            for master, values in zip(self.masters, self.best, strict=True):
                master.copy_(values)

    def values(self) -> dict[str, torch.Tensor]:
        """What every checkpoint holds, whatever step it is of."""
        named = {"master": [master.detach() for master in self.masters], "best": self.best}
        return {f"{name}.{number}": part for name, parts in named.items() for number, part in enumerate(parts)}

    def snapshot(self) -> Snapshot:
        """All that a checkpoint holds of this moment."""
        moments = self.optimizer.state_dict()["state"]
        kept = {f"adam.{number}.{name}": part for number, found in moments.items() for name, part in found.items()}
        state: dict[str, Any] = {"history": asdict(self.history), "waited": self.keeper.waited}
        if (highest := self.keeper.highest) is not None:
            state["highest"] = {"loss": highest.loss, "accuracy": highest.accuracy}
            kept["highest.credit"] = highest.credit
        return Snapshot(self.step, state, self.values() | kept, self.finished)

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a checkpoint."""
        state, tensors = snapshot.state, snapshot.tensors
        self.step, self.finished, self.history = snapshot.step, snapshot.finished, History(**state["history"])
        self.keeper.waited = state["waited"]
        if "highest" in state:
            self.keeper.highest = Look(**state["highest"], credit=tensors["highest.credit"])
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for name, part in tensors.items():
            kind, number, *rest = name.split(".")
            if kind == "adam":
                moments.setdefault(int(number), {})[rest[0]] = part
        self.optimizer.load_state_dict({"state": moments, "param_groups": self.optimizer.state_dict()["param_groups"]})
        with torch.no_grad():
            for place, (master, best) in enumerate(zip(self.masters, self.best, strict=True)):
                master.copy_(tensors[f"master.{place}"])
                best.copy_(tensors[f"best.{place}"])
