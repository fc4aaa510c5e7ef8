"""What a classification head reads: a base's own pooler, or the mean over the tokens.

A pooler of BERT's kind looks at the first token alone, through a layer that many bases were never trained to use.
Biases that leave every weight frozen get further with the mean.
"""

from typing import Any, cast

import torch
from torch import nn


class MeanPooler(nn.Module):
    """Stands in a pooler's place: the mean of the last hidden states over the tokens that are no padding.

    (rows, length, hidden) → (rows, hidden), in the dtype of the hidden states; summed in fp32.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mask: torch.Tensor | None = None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The mean of (rows, length, hidden) over the tokens that `mask` keeps, or over all of them without one."""
        if hidden.ndim != 3:
            raise ValueError(f"hidden states of (rows, length, hidden) were expected, got {tuple(hidden.shape)}")
        if self.mask is None:
            return hidden.mean(1)
        # Virtual tokens before the text have a place in the mask, and no hidden state.
        weight = self.mask[:, -hidden.shape[1] :].to(hidden.device, torch.float32)[:, :, None]
        return ((hidden.float() * weight).sum(1) / weight.sum(1).clamp(min=1)).to(hidden.dtype)


def can_pool_by_mean(body: nn.Module) -> bool:
    """Whether a Transformer has a pooler that is given all hidden states (ALBERT's is given the first token's)."""
    pooler = getattr(body, "pooler", None)
    return isinstance(pooler, nn.Module) and not isinstance(pooler, nn.Linear)


def pools_by_mean(body: nn.Module) -> bool:
    """Whether a Transformer's pooler is a `MeanPooler`."""
    return isinstance(getattr(body, "pooler", None), MeanPooler)


def pool_by_mean(body: nn.Module) -> None:
    """Put a `MeanPooler` in the place of a Transformer's pooler."""

    def remember(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        # The pooler is given hidden states alone; its model knows the mask.
        cast(MeanPooler, module.pooler).mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)

    body.register_forward_pre_hook(remember, with_kwargs=True)
    body.pooler = MeanPooler()
