"""A new head's first values: the best linear reading of the frozen base, so that training goes on from there.

From random values a head of many labels takes most of a short training to get where a regression gets in seconds.
Kumar et al. (2022), "Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution", begin so too.

Where the base is tuned as well, the labels are the regression's and its sureness is not: outputs begin at `SMALL` of
their size. A head that explains the training rows by itself leaves little to learn for what is below it; of one with
small outputs most of the learning is done there (Chizat et al. 2019, "On Lazy Training in Differentiable Programming").
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import nn

from biasline.bitfit.pretrained import PretrainedModel
from biasline.progress import progress
from biasline.training.loop import Sets
from biasline.training.loss import Batch, Objective

# Training rows that it is fitted on at most, evenly spread, and numbers of hidden states times outputs per step.
_ROWS, _WORK = 20_000, 8e9
# Weights of the penalty on squared weights, the heaviest first: the validation rows choose.
_PENALTIES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4)
_STEPS = 60
# Of the training rows one in so many chooses where there are too few validation rows.
_FEWEST, _HELD_OUT = 20, 5
_BATCH = 64
# Share of the fitted outputs that a head begins with where more than it is trained. On 1,000 rows of SST-2 all of them
# cost BitFit 1.7 points (benchmarks/study, cells `sst2-1000-start-0` and `sst2-1000-head-0.1-0`).
SMALL = 0.1


def last_linear(model: nn.Module, head: Sequence[str]) -> tuple[nn.Module, str, nn.Linear] | None:
    """The layer of a head that gives its outputs: the module around it, its name there, and itself.

    None where the head's last layer is no linear one, or is not among what is trained.

    Args:
        model: with a head.
        head: names of the parameters of a new head.
    """
    outputs = getattr(model.config, "num_labels", 0)
    for name in reversed(head):
        path, _, kind = name.rpartition(".")
        module = model.get_submodule(path)
        if kind == "weight" and isinstance(module, nn.Linear) and module.out_features == outputs:
            around, _, attribute = path.rpartition(".")
            return model.get_submodule(around), attribute, module
    return None


def start_head(model: PretrainedModel, head: Sequence[str], sets: Sets, share: float = 1.0) -> dict[str, torch.Tensor]:
    """Fit a new head's last layer to the training rows, the base and all else of the head as they are.

    Args:
        model: the base with the new head.
        head: names of the head's parameters.
        sets: training and validation rows.
        share: of the fitted outputs, by which the values are made smaller; the likeliest labels stay the same.

    Returns:
        name → value of the layer's parameters, in fp32; nothing where the head has no such layer.
    """
    found = last_linear(model, head)
    if found is None:
        return {}
    around, attribute, layer = found
    wide = min(_ROWS, max(int(_WORK / (layer.in_features * layer.out_features)), 1))
    rows = _spread(sets.train, wide)
    judges = _spread(sets.valid, wide) if len(sets.valid) >= _FEWEST else rows[::_HELD_OUT]
    if len(sets.valid) < _FEWEST and len(rows) >= _FEWEST:
        rows = [row for place, row in enumerate(rows) if place % _HELD_OUT]
    setattr(around, attribute, nn.Identity())
    try:
        with progress("head", len(rows) + len(judges)) as shown:
            seen, asked = (
                _read(model, part, sets.objective, sets.pad, shown.part(note="what a new head starts from"))
                for part in (rows, judges)
            )
    finally:
        setattr(around, attribute, layer)
    weight, bias = _fitted(seen, asked, layer, sets.objective)
    name = next(name for name, part in model.named_parameters() if part is layer.weight)
    values = {name: share * weight}
    if layer.bias is not None:
        values[name.removesuffix("weight") + "bias"] = share * bias
    return values


_Read = list[tuple[torch.Tensor, Batch]]


def _spread(rows: Any, count: int) -> list[dict[str, Any]]:
    return rows.select(np.unique(np.linspace(0, len(rows) - 1, count).astype(int))).to_list() if len(rows) else []


def _read(model: PretrainedModel, rows: list[dict[str, Any]], objective: Objective, pad: int, advance: Any) -> _Read:
    """What the layer reads, batch by batch."""
    model.eval()
    order = sorted(range(len(rows)), key=lambda place: (len(rows[place]["input_ids"]), place))
    found = []
    for start in range(0, len(order), _BATCH):
        batch = objective.collate([rows[place] for place in order[start : start + _BATCH]], pad).to(model.device)
        with torch.inference_mode():
            found.append((model(**batch.inputs).logits.float().clone(), batch))
        advance(len(batch.rows))
    return [(torch.empty_like(read).copy_(read), batch) for read, batch in found]


class _Head(nn.Module):
    """A linear layer on hidden states that were read before."""

    def __init__(self, inner: int, outputs: int, device: torch.device) -> None:
        super().__init__()
        self.layer = nn.Linear(inner, outputs, device=device)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        self.read: torch.Tensor | None = None

    def forward(self, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(logits=self.layer(self.read))


def _closure(
    head: _Head, optimizer: torch.optim.Optimizer, loss: Callable[[], torch.Tensor], penalty: float
) -> torch.Tensor:
    optimizer.zero_grad()
    value = loss() + 0.5 * penalty * head.layer.weight.square().sum()
    value.backward()
    return value


def _fitted(seen: _Read, asked: _Read, layer: nn.Linear, objective: Objective) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias, of the penalty that the other rows are told best with."""
    device = layer.weight.device
    width = layer.in_features
    every = torch.cat([read.reshape(-1, width) for read, _ in seen])
    mean, deviation = every.mean(0), every.std(0).clamp(min=1e-6)
    seen, asked = ([((read - mean) / deviation, batch) for read, batch in part] for part in (seen, asked))
    head = _Head(width, layer.out_features, device)

    def loss(part: _Read) -> torch.Tensor:
        total, count = torch.zeros((), device=device), 0
        for head.read, batch in part:
            losses = objective.losses(head, batch)
            total, count = total + losses.sum(), count + losses.numel()
        return total / max(count, 1)

    best, kept = math.inf, (layer.weight.detach().float().clone(), torch.zeros(layer.out_features))
    for penalty in _PENALTIES:
        optimizer = torch.optim.LBFGS(head.parameters(), max_iter=_STEPS, line_search_fn="strong_wolfe")

        optimizer.step(partial(_closure, head, optimizer, partial(loss, seen), penalty))
        with torch.no_grad():
            told = float(loss(asked))
            if told < best:
                weight = head.layer.weight / deviation
                best, kept = told, (weight.cpu(), (head.layer.bias - weight @ mean).cpu())
    return kept
