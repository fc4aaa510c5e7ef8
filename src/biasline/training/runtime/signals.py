"""Being asked to end: the step that goes on is finished and a checkpoint written first."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

# A machine that goes down asks every process, and a launcher passes on what it was asked: that is one request.
_ONE_REQUEST_S = 2.0
_ASKING = [signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


def heeded() -> list[signal.Signals]:
    """Signals that ask to end and that whoever started this process has not told it to ignore."""
    return [number for number in _ASKING if signal.getsignal(number) not in (signal.SIG_IGN, None)]


@contextmanager
def noted_signals(alone: Callable[[], bool] = lambda: False) -> Iterator[Callable[[], int]]:
    """Note SIGTERM, SIGINT and SIGHUP instead of ending at once; a second one ends at once, as ever.

    Of SIGTERM and SIGHUP a second one within two seconds is taken for the first. What is ignored stays so, as SIGHUP
    under `nohup`.

    Args:
        alone: whether who started this process, and would have told it to end, is gone.

    Yields a function that tells the number of the signal that came, or 0.
    """
    seen: list[int] = []
    first = 0.0
    before = {number: signal.getsignal(number) for number in heeded()}

    def back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _: FrameType | None) -> None:
        nonlocal first
        if seen and number != signal.SIGINT and time.monotonic() - first < _ONE_REQUEST_S:
            return
        if seen:
            back()
            os.kill(os.getpid(), number)
            return
        seen.append(number)
        first = time.monotonic()
        with suppress(OSError):  # not by print, which may be at work right now
            os.write(2, f"{signal.Signals(number).name}: ending after this step\n".encode())

    try:
        for number in before:
            signal.signal(number, note)
        yield lambda: seen[0] if seen else signal.SIGTERM * alone()
    finally:
        back()
