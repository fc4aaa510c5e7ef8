"""What a base with a head makes of texts: the head's outputs, and the hidden states below it."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from biasline.bitfit.asked import batch_of
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
        with torch.inference_mode(), batch_of(chosen):
            found[chosen] = model(**inputs).logits.float().cpu().numpy()
        advance(len(chosen))
    return found


def features(
    model: PretrainedModel, rows: Sequence[dict[str, Any]], pad: int, batch_size: int, advance: Advance = lambda _: None
) -> np.ndarray:
    """Mean of the last hidden states over each row's tokens, (rows, hidden), fp32; arguments as `head_outputs`."""
    found: list[np.ndarray] = [np.zeros(0)] * len(rows)
    for chosen, inputs in _batches(model, rows, pad, batch_size):
        hidden, weight = _hidden(model, inputs), inputs["attention_mask"].float()[:, :, None]
        for index, row in zip(chosen, ((hidden * weight).sum(1) / weight.sum(1)).cpu().numpy(), strict=True):
            found[index] = row
        advance(len(chosen))
    return np.stack(found)


def word_outputs(
    model: PretrainedModel, rows: Sequence[dict[str, Any]], pad: int, batch_size: int, advance: Advance = lambda _: None
) -> list[np.ndarray]:
    """Outputs of a head that reads each token, at some places of each row: (places, outputs) each, fp32.

    Args:
        model: in eval mode.
        rows: the model's inputs, and `places`: numbers of tokens, of which there may be none; of several windows of one
            text `number`, its place among all texts.
        pad: token id to pad with.
        batch_size: rows at once.
        advance: told of each batch how many rows it had.
    """
    found: list[np.ndarray] = [np.zeros(0)] * len(rows)
    for chosen, inputs in _batches(model, rows, pad, batch_size):
        with torch.inference_mode(), batch_of([rows[index].get("number", index) for index in chosen]):
            _keep(found, rows, chosen, model(**inputs).logits.float())
        advance(len(chosen))
    return found


def word_features(
    model: PretrainedModel, rows: Sequence[dict[str, Any]], pad: int, batch_size: int, advance: Advance = lambda _: None
) -> list[np.ndarray]:
    """The last hidden states at some places of each row: (places, hidden) each, fp32; arguments as `word_outputs`."""
    found: list[np.ndarray] = [np.zeros(0)] * len(rows)
    for chosen, inputs in _batches(model, rows, pad, batch_size):
        _keep(found, rows, chosen, _hidden(model, inputs))
        advance(len(chosen))
    return found


def _keep(found: list[np.ndarray], rows: Sequence[dict[str, Any]], chosen: list[int], values: torch.Tensor) -> None:
    for index, row in zip(chosen, values.cpu().numpy(), strict=True):
        found[index] = row[rows[index]["places"]].reshape(-1, row.shape[-1])


def _hidden(model: PretrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """Last hidden states, (rows, length, hidden), fp32."""
    body = model.base_model.get_encoder() if model.config.is_encoder_decoder else model.base_model
    with torch.inference_mode():
        return body(**inputs).last_hidden_state.float()


def _batches(
    model: PretrainedModel, rows: Sequence[dict[str, Any]], pad: int, batch_size: int
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """Places of rows of like length, and their inputs on the model's device."""
    order = sorted(range(len(rows)), key=lambda index: (len(rows[index]["input_ids"]), index))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = padded([rows[index] for index in chosen], pad)
        yield chosen, {name: tensor.to(model.device) for name, tensor in batch.items()}
