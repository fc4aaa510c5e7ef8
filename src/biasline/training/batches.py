"""Which rows make which step, and how a step's rows share forward passes.

Both are pure functions of parameters, seed and step, so that nothing needs to be remembered.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from biasline.params import Train
from biasline.training.devices import profile_of

# Passes where parameters name none, and steps that are enough of them: benchmarks/study, cells `steps-3` and `start`.
_FEWEST, _MOST, _ENOUGH = 3.0, 12.0, 2_250


def passes(rows: int, params: Train) -> float:
    """Passes over so many training rows, before `min_steps` lengthens them."""
    if params.epochs is not None:
        return params.epochs
    return max(_FEWEST, min(_MOST, _ENOUGH / math.ceil(rows / params.batch_size))) if rows else _FEWEST


@dataclass(frozen=True)
class Plan:
    """Steps over a training set.

    Attributes:
        rows: size of the training set.
        batch_size: rows per optimizer step; the last step of an epoch takes what is left.
        total_steps: optimizer steps in all.
        seed: with the epoch's number it fixes the epoch's order.
    """

    rows: int
    batch_size: int
    total_steps: int
    seed: int

    @classmethod
    def of(cls, rows: int, params: Train) -> "Plan":
        """The plan for `passes`, lengthened to `min_steps` where that is more."""
        steps = math.ceil(round(math.ceil(rows / params.batch_size) * passes(rows, params), 6))  # 1.1 × 100 is 110
        return cls(rows, params.batch_size, max(steps, params.min_steps), params.seed)

    @property
    def steps_per_epoch(self) -> int:
        """Steps that one pass over the rows takes; the last may be of fewer rows."""
        return math.ceil(self.rows / self.batch_size)

    def epoch(self, step: int) -> float:
        """Passes finished after `step` steps."""
        return step / self.steps_per_epoch

    def indices(self, step: int) -> list[int]:
        """Row indices of the step number `step`, from 0: each row once an epoch, in an order of the epoch's own."""
        epoch, within = divmod(step, self.steps_per_epoch)
        order = _order(self.rows, self.seed * 1_000_003 + epoch)
        return order[within * self.batch_size : (within + 1) * self.batch_size].tolist()


@dataclass(frozen=True)
class BalancedPlan(Plan):
    """Steps in which each of several groups of rows has the same part, however many rows it has.

    Attributes:
        groups: places of the rows of each group, which has one at least.
    """

    groups: tuple[tuple[int, ...], ...] = ()

    def indices(self, step: int) -> list[int]:
        """Row indices of the step number `step`, from 0.

        Round after round a row of each group: the groups in an order of the round's own, the rows of a group all once
        before any comes again.
        """
        first = step * self.batch_size
        found = []
        for number in range(first, first + self.batch_size):
            turn, place = divmod(number, len(self.groups))
            group = int(_order(len(self.groups), self.seed * 1_000_003 + turn)[place])
            rows = self.groups[group]
            again, within = divmod(turn, len(rows))
            found.append(rows[int(_order_of(len(rows), self.seed * 1_000_003 + again, group)[within])])
        return found


@lru_cache(maxsize=100_000)
def _order_of(rows: int, seed: int, group: int) -> torch.Tensor:
    return torch.randperm(rows, generator=torch.Generator().manual_seed((seed * 1_000_033 + group + 1) % 2**63))


@lru_cache(maxsize=2)
def _order(rows: int, seed: int) -> torch.Tensor:
    return torch.randperm(rows, generator=torch.Generator().manual_seed(seed))


class Rows:
    """A token set's rows by their index, read from the memory-mapped file when they are asked for.

    Args:
        token_set: a `datasets.Dataset` with `row`, `input_ids`, `labels`, …

    Attributes:
        lengths: tokens of each row, (rows,).
    """

    def __init__(self, token_set: Any) -> None:
        table = token_set.with_format("arrow")[:]
        self._columns = {name: _Column(table[name]) for name in table.column_names}
        self.lengths = self._columns["input_ids"].lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """A row: arrays of tokens, numbers."""
        return {name: column[index] for name, column in self._columns.items()}

    def by_length(self, indices: Sequence[int]) -> list[int]:
        """The indices, shortest row first."""
        return sorted(indices, key=lambda index: (self.lengths[index], self._columns["row"][index]))


class _Column:
    """One column, without a copy of what it holds."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        chunks = [chunk for chunk in column.chunks if len(chunk)]
        self._starts = np.cumsum([0, *map(len, chunks)])
        self._nested = pa.types.is_list(column.type)
        self._values = [(chunk.values if self._nested else chunk).to_numpy(zero_copy_only=False) for chunk in chunks]
        self._offsets = [chunk.offsets.to_numpy() for chunk in chunks] if self._nested else []

    @property
    def lengths(self) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int64), *(np.diff(offsets) for offsets in self._offsets)]).astype(int)

    def __getitem__(self, index: int) -> Any:
        chunk = int(np.searchsorted(self._starts, index, side="right")) - 1
        within, values = index - self._starts[chunk], self._values[chunk]
        if not self._nested:
            return values[within].item()
        first, last = self._offsets[chunk][within : within + 2]
        return values[first:last]


def pass_tokens(params: Train, device: torch.device) -> int:
    """Padded tokens that one forward pass may have."""
    return params.micro_batch_tokens or profile_of(device).pass_tokens


def cut(lengths: Sequence[int], most: int, device: torch.device) -> list[slice]:
    """Cut rows, sorted by length, into forward passes at the least cost: padded tokens, and something for each pass.

    Args:
        lengths: tokens of each row, ascending.
        most: padded tokens that a pass may have; a longer row is a pass of its own.
        device: says what a pass costs beside its tokens.

    Returns:
        slices of the rows, in order. Found by dynamic programming over the place of the last cut.
    """
    fixed = profile_of(device).pass_cost
    costs, cuts = [0.0], [0]
    for end in range(1, len(lengths) + 1):
        longest, best, where = int(lengths[end - 1]), math.inf, end - 1
        for start in range(end - 1, -1, -1):
            padded = (end - start) * longest
            if padded > most and start < end - 1:
                break
            if costs[start] + padded + fixed < best:
                best, where = costs[start] + padded + fixed, start
        costs.append(best)
        cuts.append(where)
    found, end = [], len(lengths)
    while end:
        found.append(slice(cuts[end], end))
        end = cuts[end]
    return found[::-1]


def learning_rate_factor(step: int, total: int, warmup: float, schedule: str) -> float:
    """The share of the peak rate at step number `step`, from 0: a linear climb, then `schedule` down to 0."""
    climb = max(1, round(total * warmup))
    if step < climb:
        return (step + 1) / climb
    progress = (step - climb) / max(1, total - climb)
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    return 1 - progress
