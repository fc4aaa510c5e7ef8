"""What stands in a model's place where a predictor asks one: its passes are made by the engine, among those of others.

So what an answer is made of, and how, is written once: a task's kind asks this as it would ask its model.
"""

import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, wait
from contextlib import contextmanager
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import torch

from biasline.errors import BiaslineError
from biasline.evaluation.generate import Drawing
from biasline.serving.engine.decoding import DecodingLane, Generation
from biasline.serving.engine.engine import EngineFailed, EngineStopped
from biasline.serving.engine.passes import PassLane, Row
from biasline.serving.engine.ticket import current_ticket

# With which deltas this thread asks its rows, and the seed that it draws with.
_slots: ContextVar[Sequence[int] | None] = ContextVar("slots", default=None)
_seed: ContextVar[int] = ContextVar("seed", default=0)


@contextmanager
def asking(slots: Sequence[int]) -> Iterator[None]:
    """In this block rows are asked with these deltas, one for each row of a batch."""
    token = _slots.set(slots)
    try:
        yield
    finally:
        _slots.reset(token)


@contextmanager
def drawing(seed: int) -> Iterator[None]:
    """In this block tokens are drawn with this seed."""
    token = _seed.set(seed)
    try:
        yield
    finally:
        _seed.reset(token)


class _StandIn:
    """What a predictor knows of a model.

    Args:
        model: the engine's.
        owner: in whose turn rows are asked.
        slot: of the delta, unless rows are of several, see `asking`.
    """

    device = torch.device("cpu")

    def __init__(self, model: Any, owner: str, slot: int) -> None:
        known = model.config
        self.config = SimpleNamespace(
            pad_token_id=known.pad_token_id, model_type=known.model_type, num_labels=getattr(known, "num_labels", 0)
        )
        self.generation_config: Any = None
        self._owner, self._slot = owner, slot

    def _slots(self, count: int) -> Sequence[int]:
        slots = _slots.get() or [self._slot] * count
        assert len(slots) == count
        return slots


class HeadStandIn(_StandIn):
    """A model with a head.

    Args:
        lane: where rows are asked.
        owner: in whose turn.
        slot: of the delta.
        outputs: of its head; the engine's model may have more.
    """

    def __init__(self, lane: PassLane, owner: str, slot: int, outputs: int) -> None:
        super().__init__(lane.model, owner, slot)
        self._lane, self._outputs = lane, outputs
        self.config.num_labels = outputs

    def __call__(self, attention_mask: torch.Tensor, **inputs: torch.Tensor) -> Any:
        """Logits of rows that are padded on the right, as the model gives them.

        Raises:
            TimeoutError, CancelledError: where the request's ticket says so.
        """
        sizes = attention_mask.sum(1).tolist()
        rows = [
            Row({name: part[number, :size] for name, part in inputs.items()}, slot, size)
            for number, (size, slot) in enumerate(zip(sizes, self._slots(len(sizes)), strict=True))
        ]
        ticket = current_ticket()
        ticket.prompt_tokens += sum(sizes)
        self._lane.ask(self._owner, rows)
        with ticket.told(lambda: [row.done.cancel() for row in rows]):
            _, late = wait([row.done for row in rows], ticket.left_s)
            if late:
                ticket.cancel()
                raise TimeoutError
        found = [_result(row)[..., : self._outputs] for row in rows]
        if found[0].ndim > 1:
            found = [torch.nn.functional.pad(one, (0, 0, 0, attention_mask.shape[1] - len(one))) for one in found]
        return SimpleNamespace(logits=torch.stack(found))


class TextStandIn(_StandIn):
    """A language model that writes.

    Args:
        lane: where sequences are asked.
        owner: in whose turn.
        slot: of the delta.
    """

    def __init__(self, lane: DecodingLane, owner: str, slot: int) -> None:
        super().__init__(lane.model, owner, slot)
        self._lane = lane

    def generate(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, generation_config: Any) -> torch.Tensor:
        """Prompts that are padded on the left, each with what is written behind it, as the model gives them.

        Where tokens are drawn, each row has random numbers of its own: the seed's, and its place in the batch.

        Raises:
            TimeoutError, CancelledError: where the request's ticket says so.
        """
        config, stops = generation_config, frozenset(generation_config.eos_token_id)
        drawn = config.do_sample
        told: queue.SimpleQueue[tuple[int, int | BaseException, bool]] = queue.SimpleQueue()
        generations, written = [], []
        for number, (ids, mask, slot) in enumerate(
            zip(input_ids, attention_mask, self._slots(len(input_ids)), strict=True)
        ):
            drawing = Drawing(
                config.max_new_tokens,
                config.temperature if drawn else 0.0,
                config.top_p if drawn else 1.0,
                _seed.get() + number,
            )

            def tell(token: int | BaseException, last: bool, number: int = number) -> None:
                told.put((number, token, last))

            generations.append(Generation(ids[mask.bool()].tolist(), slot, drawing, stops, tell))
            written.append(list[int]())
        ticket = current_ticket()
        ticket.prompt_tokens += sum(len(one.prompt) for one in generations)

        def stop() -> None:
            for one in generations:
                one.cancelled = True
            told.put((0, CancelledError(), True))

        with ticket.told(stop):
            for one in generations:
                self._lane.ask(self._owner, one)
            left = len(generations)
            while left:
                try:
                    number, token, last = told.get(timeout=ticket.left_s)
                except queue.Empty:
                    ticket.cancel()
                    raise TimeoutError from None
                if isinstance(token, BaseException):
                    stop()
                    raise failed(token)
                written[number].append(token)
                ticket.completion_tokens += 1
                left -= last
        longest = max(map(len, written))
        pad = config.pad_token_id
        return torch.tensor(
            [
                [*ids.tolist(), *tokens, *[pad] * (longest - len(tokens))]
                for ids, tokens in zip(input_ids, written, strict=True)
            ]
        )

    def __call__(self, **inputs: torch.Tensor) -> Any:
        """Likelihoods are asked of the model itself, see `Engine.between`."""
        raise BiaslineError("a stand-in has no likelihoods")


def _result(row: Row) -> torch.Tensor:
    try:
        return row.done.result()
    except Exception as error:
        raise failed(error) from error


def failed(error: BaseException) -> BaseException:
    """What a pass raised, as whoever asked is told: it is no fault of theirs, unless they gave up."""
    return error if isinstance(error, CancelledError | EngineStopped) else EngineFailed(str(error) or repr(error))
