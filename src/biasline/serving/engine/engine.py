"""All forward passes on one base, made by one thread: lanes take turns, and nothing else may touch the model."""

import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

import torch

from biasline.bitfit import Bank, BiasDelta
from biasline.bitfit.pretrained import PretrainedModel
from biasline.errors import BiaslineError

_log = logging.getLogger(__name__)
_STANDS = 60.0  # how long the thread sleeps where nothing waits; whoever brings work wakes it

# How long loading rests, in times of what it did before, and seconds at most.
_RESTS, _LONGEST_REST = 2.0, 0.2

_SPARE = 8  # slots that are made at a time, at the least

T = TypeVar("T")


class EngineStopped(BiaslineError):
    """The engine is being stopped and takes no more work."""

    def __init__(self) -> None:
        super().__init__("the server is stopping", "ask another, or again later")


class EngineFailed(Exception):
    """A pass failed, by no fault of whoever asked."""


class BankedModel:
    """A model with the deltas that its rows are asked with.

    Args:
        model: a plain base, in eval mode; it may share its Transformer with others.
        slots: deltas that it is to hold; more are made room for.

    Attributes:
        model: as given.
        bank: the deltas.
    """

    def __init__(self, model: PretrainedModel, slots: int) -> None:
        self.model = model
        self.bank = Bank(model, slots)
        self._free = list(range(slots, 0, -1))
        self._lock = threading.Lock()

    def reserve(self, count: int) -> None:
        """Make room for so many further deltas at once."""
        with self._lock:
            if (further := count - len(self._free)) > 0:
                self._grow(max(further, _SPARE, self.bank.slots // 8))

    def put(self, delta: BiasDelta) -> int:
        """Hold a delta, and say in which slot, until that is given back by `release`.

        Raises:
            BiaslineError: for a delta that does not fit.
        """
        with self._lock:
            if not self._free:
                self._grow(max(_SPARE, self.bank.slots // 8))
            slot = self._free.pop()
            try:
                self.bank.put(slot, delta)
            except BaseException:
                self._free.append(slot)
                raise
            return slot

    def _grow(self, further: int) -> None:
        before = self.bank.slots
        self.bank.grow(before + further)
        self._free = [*range(self.bank.slots, before, -1), *self._free]

    def release(self, slots: Iterable[int]) -> None:
        """Empty slots that nothing under way asks any more."""
        with self._lock:
            for slot in slots:
                self.bank.clear(slot)
                self._free.append(slot)


class Lane(ABC):
    """One way in which rows are asked of a model, and those that wait.

    Args:
        engine: whose thread makes its passes.
        banked: the model with its deltas.
    """

    def __init__(self, engine: "Engine", banked: BankedModel) -> None:
        self.engine, self.banked = engine, banked
        self.model, self.bank = banked.model, banked.bank

    @abstractmethod
    def wait_s(self, now: float) -> float | None:
        """Seconds until it wants to make a pass, 0 for now; None where nothing waits."""

    @abstractmethod
    def step(self) -> None:
        """Make a pass, or a few; errors go to whoever waits for the rows."""

    def leave(self) -> None:  # noqa: B027 (most have nothing to leave)
        """Be ready for another lane's pass on the same Transformer."""

    @abstractmethod
    def fail(self, error: BaseException) -> None:
        """Tell an error to all that wait."""

    @abstractmethod
    def forget(self, slots: Collection[int]) -> None:
        """Give up rows that ask these slots, which nobody waits for any more; called between passes."""

    @property
    @abstractmethod
    def load(self) -> int:
        """Rows that wait or are under way."""


class Engine:
    """One base in memory: its lanes, and the thread that makes all of their passes.

    Args:
        name: of the base.
        threads: of torch, for each operation; 0 leaves what it has.
    """

    def __init__(self, name: str, threads: int = 0) -> None:
        self.name = name
        self.lanes: list[Lane] = []
        # Held by whoever puts work down or takes it up.
        self.work = threading.Condition()
        self._jobs: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._stopping = False
        self._threads = threads
        self._thread = threading.Thread(target=self._run, name=f"engine of {name}", daemon=True)
        self._thread.start()

    def add(self, lane: Lane) -> None:
        """Take up a lane."""
        with self.work:
            self.lanes = [*self.lanes, lane]

    def between(self, job: Callable[[], T]) -> "Future[T]":
        """Have something done by the engine's thread between two passes: what must not happen during one."""
        done: Future[T] = Future()
        with self.work:
            self.check_running()
            self._jobs.append((job, done))
            self.work.notify_all()
        return done

    def give_way(self, took: float) -> None:
        """Whoever loads a model rests after some work of it, where others are being answered meanwhile.

        Python runs one thread at a time: work without a rest would make each step of theirs wait for it.

        Args:
            took: seconds of that work.
        """
        if not self.idle:
            time.sleep(min(_RESTS * took, _LONGEST_REST))

    def check_running(self) -> None:
        """Refuse work where nobody would do it."""
        if self._stopping or not self._thread.is_alive():
            raise EngineStopped

    def free(self, lane: Lane, slots: Collection[int]) -> None:
        """Empty slots of a lane once no row that is under way asks them."""

        def job() -> None:
            lane.forget(slots)
            lane.banked.release(slots)

        with suppress(EngineStopped):
            self.between(job)

    @property
    def idle(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self._jobs and not any(lane.load for lane in self.lanes)

    @property
    def alive(self) -> bool:
        """Whether its thread runs."""
        return self._thread.is_alive()

    def close(self, drain_s: float = 0.0) -> None:
        """Stop: what waits is answered, for so long at most, the rest is told that the server stops."""
        end = time.monotonic() + drain_s
        while not self.idle and time.monotonic() < end:
            time.sleep(0.02)
        with self.work:
            self._stopping = True
            self.work.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(10)

    def _run(self) -> None:
        if self._threads:
            torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                while not self._stopping:
                    self._turn()
        finally:
            self._stopping = True
            for lane in self.lanes:
                lane.leave()
                lane.fail(EngineStopped())
            with self.work:
                jobs, self._jobs = self._jobs, deque()
            for _, done in jobs:
                if done.set_running_or_notify_cancel():
                    done.set_exception(EngineStopped())

    def _turn(self) -> None:
        """Jobs that wait, and a step of each lane that wants one."""
        jobs, due = self._next()
        if jobs or len(due) > 1:
            for lane in self.lanes:
                lane.leave()
        for job, done in jobs:
            _do(job, done)
        for lane in due:
            try:
                lane.step()
            except Exception as error:  # none of the rows' own: those are told to whoever waits
                _log.exception("a pass on %s failed", self.name)
                lane.leave()
                lane.fail(EngineFailed(str(error)))
            if len(due) > 1:
                lane.leave()

    def _next(self) -> tuple[Sequence[tuple[Callable[[], Any], "Future[Any]"]], list[Lane]]:
        """What is to be done now; waits until there is something."""
        with self.work:
            while not self._stopping:
                jobs = [self._jobs.popleft() for _ in range(len(self._jobs))]
                now = time.monotonic()
                waits = [(lane, lane.wait_s(now)) for lane in self.lanes]
                due = [lane for lane, wait in waits if wait is not None and wait <= 0]
                if jobs or due:
                    return jobs, due
                self.work.wait(min((wait for _, wait in waits if wait is not None), default=_STANDS))
        return [], []


def _do(job: Callable[[], Any], done: "Future[Any]") -> None:
    if not done.set_running_or_notify_cancel():
        return
    try:
        done.set_result(job())
    except BaseException as error:
        done.set_exception(error)
