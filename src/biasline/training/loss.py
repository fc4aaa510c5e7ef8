"""The loss, with logits at supervised positions only.

Seven tenths of an instruction data set's tokens at most are supervised, and a vocabulary is wide: logits for the rest
are work for nothing. A pre-hook on the output embedding keeps only the hidden states that predict a supervised token,
whatever the architecture does before it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from biasline.errors import BiaslineError
from biasline.tokens.mask import IGNORED


@dataclass(frozen=True)
class Batch:
    """Right-padded rows.

    Attributes:
        input_ids, attention_mask, labels: int64, (rows, length); labels are `IGNORED` where nothing is supervised.
        rows: the rows' numbers in the raw file.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor
    rows: tuple[int, ...]

    def to(self, device: torch.device) -> "Batch":
        tensors = (self.input_ids, self.attention_mask, self.labels)
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in tensors), self.rows)


def collate(examples: list[dict[str, Any]], pad: int) -> Batch:
    """Pad examples (`row`, `input_ids`, `labels`) on the right to the longest of them."""
    length = max(len(example["input_ids"]) for example in examples)
    input_ids = torch.full((len(examples), length), pad, dtype=torch.int64)
    labels = torch.full((len(examples), length), IGNORED, dtype=torch.int64)
    attention_mask = torch.zeros((len(examples), length), dtype=torch.int64)
    for index, example in enumerate(examples):
        size = len(example["input_ids"])
        input_ids[index, :size] = torch.tensor(example["input_ids"])
        labels[index, :size] = torch.tensor(example["labels"])
        attention_mask[index, :size] = 1
    return Batch(input_ids, attention_mask, labels, tuple(example["row"] for example in examples))


def supervised_logits(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that predict supervised tokens, and those tokens.

    Returns: (supervised tokens, vocabulary) in the model's dtype, and (supervised tokens,) int64; in reading order,
    row by row.
    """
    targets = batch.labels[:, 1:]
    chosen = targets != IGNORED
    with _only(model, chosen):
        output = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
    return output.logits, targets[chosen]


def token_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of each target, (supervised tokens,), fp32."""
    return functional.cross_entropy(logits.float(), targets, reduction="none")


def check_against_plain(model: nn.Module, batch: Batch) -> None:
    """Hold the short way against the model's plain logits on one batch.

    Errors: `BiaslineError` where they differ, as for a model whose head mixes positions.
    """
    training = model.training
    model.eval()
    with torch.no_grad():
        short, targets = supervised_logits(model, batch)
        plain = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False).logits
    model.train(training)
    plain = plain[:, :-1][batch.labels[:, 1:] != IGNORED]
    tolerance = 1e-4 if short.dtype == torch.float32 else 5e-2
    losses, expected = token_losses(short, targets), token_losses(plain, targets)
    if not torch.allclose(losses, expected, rtol=tolerance, atol=tolerance, equal_nan=True):
        raise BiaslineError(
            f"{type(model).__name__}: logits at supervised positions differ from the plain ones "
            f"(loss {losses.mean():.6f} against {expected.mean():.6f})",
            "this architecture's output layer is not supported yet",
        )


@contextmanager
def _only(model: nn.Module, chosen: torch.Tensor) -> Iterator[None]:
    head = model.get_output_embeddings()  # type: ignore[operator]

    def keep(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0][:, :-1][chosen], *args[1:])

    handle = head.register_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()
