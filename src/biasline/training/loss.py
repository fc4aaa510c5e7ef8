"""The loss: what it is taken over, and how its logits are made.

For instructions, logits exist at supervised positions only. Seven tenths of an instruction data set's tokens at most
are supervised, and a vocabulary is wide: logits for the rest are work for nothing. A pre-hook on the output embedding
keeps only the hidden states that predict a supervised token, whatever the architecture does before it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from biasline.errors import first_line
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
        counts: whether its losses are part of anything; else it is there to keep other processes company.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    rows: tuple[int, ...]
    counts: bool = True

    def to(self, device: torch.device) -> "Batch":
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()}
        return replace(self, inputs=inputs, labels=self.labels.to(device, non_blocking=True))

    def pinned(self) -> "Batch":
        """In memory from which an accelerator copies while it computes."""
        inputs = {name: tensor.pin_memory() for name, tensor in self.inputs.items()}
        return replace(self, inputs=inputs, labels=self.labels.pin_memory())


class Objective(Protocol):
    """What the loss is taken over.

    Attributes:
        labelled: whether targets are labels of rows, of which the share that is right says what a model is worth.
    """

    labelled: bool

    def collate(self, examples: Sequence[dict[str, Any]], pad: int) -> Batch:
        """Pad examples of a token set on the right to the longest of them."""

    def targets(self, examples: Sequence[dict[str, Any]]) -> int:
        """How many targets some examples have."""

    def losses(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The loss of each target of a batch, (targets,), fp32."""

    def judged(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The losses; 1 where the target is the likeliest one of all, else 0; and its weight: (targets,) each."""

    def check(self, model: nn.Module, batch: Batch) -> str:
        """Hold the way logits are made against the plain one, once, on the first batch.

        Returns: why the plain way is taken from now on; empty where both are the same.
        """


class ResponseTokens:
    """The tokens of the response, end-of-sequence included; classes are the vocabulary."""

    labelled = False

    def __init__(self) -> None:
        self._logits = supervised_logits

    def collate(self, examples: Sequence[dict[str, Any]], pad: int) -> Batch:
        inputs = padded(examples, pad)
        labels = np.full(inputs["input_ids"].shape, IGNORED, np.int64)
        for index, example in enumerate(examples):
            labels[index, : len(example["labels"])] = example["labels"]
        return Batch(inputs, torch.from_numpy(labels), tuple(example["row"] for example in examples))

    def targets(self, examples: Sequence[dict[str, Any]]) -> int:
        # The first position has no logit before it, so that it could not be a target.
        return sum(int((np.asarray(example["labels"])[1:] != IGNORED).sum()) for example in examples)

    def losses(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return target_losses(*self._logits(model, batch))

    def judged(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        losses = self.losses(model, batch)
        return losses, torch.zeros_like(losses), torch.ones_like(losses)

    def check(self, model: nn.Module, batch: Batch) -> str:
        if not (why := differs_from_plain(model, batch)):
            return ""
        self._logits = plain_logits
        return f"logits are made for all tokens, which takes longer: {why}"


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

    def collate(self, examples: Sequence[dict[str, Any]], pad: int) -> Batch:
        labels = torch.tensor([example["labels"] for example in examples], dtype=torch.int64)
        return Batch(padded(examples, pad), labels, tuple(example["row"] for example in examples))

    def targets(self, examples: Sequence[dict[str, Any]]) -> int:
        return len(examples)

    def losses(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        return self.judged(model, batch)[0]

    def judged(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        logits = model(**batch.inputs).logits
        losses, hits = target_losses(logits, batch.labels), logits.argmax(-1) == batch.labels
        weights = torch.ones_like(losses) if self.weights is None else self.weights.to(losses.device)[batch.labels]
        return losses * weights, hits, weights

    def check(self, model: nn.Module, batch: Batch) -> str:
        """Nothing is cut short here."""
        return ""


class Scores:
    """The score of each row: half-squared errors in units of the training scores' standard deviation.

    Args:
        mean, std: of the training rows' scores.
    """

    labelled = False

    def __init__(self, mean: float, std: float) -> None:
        self.mean, self.std = mean, std

    def collate(self, examples: Sequence[dict[str, Any]], pad: int) -> Batch:
        scores = torch.tensor([example["labels"] for example in examples], dtype=torch.float32)
        return Batch(padded(examples, pad), scores, tuple(example["row"] for example in examples))

    def targets(self, examples: Sequence[dict[str, Any]]) -> int:
        return len(examples)

    def losses(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        given = model(**batch.inputs).logits.float().squeeze(-1)
        return 0.5 * (given - (batch.labels - self.mean) / self.std).square()

    def judged(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        losses = self.losses(model, batch)
        return losses, torch.zeros_like(losses), torch.ones_like(losses)

    def check(self, model: nn.Module, batch: Batch) -> str:
        """Nothing is cut short here."""
        return ""


def padded(examples: Sequence[dict[str, Any]], pad: int) -> dict[str, torch.Tensor]:
    """A model's inputs from rows of `input_ids` (and `token_type_ids`), padded on the right, with their mask."""
    shape = (len(examples), max(len(example["input_ids"]) for example in examples))
    inputs = {"input_ids": np.full(shape, pad, np.int64), "attention_mask": np.zeros(shape, np.int64)}
    if "token_type_ids" in examples[0]:
        inputs["token_type_ids"] = np.zeros(shape, np.int64)
    given = [name for name in inputs if name in examples[0]]
    for index, example in enumerate(examples):
        size = len(example["input_ids"])
        inputs["attention_mask"][index, :size] = 1
        for name in given:
            inputs[name][index, :size] = example[name]
    return {name: torch.from_numpy(values) for name, values in inputs.items()}


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


def plain_logits(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """As `supervised_logits`, from the logits of every position, whatever the model does to make them."""
    targets = batch.labels[:, 1:]
    chosen = targets != IGNORED
    return model(**batch.inputs, use_cache=False).logits[:, :-1][chosen], targets[chosen]


@torch.no_grad()
def differs_from_plain(model: nn.Module, batch: Batch) -> str:
    """Why logits at supervised positions only are not this model's plain ones, tried on one batch; empty if they are.

    Such is a model whose head mixes positions, or that looks at all of its logits afterwards.
    """
    training = model.training
    model.eval()
    try:
        expected = target_losses(*plain_logits(model, batch))
        try:
            short = target_losses(*supervised_logits(model, batch))
        except Exception as error:  # whatever a model of someone else's does with logits of another shape
            return f"{type(model).__name__} takes no others ({first_line(error)})"
    finally:
        model.train(training)
    tolerance = 1e-4 if next(model.parameters()).dtype == torch.float32 else 5e-2
    if torch.allclose(short, expected, rtol=tolerance, atol=tolerance, equal_nan=True):
        return ""
    return f"those of {type(model).__name__} are others (loss {expected.mean():.6f}, not {short.mean():.6f})"


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
