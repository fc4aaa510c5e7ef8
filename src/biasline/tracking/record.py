"""Records: local copies of a run's small outs, with its lineage, below the home.

Everything in MLflow is published from a record. So a wiped store can be rebuilt, whatever task state the workspace is
in, and what a stage reports does not depend on which stage ran before it.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biasline.jsonfile import dump_json, load_json
from biasline.layout import TaskPlace, local_state, record_folder, replacing, write_text
from biasline.params import Task, read_task
from biasline.tracking.lineage import lineage

_LINEAGE, _OBSERVED = "lineage.json", "observed.json"


@dataclass(frozen=True)
class Record:
    """One run's record; `files` are laid out as in the task's own folder."""

    task: str
    fingerprint: str

    @property
    def folder(self) -> Path:
        return record_folder(self.task, self.fingerprint)

    @property
    def files(self) -> Path:
        return self.folder / "files"

    def file(self, path: Path) -> Path:
        """The record's copy of a file of the task (a path of its `TaskPlace`)."""
        return self.files / path.relative_to(TaskPlace(self.task).folder)

    def read(self, path: Path) -> Any:
        """A JSON file of the record; None where the run did not come so far."""
        found = self.file(path)
        return load_json(found, "biasline sync") if found.is_file() else None

    def resolved(self) -> Task:
        return read_task(self.file(TaskPlace(self.task).resolved))

    @property
    def lineage(self) -> dict[str, str]:
        """Tags of where the run was made; taken when the record was begun."""
        path = self.folder / _LINEAGE
        return load_json(path, "biasline sync") if path.is_file() else {}

    @property
    def observed(self) -> dict[str, float]:
        """What varies from run to run: times, memory."""
        path = self.folder / _OBSERVED
        return load_json(path, "biasline sync") if path.is_file() else {}

    def begin(self, place: TaskPlace) -> None:
        """Note the lineage and the task, unless an earlier stage of the same run did."""
        if not self.file(place.resolved).is_file():
            with replacing(self.file(place.resolved)) as draft:
                shutil.copyfile(place.resolved, draft)
        if not (self.folder / _LINEAGE).is_file():
            write_text(self.folder / _LINEAGE, dump_json(lineage()))

    def observe(self, **values: float) -> None:
        """Add measurements."""
        write_text(self.folder / _OBSERVED, dump_json(self.observed | values))

    def take(self, place: TaskPlace) -> None:
        """Copy the small outs that the workspace has of this run.

        The model and what it was made from are taken once: an equal fingerprint means equal files. The evaluation is
        taken whenever it is this model's, since it can be done again with other settings.
        """
        self.begin(place)
        made = [place.resolved, place.quality, place.quality_page, place.preview, place.history]
        made += [place.delta, place.train_report]
        wanted = [path for path in made if not self.file(path).is_file()]
        if place.metrics.is_file() and load_json(place.metrics, "").get("fingerprint") == self.fingerprint:
            wanted += [place.resolved, place.metrics, place.predictions, place.slices, place.bias_change]
            wanted += [place.samples, place.card]
        for path in wanted:
            if path.is_file():
                with replacing(self.file(path)) as draft:
                    shutil.copyfile(path, draft)


def record_of_workspace(task: str) -> Record | None:
    """The record that the workspace's trained model belongs to, brought up to date; None before training."""
    place = TaskPlace(task)
    if not place.train_report.is_file():
        return None
    fingerprint = json.loads(place.train_report.read_text(encoding="utf-8"))["fingerprint"]
    record = Record(task, fingerprint)
    record.take(place)
    return record


def all_records(task: str) -> Iterator[Record]:
    """Every record of a task that holds a trained model, oldest first."""
    folder = local_state() / "records" / task
    if not folder.is_dir():
        return
    found = [Record(task, path.name) for path in folder.iterdir() if path.is_dir()]
    found = [record for record in found if record.read(TaskPlace(task).train_report)]
    yield from sorted(found, key=lambda record: (record.folder / _LINEAGE).stat().st_mtime_ns)
