"""The loss: what it is taken over, and how its logits are made.

For instructions, logits exist at supervised positions only. A part of an instruction data set's tokens is supervised
(seven tenths of Alpaca's), and a vocabulary is wide: logits for the rest are work for nothing. A pre-hook on the output
embedding keeps only the hidden states that predict a supervised token, whatever the architecture does before it. Where
nothing of the output embedding is trained, it is applied to some of them at a time, and their gradient is taken at
once: the logits of a whole pass, several times the size of all else, never exist together.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from biasline.bitfit.pretrained import PretrainedModel
from biasline.errors import first_line
from biasline.tokens.saved import IGNORED
from biasline.training.devices import profile_of


@dataclass(frozen=True)
class Batch:
    """Right-padded rows.

    Attributes:
        inputs: the model's inputs, int64, (rows, length): `input_ids`, `attention_mask`, and `token_type_ids` where the
            token set has them.
        labels: int64, (rows, length) with `IGNORED` where nothing is supervised; or (rows,) class numbers, int64, or
            scores, fp32; or 1 for each label that a row has, else 0, fp32, (rows, labels).
        rows: the rows' numbers in the raw file.
        counts: whether its losses are part of anything; else it is there to keep other processes company.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    rows: tuple[int, ...]
    counts: bool = True

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()}
        return replace(self, inputs=inputs, labels=self.labels.to(device, non_blocking=True))

    def part(self, rows: slice) -> "Batch":
        """Some of its rows."""
        inputs = {name: tensor[rows] for name, tensor in self.inputs.items()}
        return replace(self, inputs=inputs, labels=self.labels[rows], rows=self.rows[rows])

    def pinned(self) -> "Batch":
        """In memory from which an accelerator copies while it computes."""
        inputs = {name: tensor.pin_memory() for name, tensor in self.inputs.items()}
        return replace(self, inputs=inputs, labels=self.labels.pin_memory())


class Way(IntEnum):
    """How logits are made: of few supervised tokens at a time, of all supervised tokens, or of all tokens."""

    FEW, SUPERVISED, PLAIN = range(3)


