"""What a base with a head makes of texts: the head's outputs, and the hidden states below it."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from biasline.bitfit.pretrained import PretrainedModel
from biasline.progress import Advance
from biasline.training.loss import padded

# Training rows that a probe of the frozen base is fitted on.
PROBED = 2000


def head_outputs(
    model: PretrainedModel, rows: Sequence[dict[str, Any]], pad: int, batch_size: int, advance: Advance = lambda _: None
) -> np.ndarray:
    """The head's outputs per row, (rows, outputs), fp32, in their order; rows are batched by length.

    Args:
        model: in eval mode.
        rows: the model's inputs, `input_ids` and, where the base wants them, `token_type_ids`.
        pad: token id to pad with.
        batch_size: rows at once.
        advance: told of each batch how many rows it had.
    """
    found = np.zeros((len(rows), model.config.num_labels), np.float32)
    for chosen, inputs in _batches(model, rows, pad, batch_size):
        with torch.inference_mode():
            found[chosen] = model(**inputs).logits.float().cpu().numpy()
        advance(len(chosen))
    return found


def features(
    model: PretrainedModel, rows: Sequence[dict[str, Any]], pad: int, batch_size: int, advance: Advance = lambda _: None
) -> np.ndarray:
    """Mean of the last hidden states over each row's tokens, (rows, hidden), fp32; arguments as `head_outputs`."""
    found: list[np.ndarray] = [np.zeros(0)] * len(rows)
    body = model.base_model.get_encoder() if model.config.is_encoder_decoder else model.base_model
    for chosen, inputs in _batches(model, rows, pad, batch_size):
        with torch.inference_mode():
            hidden = body(**inputs).last_hidden_state.float()
        weight = inputs["attention_mask"].float()[:, :, None]
        for index, row in zip(chosen, ((hidden * weight).sum(1) / weight.sum(1)).cpu().numpy(), strict=True):
            found[index] = row
        advance(len(chosen))
    return np.stack(found)


def _batches(
    model: PretrainedModel, rows: Sequence[dict[str, Any]], pad: int, batch_size: int
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """Places of rows of like length, and their inputs on the model's device."""
    order = sorted(range(len(rows)), key=lambda index: (len(rows[index]["input_ids"]), index))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = padded([rows[index] for index in chosen], pad)
        yield chosen, {name: tensor.to(model.device) for name, tensor in batch.items()}
