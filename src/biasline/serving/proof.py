"""Outputs of an exported model beside those of the packaged one."""

from collections.abc import Sequence
from typing import Any

import torch

from biasline.errors import BiaslineError
from biasline.training.loss import padded

# Of the largest logit.
_ROUNDING = 1e-5

Inputs = Sequence[dict[str, list[int]]]


def outputs(model: Any, inputs: Inputs, headed: bool) -> list[torch.Tensor]:
    """For each row the logits, (positions, labels), or of a language model those of the last, (1, vocabulary), fp32."""
    found = []
    for row in inputs:
        batch = {name: tensor.to(model.device) for name, tensor in padded([row], model.config.pad_token_id).items()}
        with torch.inference_mode():
            logits = model(**batch).logits.float().cpu()
        logits = logits.reshape(-1, logits.shape[-1])
        found.append(logits if headed else logits[-1:])
    return found


def check_same(
    what: str, wanted: Sequence[torch.Tensor], found: Sequence[torch.Tensor], rows: Sequence[dict[str, Any]], hint: str
) -> None:
    """Refuse other outputs, but for their last bits: where a tensor lies in memory changes the order of sums.

    Args:
        what: whose outputs were found.
        wanted: of the packaged model.
        found: of the exported one.
        rows: which they are of.
        hint: the way out.

    Raises:
        BiaslineError: naming the first row that differs, and by how much.
    """
    for number, (one, other) in enumerate(zip(wanted, found, strict=True)):
        far = float((one - other).abs().max())
        if not far <= _ROUNDING * max(1.0, float(one.abs().max())):
            text = next(iter(rows[number].values()))[:60]
            raise BiaslineError(f"{what} gives other outputs: by {far:.3g} on test row {number + 1} ({text!r})", hint)
