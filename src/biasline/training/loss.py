"""The loss: what it is taken over, and how its logits are made.

For instructions, logits exist at supervised positions only. Seven tenths of an instruction data set's tokens at most
are supervised, and a vocabulary is wide: logits for the rest are work for nothing. A pre-hook on the output embedding
keeps only the hidden states that predict a supervised token, whatever the architecture does before it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.nn import functional

from biasline.errors import BiaslineError
from biasline.tokens.mask import IGNORED


@dataclass(frozen=True)
class Batch:
    """Right-padded rows.

    Attributes:
        inputs: the model's inputs, int64, (rows, length): `input_ids`, `attention_mask`, and `token_type_ids` where the
            token set has them.
        labels: int64, (rows, length) with `IGNORED` where nothing is supervised; or (rows,) class numbers, int64, or
            scores, fp32.
        rows: the rows' numbers in the raw file.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    rows: tuple[int, ...]

    def to(self, device: torch.device) -> "Batch":
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()}
        return Batch(inputs, self.labels.to(device, non_blocking=True), self.rows)


class Objective(Protocol):
    """What the loss is taken over.

    Attributes:
        labelled: whether targets are labels of rows, of which the share that is right says what a model is worth.
    """

    labelled: bool

    def collate(self, examples: list[dict[str, Any]], pad: int) -> Batch:
        """Pad examples of a token set on the right to the longest of them."""

    def targets(self, columns: dict[str, list[Any]]) -> int:
        """How many targets some rows, given as columns, have."""

    def losses(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The loss of each target of a batch, (targets,), fp32."""

    def judged(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The losses; 1 where the target is the likeliest one of all, else 0; and its weight: (targets,) each."""

    def check(self, model: nn.Module, batch: Batch) -> None:
        """Hold the way logits are made against the plain one, once, on the first batch."""


class ResponseTokens:
    """The tokens of the response, end-of-sequence included; classes are the vocabulary."""

    labelled = False

    def collate(self, examples: list[dict[str, Any]], pad: int) -> Batch:
        inputs = padded(examples, pad)
        labels = torch.full_like(inputs["input_ids"], IGNORED)
        for index, example in enumerate(examples):
            labels[index, : len(example["labels"])] = torch.tensor(example["labels"])
        return Batch(inputs, labels, tuple(example["row"] for example in examples))

    def targets(self, columns: dict[str, list[Any]]) -> int:
        # The first position has no logit before it, so that it could not be a target.
        return sum(label != IGNORED for labels in columns["labels"] for label in labels[1:])

    def losses(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return target_losses(*supervised_logits(model, batch))

    def judged(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        losses = self.losses(model, batch)
        return losses, torch.zeros_like(losses), torch.ones_like(losses)

    def check(self, model: nn.Module, batch: Batch) -> None:
        check_against_plain(model, batch)


class ClassLabels:
    """The label of each row; classes are the label names.

    Args:
        weights: of each class in the loss, (classes,); equal ones if left out.
    """

    labelled = True

    def __init__(self, weights: torch.Tensor | None = None) -> None:
        self.weights = weights

    @classmethod
    def balanced(cls, labels: Sequence[int], classes: int) -> "ClassLabels":
        """Weights by which each class that has rows counts the same; their mean over the rows is 1."""
        counts = torch.bincount(torch.tensor(labels), minlength=classes).float()
        present = int((counts > 0).sum())
        return cls(torch.where(counts > 0, len(labels) / (present * counts), 0.0))

    def collate(self, examples: list[dict[str, Any]], pad: int) -> Batch:
        labels = torch.tensor([example["labels"] for example in examples], dtype=torch.int64)
        return Batch(padded(examples, pad), labels, tuple(example["row"] for example in examples))

    def targets(self, columns: dict[str, list[Any]]) -> int:
        return len(columns["labels"])

    def losses(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return self.judged(model, batch)[0]

    def judged(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits = model(**batch.inputs).logits
        losses, hits = target_losses(logits, batch.labels), logits.argmax(-1) == batch.labels
        weights = torch.ones_like(losses) if self.weights is None else self.weights.to(losses.device)[batch.labels]
        return losses * weights, hits, weights

    def check(self, model: nn.Module, batch: Batch) -> None:
        """Nothing is cut short here."""


class Scores:
    """The score of each row: half-squared errors in units of the training scores' standard deviation.

    Args:
        mean, std: of the training rows' scores.
    """

    labelled = False

    def __init__(self, mean: float, std: float) -> None:
        self.mean, self.std = mean, std

    def collate(self, examples: list[dict[str, Any]], pad: int) -> Batch:
        scores = torch.tensor([example["labels"] for example in examples], dtype=torch.float32)
        return Batch(padded(examples, pad), scores, tuple(example["row"] for example in examples))

    def targets(self, columns: dict[str, list[Any]]) -> int:
        return len(columns["labels"])

    def losses(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        given = model(**batch.inputs).logits.float().squeeze(-1)
        return 0.5 * (given - (batch.labels - self.mean) / self.std).square()

    def judged(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        losses = self.losses(model, batch)
        return losses, torch.zeros_like(losses), torch.ones_like(losses)

    def check(self, model: nn.Module, batch: Batch) -> None:
        """Nothing is cut short here."""


def padded(examples: list[dict[str, Any]], pad: int) -> dict[str, torch.Tensor]:
    """A model's inputs from rows of `input_ids` (and `token_type_ids`), padded on the right, with their mask."""
    shape = (len(examples), max(len(example["input_ids"]) for example in examples))
    inputs = {
        "input_ids": torch.full(shape, pad, dtype=torch.int64),
        "attention_mask": torch.zeros(shape, dtype=torch.int64),
    }
    if "token_type_ids" in examples[0]:
        inputs["token_type_ids"] = torch.zeros(shape, dtype=torch.int64)
    given = [name for name in inputs if name in examples[0]]
    for index, example in enumerate(examples):
        size = len(example["input_ids"])
        inputs["attention_mask"][index, :size] = 1
        for name in given:
            inputs[name][index, :size] = torch.tensor(example[name])
    return inputs


def supervised_logits(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that predict supervised tokens, and those tokens.

    Returns: (supervised tokens, vocabulary) in the model's dtype, and (supervised tokens,) int64; in reading order,
    row by row.
    """
    targets = batch.labels[:, 1:]
    chosen = targets != IGNORED
    with _only(model, chosen):
        output = model(**batch.inputs, use_cache=False)
    return output.logits, targets[chosen]


def target_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of each target, (targets,), fp32."""
    return functional.cross_entropy(logits.float(), targets, reduction="none")


def check_against_plain(model: nn.Module, batch: Batch) -> None:
    """Hold the short way against the model's plain logits on one batch.

    Errors: `BiaslineError` where they differ, as for a model whose head mixes positions.
    """
    training = model.training
    model.eval()
    with torch.no_grad():
        short, targets = supervised_logits(model, batch)
        plain = model(**batch.inputs, use_cache=False).logits
    model.train(training)
    plain = plain[:, :-1][batch.labels[:, 1:] != IGNORED]
    tolerance = 1e-4 if short.dtype == torch.float32 else 5e-2
    losses, expected = target_losses(short, targets), target_losses(plain, targets)
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