class Objective(ABC):
    """What the loss is taken over.

    Attributes:
        labelled: whether targets are labels of rows, of which the share that is right says what a model is worth.
        way: how logits are made, which `check` chooses.
    """

    labelled = False
    way = Way.FEW

    @abstractmethod
    def collate(self, examples: Sequence[dict[str, Any]], pad: int) -> Batch:
        """Pad examples of a token set on the right to the longest of them."""

    def targets(self, examples: Sequence[dict[str, Any]]) -> int:
        """How many targets some examples have: one each, unless an objective says otherwise."""
        return len(examples)

    @abstractmethod
    def losses(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The loss of each target of a batch, (targets,), fp32."""

    def judged(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The losses; of labels 1 where the right one is the likeliest, else 0; and its weight: (targets,) each."""
        losses = self.losses(model, batch)
        return losses, torch.zeros_like(losses), torch.ones_like(losses)

    def check(self, model: nn.Module, batch: Batch) -> str:
        """Choose the shortest way to make logits that gives this model's plain ones, tried on one batch.

        Returns:
            why the plain way is taken from now on; empty where a shorter one will do, or nothing is cut short.
        """
        return ""


class ResponseTokens(Objective):
    """The tokens of the response, end-of-sequence included; classes are the vocabulary."""

    def collate(self, examples: Sequence[dict[str, Any]], pad: int) -> Batch:
        """Padded rows; the labels are tokens where they are supervised, else `IGNORED`."""
        inputs = padded(examples, pad)
        labels = np.full(inputs["input_ids"].shape, IGNORED, np.int64)
        for index, example in enumerate(examples):
            labels[index, : len(example["labels"])] = example["labels"]
        return Batch(inputs, torch.from_numpy(labels), tuple(example["row"] for example in examples))

    def targets(self, examples: Sequence[dict[str, Any]]) -> int:
        """Number of supervised tokens."""
        # The first position has no logit before it, so that it could not be a target.
        return sum(int((np.asarray(example["labels"])[1:] != IGNORED).sum()) for example in examples)

    def losses(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The loss of each supervised token, by the way that `check` chose."""
        if self.way == Way.FEW:
            return chunked_losses(model, batch)
        return target_losses(*(plain_logits if self.way == Way.PLAIN else supervised_logits)(model, batch))

    def check(self, model: nn.Module, batch: Batch) -> str:
        """Try the shorter ways; a model whose logits they change gets the plain one."""
        why = _differs_from_plain(model, batch)
        if why:
            self.way = Way.PLAIN
            return f"logits are made for all tokens, which takes longer: {why}"
        # For a model that does something to its logits, in the middle: nothing to be told.
        self.way = Way.FEW if _head_is_last(model, batch) else Way.SUPERVISED
        return ""


class WordTags(ResponseTokens):
    """The tag of each word, at its first token; classes are the tag names.

    Unlike a language model's, a label is of the token that it stands at, not of the one before.
    """

    labelled = True

    def targets(self, examples: Sequence[dict[str, Any]]) -> int:
        """Number of tagged words."""
        return sum(int((np.asarray(example["labels"]) != IGNORED).sum()) for example in examples)

    def losses(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The loss of each tagged word."""
        return self.judged(model, batch)[0]

    def judged(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The losses, whether each word's tag is right, and weights of 1."""
        chosen = batch.labels != IGNORED
        logits, tags = model(**batch.inputs).logits[chosen], batch.labels[chosen]
        losses = target_losses(logits, tags)
        return losses, logits.argmax(-1) == tags, torch.ones_like(losses)

    def check(self, model: nn.Module, batch: Batch) -> str:
        """Logits are few as they are: nothing is cut short."""
        return ""


class ClassLabels(Objective):
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
        """Rows with their class numbers."""
        labels = torch.tensor([example["labels"] for example in examples], dtype=torch.int64)
        return Batch(padded(examples, pad), labels, tuple(example["row"] for example in examples))

    def losses(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The weighted loss of each row."""
        return self.judged(model, batch)[0]

    def judged(self, model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The weighted losses, whether each row is right, and the rows' weights."""
        logits = model(**batch.inputs).logits
        losses, hits = target_losses(logits, batch.labels), logits.argmax(-1) == batch.labels
        weights = torch.ones_like(losses) if self.weights is None else self.weights.to(losses.device)[batch.labels]
        return losses * weights, hits, weights


class LabelSets(Objective):
    """Any number of labels of each row: binary cross entropy of each label by itself, their mean being the row's."""

    def collate(self, examples: Sequence[dict[str, Any]], pad: int) -> Batch:
        """Rows with 1 for each label that they have, else 0."""
        labels = torch.from_numpy(np.array([example["labels"] for example in examples], np.float32))
        return Batch(padded(examples, pad), labels, tuple(example["row"] for example in examples))

    def losses(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The mean loss of each row's labels."""
        logits = model(**batch.inputs).logits.float()
        return functional.binary_cross_entropy_with_logits(logits, batch.labels, reduction="none").mean(-1)


class Scores(Objective):
    """The score of each row: half-squared errors in units of the training scores' standard deviation.

    Args:
        mean, std: of the training rows' scores.
    """

    def __init__(self, mean: float, std: float) -> None:
        self.mean, self.std = mean, std

    def collate(self, examples: Sequence[dict[str, Any]], pad: int) -> Batch:
        """Rows with their scores, in the data's own units."""
        scores = torch.tensor([example["labels"] for example in examples], dtype=torch.float32)
        return Batch(padded(examples, pad), scores, tuple(example["row"] for example in examples))

    def losses(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """Half the squared error of each row, in units of the standard deviation."""
        given = model(**batch.inputs).logits.float().squeeze(-1)
        return 0.5 * (given - (batch.labels - self.mean) / self.std).square()


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


def supervised_logits(model: nn.Module, batch: Batch, **given: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that predict supervised tokens, and those tokens.

    Args:
        model: a causal language model.
        batch: rows.
        given: further inputs of the model.

    Returns:
        (supervised tokens, vocabulary) in the model's dtype, and (supervised tokens,) int64; in reading order, row by
        row.
    """
    targets = batch.labels[:, 1:]
    chosen = targets != IGNORED
    with _only(model, chosen):
        output = model(**batch.inputs, **given, use_cache=False)
    return output.logits, targets[chosen]


def target_losses(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Negative log-likelihood of each target, (targets,), fp32."""
    return functional.cross_entropy(logits.float(), targets, reduction="none")


def plain_logits(model: nn.Module, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """As `supervised_logits`, from the logits of every position, whatever the model does to make them."""
    targets = batch.labels[:, 1:]
    chosen = targets != IGNORED
    return model(**batch.inputs, use_cache=False).logits[:, :-1][chosen], targets[chosen]


def chunked_losses(model: nn.Module, batch: Batch) -> torch.Tensor:
    """The losses of `supervised_logits`, with the logits of few targets at a time.

    What the model does to its logits after the output embedding is left out.
    """
    head = cast(PretrainedModel, model).get_output_embeddings()
    if any(part.requires_grad for part in head.parameters()) or not hasattr(head, "weight"):
        return target_losses(*supervised_logits(model, batch))
    targets = batch.labels[:, 1:]
    chosen = targets != IGNORED
    hidden: list[torch.Tensor] = []
    with _only(model, chosen, hidden):
        model(**batch.inputs, use_cache=False)
    size = max(_LEAST, profile_of(targets.device).logits // head.weight.shape[0])
    return _Chunked.apply(hidden[0], targets[chosen], head, size)


# Targets whose logits are made at one time, at the least and whatever the vocabulary: each chunk reads the whole
# embedding.
_LEAST = 32


class _Chunked(torch.autograd.Function):
    """Losses of a frozen output embedding.

    The loss of a target depends on its own hidden state alone. So the gradient can be taken at once, with logits that
    are then forgotten, and be scaled when it is known what the loss counts.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, targets: torch.Tensor, head: Callable[[torch.Tensor], torch.Tensor], size: int
    ) -> torch.Tensor:
        losses, gradients = [], []
        for states, numbers in zip(hidden.split(size), targets.split(size), strict=True):
            with torch.set_grad_enabled(ctx.needs_input_grad[0]):
                states = states.detach().requires_grad_(ctx.needs_input_grad[0])
                found = target_losses(head(states), numbers)
            losses.append(found.detach())
            if ctx.needs_input_grad[0]:
                gradients += torch.autograd.grad(found, states, torch.ones_like(found))
        if gradients:
            ctx.save_for_backward(torch.cat(gradients))
        return torch.cat(losses) if losses else hidden.new_zeros(0, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        [gradients] = ctx.saved_tensors
        return (given[0].unsqueeze(-1) * gradients).to(gradients), None, None, None


@torch.no_grad()
def _differs_from_plain(model: nn.Module, batch: Batch) -> str:
    """Why logits of supervised positions alone are not this model's plain ones; empty if they are.

    Such is a model whose head mixes positions. Logits are compared, not losses: where a model is sure of its answers,
    losses are nothing, whatever the logits.
    """
    batch = batch.part(slice(2))  # the logits of a whole batch would be the most that a training ever holds
    with _evaluating(model):
        expected, _ = plain_logits(model, batch)
        try:
            short, _ = supervised_logits(model, batch)
        except Exception as error:  # whatever a model of someone else's does with logits of another shape
            return f"{type(model).__name__} takes no others ({first_line(error)})"
    tolerance = 1e-4 if next(model.parameters()).dtype == torch.float32 else 5e-2
    size = max(1.0, float(expected.abs().max())) if expected.isfinite().all() else 1.0
    if short.shape == expected.shape and torch.allclose(short, expected, 0.0, tolerance * size, equal_nan=True):
        return ""
    return f"those of {type(model).__name__} are others"


@torch.no_grad()
def _head_is_last(model: nn.Module, batch: Batch) -> bool:
    """Whether a model returns what its output embedding gives, as it is.

    Seen by putting values in its place that no scale and no bound leaves as they are.
    """
    head = cast(PretrainedModel, model).get_output_embeddings()
    given: list[torch.Tensor] = []

    def put(_: nn.Module, __: Any, logits: torch.Tensor) -> torch.Tensor:
        given.append(torch.linspace(-1000, 1000, logits.numel(), device=logits.device).to(logits).view_as(logits))
        return given[-1]

    batch = batch.part(slice(1))
    handle = head.register_forward_hook(put)
    try:
        with _evaluating(model), _only(model, batch.labels[:, 1:] != IGNORED, []):
            returned = model(**batch.inputs, use_cache=False).logits
    finally:
        handle.remove()
    return len(given) == 1 and torch.equal(returned.float(), given[0].float())


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextmanager
def _only(model: nn.Module, chosen: torch.Tensor, kept: list[torch.Tensor] | None = None) -> Iterator[None]:
    """Let the output embedding see these positions only; or the first of them, and the rest in `kept`."""
    head = cast(PretrainedModel, model).get_output_embeddings()

    def keep(_: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        states = args[0][:, :-1][chosen]
        if kept is None:
            return (states, *args[1:])
        kept.append(states)
        return (states[:1].detach(), *args[1:])

    handle = head.register_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()
