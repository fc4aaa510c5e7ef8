"""Training whole parameters, as a head, an adapter or all of a base."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn


class WholeTuning:
    """Whole parameters, through fp32 masters where the model's own dtype is another.

    Args:
        parts: what they are → the parameters; the first is tuned at the method's rate, `head` at the head's.
    """

    def __init__(self, parts: Mapping[str, Sequence[nn.Parameter]]) -> None:
        self._parts = {
            name: [
                (part, part if part.dtype == torch.float32 else nn.Parameter(part.detach().float())) for part in found
            ]
            for name, found in parts.items()
        }

    @property
    def masters(self) -> list[nn.Parameter]:
        """All masters: what is tuned, then the head."""
        return [master for group in self.groups.values() for master in group]

    @property
    def groups(self) -> dict[str, list[nn.Parameter]]:
        """The masters of what is tuned, and those of the head."""
        body = [master for name, pairs in self._parts.items() if name != "head" for _, master in pairs]
        return {"tuned": body, "head": [master for _, master in self._parts.get("head", [])]}

    def to(self, device: torch.device) -> None:
        """Move the masters that are not the parameters themselves."""
        for part, master in self._pairs():
            if master is not part:
                master.data = master.data.to(device)

    def collect(self, add: bool = False) -> None:
        """Move or add the model's gradients to the masters; see `Tuning.collect`."""
        for part, master in self._pairs():
            # Of a master that is the parameter itself, torch has the sum already.
            before = master.grad if add and master is not part else None
            if part.grad is None:
                master.grad = torch.zeros_like(master) if before is None else before
            elif master is not part:
                master.grad = part.grad.float() if before is None else before.add_(part.grad)
                part.grad = None

    def write(self) -> None:
        """Copy the masters into the model, cast to its dtype."""
        with torch.no_grad():
            for part, master in self._pairs():
                if master is not part:
                    part.copy_(master)

    def gradient_norms(self) -> dict[str, float]:
        """L2 norm of the collected gradient per part."""
        return {
            name: float(
                torch.stack([master.grad.square().sum() for _, master in pairs if master.grad is not None]).sum()
            )
            ** 0.5
            for name, pairs in self._parts.items()
            if pairs
        }

    def _pairs(self) -> list[tuple[nn.Parameter, nn.Parameter]]:
        return [pair for pairs in self._parts.values() for pair in pairs]


def count_entries(parts: Mapping[str, Sequence[nn.Parameter]]) -> dict[str, int]:
    """Number of entries of each part; there are no biases among them."""
    return {"biases": 0} | {name: sum(part.numel() for part in found) for name, found in parts.items()}
