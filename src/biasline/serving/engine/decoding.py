"""Continuous batching: sequences of all tenants go on token by token, join when they come and leave when they end.

Transformers' own continuous batching packs tokens for attention over pages; it takes only models whose attention goes
through its interface (BLOOM's does not), and its prefix cache would have to be told apart by delta. Here a batch is
what `generate` makes: rows padded on the left, one cache, and so a greedy answer has the tokens that the row alone
would have. Nothing of a prompt is kept for the next request.
"""

import inspect
import logging
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch

from biasline.errors import BiaslineError
from biasline.evaluation.generate import Drawing
from biasline.serving.engine.engine import BankedModel, Engine, EngineFailed, Lane
from biasline.serving.engine.fair import FairQueue

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Decoding:
    """How sequences are put together.

    Attributes:
        sequences: under way at once, at most.
        cached_tokens: that the cache of these may hold, padding included.
        prompt_tokens: of one pass over prompts, padding included; a longer prompt goes alone.
        wait_s: how long a prompt waits for others, where nothing is under way.
    """

    sequences: int = 64
    cached_tokens: int = 65_536
    prompt_tokens: int = 2048
    wait_s: float = 0.002


@dataclass(eq=False)
class Generation:
    """A sequence that is to be written.

    Attributes:
        prompt: token ids.
        slot: whose delta.
        drawing: how tokens are chosen, and how many at most.
        stops: tokens that end it.
        told: is called, by the engine's thread, with each token and whether it is the last; or with an error.
        cancelled: whether nobody waits for it any more.
    """

    prompt: Sequence[int]
    slot: int
    drawing: Drawing
    stops: frozenset[int]
    told: Callable[[int | BaseException, bool], None]
    cancelled: bool = False
    since: float = field(default_factory=time.monotonic)
    count: int = 0
    random: torch.Generator | None = None

    def __post_init__(self) -> None:
        if self.drawing.temperature > 0:
            self.random = torch.Generator().manual_seed(self.drawing.seed)

    @property
    def longest(self) -> int:
        """Tokens that it may come to."""
        return len(self.prompt) + self.drawing.max_new_tokens

    def take(self, token: int) -> bool:
        """Tell a token; whether it was the last."""
        self.count += 1
        last = self.cancelled or token in self.stops or self.count >= self.drawing.max_new_tokens
        return not self.tell(token, last) or last

    def tell(self, token: int | BaseException, last: bool) -> bool:
        """Whether whoever waits could be told."""
        try:
            self.told(token, last)
        except Exception:  # as of an event loop that is closed: nobody waits there
            self.cancelled = True
        return not self.cancelled


