"""A request's ticket: how long it may take, whether anyone waits for it still, and what it used."""

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any


class Ticket:
    """What goes with a request through all threads.

    Args:
        seconds: that it may take; forever if left out.

    Attributes:
        prompt_tokens: that a model was asked.
        completion_tokens: that it wrote.
        cancelled: whether nobody waits for it any more.
    """

    def __init__(self, seconds: float = math.inf) -> None:
        self._end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._stops: list[Callable[[], Any]] = []
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.cancelled = False

    @property
    def left_s(self) -> float | None:
        """Seconds that are left; None where it may take forever."""
        return None if math.isinf(self._end) else max(0.0, self._end - time.monotonic())

    def cancel(self) -> None:
        """Let nothing more be done for it."""
        with self._lock:
            self.cancelled = True
            stops = list(self._stops)
        for stop in stops:
            stop()

    @contextmanager
    def told(self, stop: Callable[[], Any]) -> Iterator[None]:
        """The block in which something is to be stopped where the ticket is cancelled."""
        with self._lock:
            self._stops.append(stop)
            late = self.cancelled
        if late:
            stop()
        try:
            yield
        finally:
            with self._lock:
                self._stops.remove(stop)

    @contextmanager
    def used(self) -> Iterator["Ticket"]:
        """The block in which this thread works for it."""
        token = _ticket.set(self)
        try:
            yield self
        finally:
            _ticket.reset(token)


_ticket: ContextVar[Ticket | None] = ContextVar("ticket", default=None)


def current_ticket() -> Ticket:
    """That of the request which this thread works for; one of its own where there is none."""
    return _ticket.get() or Ticket()
