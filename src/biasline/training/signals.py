"""Being asked to end: the step that goes on is finished and a checkpoint written first."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_ASKING = [signal.SIGTERM, signal.SIGINT, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]


@contextmanager
def noted_signals() -> Iterator[Callable[[], int]]:
    """Note SIGTERM, SIGINT and SIGHUP instead of ending at once; a second one ends at once, as ever.

    Yields a function that tells the number of the signal that came, or 0.
    """
    seen: list[int] = []
    before = {number: signal.getsignal(number) for number in _ASKING}

    def back() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _: FrameType | None) -> None:
        seen.append(number)
        back()
        with suppress(OSError):  # not by print, which may be at work right now
            os.write(2, f"{signal.Signals(number).name}: ending after this step\n".encode())

    try:
        for number in _ASKING:
            signal.signal(number, note)
        yield lambda: seen[0] if seen else 0
    finally:
        back()