class DecodingLane(Lane):
    """Sequences for a language model.

    Args:
        engine: whose thread makes its passes.
        banked: the model with its deltas.
        decoding: how sequences are put together.

    Raises:
        BiaslineError: for a model that keeps more than keys and values of each token.
    """

    def __init__(self, engine: Engine, banked: BankedModel, decoding: Decoding) -> None:
        super().__init__(engine, banked)
        if self.model.config.is_encoder_decoder or getattr(self.model, "_is_stateful", False):
            raise BiaslineError(
                f"{self.model.config.model_type}: sequences of such models cannot join others under way",
                "serve it by `mlflow models serve`",
            )
        self._decoding = decoding
        self._waiting: FairQueue[Generation] = FairQueue()
        self._running: list[Generation] = []
        self._cache: Any = None
        self._mask = torch.zeros(0, 0, dtype=torch.int64)
        self._last = torch.zeros(0, dtype=torch.int64)
        known = inspect.signature(self.model.forward).parameters
        self._positioned = "position_ids" in known
        self._short = {"logits_to_keep": 1} if "logits_to_keep" in known else {}
        self._open: ExitStack | None = None
        self.passes = 0
        self.rows = 0

    def ask(self, owner: str, generation: Generation) -> None:
        """Put a sequence down.

        Raises:
            EngineStopped: where nobody would write it.
        """
        with self.engine.work:
            self.engine.check_running()
            self._waiting.put(f"{owner}:{generation.slot}", generation)
            self.engine.work.notify_all()

    @property
    def load(self) -> int:
        """Sequences that wait or are under way."""
        return len(self._waiting) + len(self._running)

    def wait_s(self, now: float) -> float | None:
        """At once where sequences are under way, else when the oldest prompt has waited long enough."""
        if self._running:
            return 0.0
        first = self._waiting.first
        return None if first is None else first.since + self._decoding.wait_s - now

    def step(self) -> None:
        """Let those join that there is room for, then go on by one token."""
        if gone := [number for number, one in enumerate(self._running) if one.cancelled]:
            self._drop(gone)
        joining: list[Generation] = []
        if len(self._running) < self._decoding.sequences:
            with self.engine.work:
                joining = self._waiting.take(_Joining(self._decoding, self._running, self.bank.mixes))
            joining = [one for one in joining if not one.cancelled]
        try:
            if joining:
                self.leave()
                self._join(joining)
            elif self._running:
                self._go_on()
        except Exception as error:
            _log.exception("a pass on %s failed", self.engine.name)
            failed = list(dict.fromkeys([*joining, *self._running]))
            self.leave()
            self._keep([])
            for one in failed:
                one.tell(EngineFailed(str(error)), True)

    def leave(self) -> None:
        """Leave the block in which the sequences under way are asked."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def fail(self, error: BaseException) -> None:
        """Tell all sequences, and begin anew."""
        self.leave()
        with self.engine.work:
            gone = [*self._running, *self._waiting.drop(lambda _: True)]
        self._keep([])
        for one in gone:
            one.tell(error, True)

    def forget(self, slots: Collection[int]) -> None:
        """Give up sequences that nobody waits for."""
        self.leave()
        with self.engine.work:
            waiting = self._waiting.drop(lambda one: one.slot in slots)
        for one in waiting:
            one.cancelled = True
            one.tell(CancelledError(), True)
        self._drop([number for number, one in enumerate(self._running) if one.slot in slots])

    def _drop(self, numbers: Collection[int]) -> None:
        """Go on without some of the sequences, which nobody waits for."""
        if not numbers:
            return
        self.leave()
        gone = [self._running[number] for number in numbers]
        self._keep([number for number in range(len(self._running)) if number not in numbers])
        for one in gone:
            one.cancelled = True
            one.tell(CancelledError(), True)

    def _join(self, joining: list[Generation]) -> None:
        """Pass over new prompts, and put their caches beside those under way."""
        try:
            logits, cache, mask = self._prompted(joining)
        except Exception as error:
            if len(joining) == 1:
                joining[0].tell(error if isinstance(error, BiaslineError) else EngineFailed(str(error)), True)
                return
            for one in joining:  # what is wrong with one of them is not the others' fault
                self._join([one])
            return
        tokens = _chosen(joining, logits)
        kept = [number for number, (one, token) in enumerate(zip(joining, tokens, strict=True)) if not one.take(token)]
        if not kept:
            return
        rows = torch.tensor(kept, device=mask.device)
        _select(cache, rows)
        mask, last = mask[rows], torch.tensor(tokens, device=mask.device)[rows]
        if self._running:
            self._mask, mask = _level(self._cache, self._mask, cache, mask)
            for old, new in zip(self._cache.layers, cache.layers, strict=True):
                old.keys, old.values = torch.cat([old.keys, new.keys]), torch.cat([old.values, new.values])
            self._mask, self._last = torch.cat([self._mask, mask]), torch.cat([self._last, last])
        else:
            self._cache, self._mask, self._last = cache, mask, last
        self._running += [joining[number] for number in kept]

    def _prompted(self, joining: Sequence[Generation]) -> tuple[torch.Tensor, Any, torch.Tensor]:
        """Logits of the first token, (rows, vocabulary), and the prompts' cache and mask, padded on the left."""
        from transformers import DynamicCache

        width, pad = max(len(one.prompt) for one in joining), self.model.config.pad_token_id or 0
        ids = torch.full((len(joining), width), pad, dtype=torch.int64)
        mask = torch.zeros((len(joining), width), dtype=torch.int64)
        for number, one in enumerate(joining):
            ids[number, width - len(one.prompt) :] = torch.tensor(one.prompt)
            mask[number, width - len(one.prompt) :] = 1
        ids, mask = ids.to(self.model.device), mask.to(self.model.device)
        cache = DynamicCache()
        with self.bank.rows([one.slot for one in joining]):
            return self._logits(ids, mask, cache, (mask.cumsum(-1) - 1).clamp(min=0)), cache, mask

    def _go_on(self) -> None:
        """One token more for each sequence under way."""
        if self._open is None:
            self._open = ExitStack()
            self._open.enter_context(self.bank.rows([one.slot for one in self._running]))
        self._mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), 1)], 1)
        logits = self._logits(self._last[:, None], self._mask, self._cache, self._mask.sum(1, keepdim=True) - 1)
        tokens = _chosen(self._running, logits)
        kept = [
            number for number, (one, token) in enumerate(zip(self._running, tokens, strict=True)) if not one.take(token)
        ]
        self._last = torch.tensor(tokens, device=self._mask.device)
        if len(kept) < len(self._running):
            self.leave()
            self._keep(kept)

    def _logits(self, ids: torch.Tensor, mask: torch.Tensor, cache: Any, positions: torch.Tensor) -> torch.Tensor:
        placed = {"position_ids": positions} if self._positioned else {}
        output = self.model(
            input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **placed, **self._short
        )
        self.passes += 1
        self.rows += len(ids)
        logits: torch.Tensor = output.logits[:, -1]
        return logits

    def _keep(self, kept: list[int]) -> None:
        """Go on with some of the sequences."""
        self._running = [self._running[number] for number in kept]
        if not kept:
            self._cache, self._mask, self._last = None, self._mask[:0, :0], self._last[:0]
            return
        rows = torch.tensor(kept, device=self._mask.device)
        _select(self._cache, rows)
        self._mask, self._last = self._mask[rows], self._last[rows]
        # What only longer sequences had is padding now.
        if cut := int(self._mask.any(0).int().argmax()):
            self._mask = self._mask[:, cut:]
            for layer in self._cache.layers:
                layer.keys, layer.values = layer.keys[:, :, cut:], layer.values[:, :, cut:]


