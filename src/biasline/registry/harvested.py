"""What harvested rows brought: the workspace's model beside one trained without them, and beside the champion."""

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from biasline.data.files import HARVESTED
from biasline.errors import BiaslineError
from biasline.evaluation.intervals import format_interval
from biasline.layout import TaskPlace, home, local_state, write_text
from biasline.metrics.table import label_of
from biasline.params import Task
from biasline.registry.aliases import CHAMPION
from biasline.registry.evidence import on_rows_of
from biasline.registry.gates import Shown, gain_over
from biasline.serving.registered import aliased
from biasline.tracking.compare import run_queued
from biasline.tracking.git import git
from biasline.tracking.record import Record, record_of_workspace

if TYPE_CHECKING:
    from mlflow import MlflowClient

_EXPERIMENT = "without-harvested-{fingerprint}"


@dataclass(frozen=True)
class Gain:
    """How much better one model is than another on the same test rows, in the metric's unit, with a 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def told(self) -> str:
        """In words."""
        return f"{self.value:+.4f}{format_interval(self.low, self.high, '+.4f')}"


@dataclass(frozen=True)
class Effect:
    """What harvested rows brought.

    Attributes:
        metric: by which it is told.
        rows: harvested rows among those that were trained on.
        test_rows: by which both are judged.
        fingerprint: of the training with them.
        without: of the one without.
        gain: of the first over the second.
        over_champion: of the first over the champion; None where there is none, or it is that training.
    """

    metric: str
    rows: int
    test_rows: int
    fingerprint: str
    without: str
    gain: Gain
    over_champion: Gain | None

    @property
    def share(self) -> float | None:
        """Of the improvement over the champion, what the rows brought; None where no improvement is shown."""
        over = self.over_champion
        return self.gain.value / over.value if over is not None and over.low > 0 else None

    @property
    def as_data(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "share": self.share}

    def as_markdown(self, task: str) -> str:
        """The page."""
        over = self.over_champion
        lines = [
            f"# {task}: what harvested rows brought",
            "",
            f"{self.metric} on {self.test_rows:,} test rows, none of them harvested; differences are paired, row by "
            "row, with 95 % intervals.",
            "",
            "| | |",
            "|---|---|",
            f"| harvested rows trained on | {self.rows:,} |",
            f"| with them (`{self.fingerprint}`) over without them (`{self.without}`) | {self.gain.told} |",
            f"| with them over the champion | {over.told if over else 'there is no other champion'} |",
        ]
        if self.share is not None:
            lines.append(f"| their share of the improvement | {self.share:.0%} |")
        elif over is not None:
            lines.append("| their share of the improvement | no improvement over the champion is shown |")
        return "\n".join(lines) + "\n"


def effect(client: "MlflowClient", name: str, task: Task) -> Effect:
    """Train a task without its harvested rows, unless that was done, and compare.

    Args:
        client: client of the tracking store.
        name: of the task.
        task: as params.yaml has it.

    Raises:
        BiaslineError: where the workspace's model is not of these parameters, nothing was harvested, or DVC fails.
    """
    place = TaskPlace(name)
    if not sorted((home() / task.data).glob(f"{HARVESTED}*.jsonl")):
        raise BiaslineError(f"{task.data}: no harvested rows in it", f"`biasline harvest {name} --traffic FOLDER`")
    here = record_of_workspace(name)
    if here is None or here.resolved() != task or here.read(place.metrics) is None:
        raise BiaslineError(f"{name}: the workspace has no model of these parameters", f"dvc repro register@{name}")
    experiment = _EXPERIMENT.format(fingerprint=here.fingerprint)
    other = _made_by(experiment, name)
    if other is None:
        settings = ["--name", experiment, "-S", f"++tasks.{name}.source.harvested=false"]
        run_queued([["dvc", "exp", "run", "--queue", *settings, f"register@{name}"]], task.data)
        other = _made_by(experiment, name)
    if other is None:
        raise BiaslineError(f"{name}: the training without harvested rows left no record", "DVC's messages are above")
    shown, beside = _shown(here), _shown(other)
    if shown.metrics["test_sha256"] != beside.metrics["test_sha256"]:
        raise BiaslineError(
            f"{name}: with and without harvested rows the test rows are not the same, so nothing can be said",
            "a file of test rows (test.jsonl) in the folder of the data keeps them as they are",
        )
    metric = task.declared(task.decided_by(shown.metrics), shown.metrics["tuned"])
    champion = aliased(client, name, CHAMPION)
    over = None
    if champion is not None and champion.tags["biasline.fingerprint"] != here.fingerprint:
        over = Gain(*gain_over(task, metric, shown, on_rows_of(client, champion, shown, task)))
    trained = pl.read_parquet(place.split("train"), columns=["file"])["file"]
    count = int(trained.str.split("/").list.last().str.starts_with(HARVESTED).sum())
    found = Effect(
        label_of(task.kind, metric.name),
        count,
        shown.predictions.height,
        here.fingerprint,
        other.fingerprint,
        Gain(*gain_over(task, metric, shown, beside)),
        over,
    )
    write_text(local_state() / "harvest" / name / "effect.md", found.as_markdown(name))
    return found


def _made_by(experiment: str, name: str) -> Record | None:
    """The record of what a DVC experiment made; None where there is none.

    A training on the same rows may have been there before, so that the experiment has no record of its own.
    """
    place = TaskPlace(name)
    for ref in (git("for-each-ref", "--format=%(refname)", "refs/exps", where=home()) or "").split():
        if ref.rpartition("/")[2] == experiment:
            told = json.loads(git("show", f"{ref}:{place.metrics.as_posix()}", where=home()) or "{}")
            record = Record(name, told.get("fingerprint", ""))
            return record if record.read(place.metrics) is not None else None
    return None


def _shown(record: Record) -> Shown:
    place = TaskPlace(record.task)
    return Shown(record.fingerprint[:8], record.read(place.metrics), pl.read_parquet(record.file(place.predictions)))
