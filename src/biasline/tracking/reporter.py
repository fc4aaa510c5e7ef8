"""What the train and evaluate stages report: progress, metrics of a run as they come, its record, its publication."""

from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING

from biasline.layout import TaskPlace
from biasline.progress import Progress, progress
from biasline.tracking.live import LiveRun, ended_honestly, publish_or_warn
from biasline.tracking.meter import Meter
from biasline.tracking.record import Record, record_of_workspace
from biasline.tracking.reuse import Work

if TYPE_CHECKING:
    from biasline.training.loop import Report
    from biasline.training.train import Start

# Of the last row that had them: a validation loss stays in sight until the next one.
_IN_SIGHT = ("loss", "valid_loss", "valid_accuracy")


class StepReporter:
    """Told of each step (`training.loop.Report`): to the run, and as progress on a terminal or in a log.

    Attributes:
        meter: what the training costs.
    """

    def __init__(self, run: LiveRun, shown: Progress) -> None:
        self.meter = Meter()
        self._run, self._progress = run, shown
        self._latest: dict[str, float] = {}

    def __call__(self, step: int, values: Mapping[str, float], earlier: bool) -> None:
        """Report a step.

        Args:
            step: how many are done.
            values: the row of history that was written after it, without its empty cells; empty where none was.
            earlier: it was done by an earlier process and comes from a checkpoint: it says nothing about this one.
        """
        if values:
            self._log(step, values, earlier)
        if not earlier:
            self._progress.at(step, self._note())

    def _log(self, step: int, values: Mapping[str, float], earlier: bool) -> None:
        metrics = {name: value for name, value in values.items() if name != "seconds"}
        if earlier:
            self.meter.skip(values["tokens"], values["seconds"])
            self._progress.skip(step)
        else:
            metrics |= self.meter.read(values["tokens"])
        self._run.log(step, metrics)
        self._latest |= metrics

    def _note(self) -> str:
        parts = [f"{name.replace('_', ' ')} {self._latest[name]:.4f}" for name in _IN_SIGHT if name in self._latest]
        if "tokens_per_second" in self._latest:
            parts.append(f"{self._latest['tokens_per_second']:,.0f} tokens/s")
        return ", ".join(parts)


class TrainingReporter:
    """Reports a training from its begin to its end, whatever that is.

    `with TrainingReporter(place) as reporter: train(task, place, reporter.begin)`: when the block ends, the run has its
    status; where it ended well, the record has the outs and what they cost.

    A training calls `begin` in the first of its processes alone; in any other nothing is reported.

    Args:
        place: where the task's files lie.
        work: what is trained; noted as done where it ends well.

    Attributes:
        record: of the run that is trained; None where nothing began.
    """

    def __init__(self, place: TaskPlace, work: Work) -> None:
        self.record: Record | None = None
        self._place, self._work, self._stack = place, work, ExitStack()
        self._report: StepReporter | None = None

    def begin(self, start: "Start") -> "Report":
        """The report of a training that begins.

        Raises:
            BiaslineError: where another process trains this very model.
        """
        record = Record(self._place.task, start.fingerprint)
        record.begin(self._place, trains=True)
        run = LiveRun(record)
        self._stack.enter_context(ended_honestly(run))
        self._report = StepReporter(run, self._stack.enter_context(progress("step", start.steps)))
        self.record = record
        return self._report

    def __enter__(self) -> "TrainingReporter":
        """Nothing begins before the training says so."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the run by how the block ended, and take the outs of a training that is finished into the record."""
        self._stack.__exit__(kind, error, trace)
        if error is None and self.record is not None and self._report is not None:
            self.record.take(self._place, trained=True)
            self._work.note()
            self.record.observe(**self._report.meter.observed())

    def publish(self) -> None:
        """Publish the run; nothing where nothing began."""
        if self.record is not None:
            publish_or_warn(self.record)


def report_evaluation(work: Work, seconds: float, observed: Mapping[str, float]) -> None:
    """Take the workspace's evaluation into its model's record, and publish it.

    Args:
        work: what was evaluated; noted as done.
        seconds: how long it took.
        observed: what else was measured and varies from run to run, by its name in the run.
    """
    record = record_of_workspace(work.record.task)
    assert record is not None, "evaluate has just read the model"
    record.observe(**{"evaluate.seconds": round(seconds, 1), **observed})
    work.note()
    publish_or_warn(record)
