"""A run while it trains: metrics as they come, and an honest end whatever happens."""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from biasline.errors import BiaslineError, first_line
from biasline.tracking.contents import metric_names
from biasline.tracking.publish import as_metrics, begin_run, end_orphans, last_step, log_points
from biasline.tracking.record import Point, Record
from biasline.tracking.store import connect

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

_FLUSH_EVERY_S = 5.0
# Another command may look at the lock for a moment.
_PATIENCE_S = 5.0


class LiveRun:
    """Reports training to the run of a record. The store being away is told once and never stops the training.

    Every point goes to the record first, so that `biasline sync` has what the store missed of a training that finished.

    Raises:
        BiaslineError: where another process trains this very run.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self._lock = record.running
        try:
            self._lock.acquire(timeout=_PATIENCE_S)
        except Timeout:
            raise BiaslineError(
                f"{record.task}: another process is training this very model (fingerprint {record.fingerprint})",
                "wait for it, or stop it",
            ) from None
        self._noting = True
        self._note(record.begin_points)
        self._buffer: list[Metric] = []
        self._flushed = time.monotonic()
        self._client: MlflowClient | None = None
        try:
            self._client = connect()
            end_orphans(self._client, record.task)
            self._run_id = begin_run(self._client, record)
            # A run that is trained again (its outs were lost) goes through the same steps: no doubles.
            self._after = last_step(self._client, self._run_id)
        except Exception as error:
            self._lose(error)

    def log(self, step: int, values: dict[str, float]) -> None:
        """Note metrics of a step, under the names of history.csv or MLflow's own; written every few seconds."""
        point = Point(step, int(time.time() * 1000), metric_names(values))
        self._note(lambda: self.record.note_point(point))
        if self._client is None or step <= self._after:
            return
        self._buffer += as_metrics(point)
        if time.monotonic() - self._flushed > _FLUSH_EVERY_S:
            self.flush()

    def flush(self) -> None:
        """Send what was noted to the store; where that fails, the record keeps it."""
        if self._client is None:
            return
        try:
            log_points(self._client, self._run_id, self._buffer)
        except Exception as error:
            self._lose(error)
        self._buffer, self._flushed = [], time.monotonic()

    def end(self, status: str) -> None:
        """Set the run's end: FINISHED, FAILED or KILLED."""
        self.flush()
        if self._client is not None:
            try:
                self._client.set_terminated(self._run_id, status)
            except Exception as error:
                self._lose(error)
        if status == "FINISHED":
            self._note(self.record.keep_points)
        self._lock.release()

    def _note(self, write: Callable[[], None]) -> None:
        """Write to the record; a disk that is full is told once, and training goes on."""
        if self._noting:
            try:
                write()
            except OSError as error:
                self._noting = False
                print(f"warning: not recorded: {self.record.folder}: {error.strerror}", file=sys.stderr)

    def _lose(self, error: Exception) -> None:
        self._client = None
        print(f"warning: not tracked live: {first_line(error)} → `biasline sync` catches up", file=sys.stderr)


@contextmanager
def ended_honestly(run: LiveRun) -> Iterator[None]:
    """End the run as FINISHED, FAILED or KILLED, by how the block ends; SIGTERM counts as killed."""

    def stop(*_: Any) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except (SystemExit, KeyboardInterrupt):
        run.end("KILLED")
        raise
    except BaseException:
        run.end("FAILED")
        raise
    else:
        run.end("FINISHED")
    finally:
        signal.signal(signal.SIGTERM, before)


def publish_or_warn(record: Record) -> None:
    """Publish a record; a store that is away is a warning, because the outs are what counts."""
    from biasline.tracking.publish import publish

    try:
        publish(connect(), record)
    except BiaslineError as error:
        print(f"warning: not published: {error}", file=sys.stderr)
    except Exception as error:
        print(f"warning: not published: {first_line(error)} → `biasline sync` catches up", file=sys.stderr)