class _Joining:
    """Prompts of one pass: as many as there is room for beside the sequences under way."""

    def __init__(self, decoding: Decoding, running: Sequence[Generation], mixes: bool) -> None:
        self._decoding, self._mixes = decoding, mixes
        self._count, self._longest = len(running), max((one.longest for one in running), default=0)
        self._slot = running[0].slot if running else None
        self._prompts = self._width = 0

    def __call__(self, one: Generation) -> bool:
        """Whether a sequence goes with those for which this was so before."""
        if one.cancelled:
            return True  # it takes no room
        longest, width = max(self._longest, one.longest), max(self._width, len(one.prompt))
        fits = not self._count or (
            self._count < self._decoding.sequences
            and (self._mixes or one.slot == self._slot)
            and (not self._prompts or width * (self._prompts + 1) <= self._decoding.prompt_tokens)
            and (self._count + 1) * longest <= self._decoding.cached_tokens
        )
        if fits:
            self._count, self._longest = self._count + 1, longest
            self._prompts, self._width, self._slot = self._prompts + 1, width, one.slot
        return fits


def _select(cache: Any, rows: torch.Tensor) -> None:
    for layer in cache.layers:
        layer.keys, layer.values = layer.keys.index_select(0, rows), layer.values.index_select(0, rows)


def _level(old: Any, old_mask: torch.Tensor, new: Any, new_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad the shorter of two caches on the left to the length of the other; returns both masks, padded likewise."""
    missing = old_mask.shape[1] - new_mask.shape[1]
    shorter = new if missing > 0 else old
    pad = abs(missing)
    if pad:
        for layer in shorter.layers:
            layer.keys, layer.values = (
                torch.nn.functional.pad(part, (0, 0, pad, 0)) for part in (layer.keys, layer.values)
            )
    widen = torch.nn.functional.pad
    return widen(old_mask, (max(0, -missing), 0)), widen(new_mask, (max(0, missing), 0))


def _chosen(generations: Sequence[Generation], logits: torch.Tensor) -> list[int]:
    """The next token of each sequence: the likeliest, or one that is drawn by its own random numbers.

    Args:
        generations: the sequences.
        logits: (sequences, vocabulary).
    """
    tokens: list[int] = logits.argmax(-1).tolist()
    drawn = [number for number, one in enumerate(generations) if one.random is not None]
    if not drawn:
        return tokens
    rows = [generations[number] for number in drawn]
    temperature = torch.tensor([one.drawing.temperature for one in rows], device=logits.device)
    top_p = torch.tensor([one.drawing.top_p for one in rows], device=logits.device)
    shares, order = (logits[drawn].float() / temperature[:, None]).softmax(-1).sort(-1, descending=True)
    # The likeliest that make up the share: the one that passes it is among them.
    shares = shares.masked_fill(shares.cumsum(-1) - shares >= top_p[:, None], 0.0)
    total = shares.cumsum(-1)
    numbers = torch.stack([torch.rand((), generator=one.random, dtype=torch.float64) for one in rows])
    wanted = numbers.to(logits.device, torch.float32)[:, None] * total[:, -1:]
    places = (total <= wanted).sum(-1, keepdim=True).clamp(max=logits.shape[-1] - 1)
    for number, token in zip(drawn, order.gather(-1, places)[:, 0].tolist(), strict=True):
        tokens[number] = token
    return tokens
