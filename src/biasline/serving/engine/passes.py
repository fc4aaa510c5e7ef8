"""Rows that take one forward pass each: batched as they come, whoever asked them."""

import time
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import torch

from biasline.serving.engine.engine import BankedModel, Engine, Lane
from biasline.serving.engine.fair import FairQueue


@dataclass(frozen=True)
class Batching:
    """How rows are put together.

    Attributes:
        tokens: of a pass at most, padding included; a longer row goes alone.
        wait_s: how long a row waits for others at most.
    """

    tokens: int = 2048
    wait_s: float = 0.002


@dataclass(frozen=True, eq=False)
class Row:
    """A row that waits for its pass.

    Attributes:
        inputs: what the model is given, without padding, (tokens,) each.
        slot: whose delta.
        length: tokens.
        done: gets the outputs, fp32: (outputs,) of a text, or (tokens, outputs) of each token.
        since: when it was asked.
    """

    inputs: Mapping[str, torch.Tensor]
    slot: int
    length: int
    done: "Future[torch.Tensor]" = field(default_factory=Future)
    since: float = field(default_factory=time.monotonic)


class PassLane(Lane):
    """Rows for a model with a head.

    Args:
        engine: whose thread makes its passes.
        banked: the model with its deltas.
        batching: how rows are put together.
    """

    def __init__(self, engine: Engine, banked: BankedModel, batching: Batching) -> None:
        super().__init__(engine, banked)
        self._batching = batching
        self._queue: FairQueue[Row] = FairQueue()
        self._tokens = 0
        self.passes = 0
        self.rows = 0

    def ask(self, owner: str, rows: Sequence[Row]) -> None:
        """Put rows down; each one's outputs come to its `done`.

        Raises:
            EngineStopped: where nobody would answer them.
        """
        with self.engine.work:
            self.engine.check_running()
            for row in rows:
                self._queue.put(f"{owner}:{row.slot}", row)
                self._tokens += row.length
            self.engine.work.notify_all()

    @property
    def load(self) -> int:
        """Rows that wait."""
        return len(self._queue)

    def wait_s(self, now: float) -> float | None:
        """At once where a batch is full, else when the oldest row has waited long enough."""
        first = self._queue.first
        if first is None:
            return None
        return 0.0 if self._tokens >= self._batching.tokens else first.since + self._batching.wait_s - now

    def step(self) -> None:
        """One batch."""
        with self.engine.work:
            rows = self._queue.take(_Batch(self._batching.tokens))
            self._tokens -= sum(row.length for row in rows)
        rows = [row for row in rows if row.done.set_running_or_notify_cancel()]
        if not rows:
            return
        try:
            found = self._outputs(rows)
        except Exception as error:
            if len(rows) == 1:
                rows[0].done.set_exception(error)
                return
            for row in rows:  # what is wrong with one of them is not the others' fault
                try:
                    row.done.set_result(self._outputs([row])[0])
                except Exception as own:
                    row.done.set_exception(own)
            return
        for row, outputs in zip(rows, found, strict=True):
            row.done.set_result(outputs)

    def fail(self, error: BaseException) -> None:
        """Tell all rows that wait."""
        with self.engine.work:
            for row in self._queue.drop(lambda _: True):
                if row.done.set_running_or_notify_cancel():
                    row.done.set_exception(error)
            self._tokens = 0

    def forget(self, slots: Collection[int]) -> None:
        """Give up rows that nobody waits for."""
        with self.engine.work:
            gone = self._queue.drop(lambda row: row.slot in slots)
            self._tokens -= sum(row.length for row in gone)
        for row in gone:
            row.done.cancel()

    def _outputs(self, rows: Sequence[Row]) -> list[torch.Tensor]:
        """The head's outputs of each row, on the CPU."""
        inputs = _padded(rows, self.model.config.pad_token_id or 0)
        device = self.model.device
        with self.bank.rows([row.slot for row in rows]) as model:
            logits = model(**{name: part.to(device) for name, part in inputs.items()}).logits.float().cpu()
        self.passes += 1
        self.rows += len(rows)
        return [one[: row.length] if one.ndim > 1 else one for one, row in zip(logits, rows, strict=True)]


class _Batch:
    """Rows of one pass: within its tokens, and without more padding than text."""

    def __init__(self, tokens: int) -> None:
        self._most = tokens
        self._count = self._longest = self._whole = 0

    def __call__(self, row: Row) -> bool:
        """Whether a row goes with those for which this was so before."""
        if row.done.cancelled():
            return True  # it takes no room
        longest, whole = max(self._longest, row.length), self._whole + row.length
        padded = longest * (self._count + 1)
        if self._count and (padded > self._most or padded > 2 * whole):
            return False
        self._count, self._longest, self._whole = self._count + 1, longest, whole
        return True


def _padded(rows: Sequence[Row], pad: int) -> dict[str, torch.Tensor]:
    """Inputs of a batch, padded on the right, with their mask, (rows, longest) each."""
    shape = (len(rows), max(row.length for row in rows))
    inputs = {name: torch.zeros(shape, dtype=torch.int64) for name in rows[0].inputs}
    inputs["input_ids"].fill_(pad)
    inputs["attention_mask"] = torch.zeros(shape, dtype=torch.int64)
    for number, row in enumerate(rows):
        inputs["attention_mask"][number, : row.length] = 1
        for name, values in row.inputs.items():
            inputs[name][number, : row.length] = values
    return inputs
