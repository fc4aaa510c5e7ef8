"""Progress of a long step: a bar on a terminal, plain lines now and then in a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LINE_EVERY_S = 10.0
# Told how much was done since it was told before.
Advance = Callable[[int], None]
_open: list["Progress"] = []


class Progress:
    """Told how far a step is; shows it."""

    def __init__(self, what: str, total: int) -> None:
        self.what, self.total = what, total
        self.started = self.last_line = time.monotonic()
        self._before = self._done = 0
        self.bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            for outer in _open:  # a terminal shows one bar at a time
                outer.close()
            self.bar = Bar(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True))
            self.bar.start()
            self.task = self.bar.add_task(what, total=total, note="")
            _open.append(self)

    def skip(self, done: int) -> None:
        """So many were done by an earlier process: they say nothing about the time that is left."""
        self._before, self.started = done, time.monotonic()
        if self.bar is not None:
            self.bar.reset(self.task, total=self.total, completed=done)

    def at(self, done: int, note: str = "") -> None:
        """`done` of the total are done; `note` says what is worth knowing, such as the loss."""
        if self.bar is not None:
            self.bar.update(self.task, completed=done, note=note)
            return
        now = time.monotonic()
        if now - self.last_line >= _LINE_EVERY_S or done == self.total:
            self.last_line = now
            left = (now - self.started) / max(done - self._before, 1) * (self.total - done)
            print(f"{self.what} {done}/{self.total}, {left:.0f} s left{', ' + note if note else ''}", flush=True)

    def part(self, weight: int = 1, note: str = "") -> Advance:
        """What tells of the next part of the step: of each unit that is done, which counts so many of the total."""

        def advance(units: int) -> None:
            self._done += weight * units
            self.at(self._done, note)

        return advance

    def close(self) -> None:
        """Take the bar away."""
        if self.bar is not None:
            self.bar.stop()
            _open[:] = [other for other in _open if other is not self]


@contextmanager
def progress(what: str, total: int) -> Iterator[Progress]:
    """Show the progress of the block."""
    shown = Progress(what, total)
    try:
        yield shown
    finally:
        shown.close()
