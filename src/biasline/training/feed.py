"""The batches of each step, made in advance: a thread collates the next step while this one computes."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from accelerate import Accelerator

from biasline.params import Train
from biasline.training.batches import Plan, Rows, cut, pass_tokens
from biasline.training.loss import Batch, Objective


@dataclass(frozen=True)
class Work:
    """What one step computes.

    Attributes:
        batches: this process's share of the rows, one batch per forward pass.
        targets: of the whole step, over all processes: what its loss is divided by.
        tokens: of the whole step, without padding.
        padded: of this process's batches, with padding.
    """

    batches: list[Batch]
    targets: int
    tokens: int
    padded: int


class Feed:
    """Rows as batches on the device.

    Args:
        rows: of a token set.
        objective: collates them and counts their targets.
        pad: token id to pad with.
        even: whether every process must make as many passes as the others, as where each holds a part of the base.
            The passes that it would not have are of a row that does not count.
    """

    def __init__(
        self, rows: Rows, objective: Objective, pad: int, params: Train, accelerator: Accelerator, even: bool = False
    ) -> None:
        self._rows, self._objective, self._pad = rows, objective, pad
        self._accelerator, self._even = accelerator, even
        self._most = pass_tokens(params, accelerator.device)
        self._all: list[tuple[list[int], bool]] | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def steps(self, plan: Plan, numbers: range) -> Iterator[tuple[int, Work]]:
        """Each of these steps with its work."""
        with ThreadPoolExecutor(1, "biasline-feed") as ahead:
            coming = [ahead.submit(self._work, plan.indices(number)) for number in numbers[:1]]
            for number in numbers:
                made = coming.pop().result()
                if number + 1 in numbers:
                    coming.append(ahead.submit(self._work, plan.indices(number + 1)))
                batches = [batch.to(self._accelerator.device) for batch in made.batches]
                yield number, Work(batches, made.targets, made.tokens, made.padded)

    def whole(self) -> Iterator[Batch]:
        """This process's share of all rows."""
        if self._all is None:
            self._all = self._shares(range(len(self._rows)))
        for chosen, counts in self._all:
            yield replace(self._batch(chosen), counts=counts).to(self._accelerator.device)

    def sample(self, indices: Sequence[int]) -> Batch:
        """The two shortest of these rows: the same ones in every process."""
        return self._batch(self._rows.by_length(indices)[:2]).to(self._accelerator.device)

    def _work(self, indices: Sequence[int]) -> Work:
        batches = [replace(self._batch(chosen), counts=counts) for chosen, counts in self._shares(indices)]
        padded = sum(batch.inputs["input_ids"].numel() for batch in batches)
        targets = self._objective.targets([self._rows[index] for index in indices])
        return Work(batches, targets, int(self._rows.lengths[list(indices)].sum()), padded)

    def _shares(self, indices: Sequence[int]) -> list[tuple[list[int], bool]]:
        """The rows of each of this process's passes, and whether they count."""
        accelerator, ordered = self._accelerator, self._rows.by_length(indices)
        found = [(chosen, True) for chosen in self._passes(ordered, accelerator.process_index)]
        if self._even:
            most = max(len(self._passes(ordered, rank)) for rank in range(accelerator.num_processes))
            found += [(ordered[:1], False)] * (most - len(found))
        return found

    def _passes(self, ordered: Sequence[int], rank: int) -> list[list[int]]:
        """A process's rows by forward pass.

        Each gets every n-th row of the length order: like work, and the sum over processes is the whole.
        """
        chosen = ordered[rank :: self._accelerator.num_processes]
        lengths = [int(self._rows.lengths[index]) for index in chosen]
        return [list(chosen[piece]) for piece in cut(lengths, self._most, self._accelerator.device)]

    def _batch(self, indices: Sequence[int]) -> Batch:
        batch = self._objective.collate([self._rows[index] for index in indices], self._pad)
        return batch.pinned() if self._accelerator.device.type == "cuda" else batch
