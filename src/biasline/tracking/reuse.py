"""A stage's outs taken from the run's record, where the same work was done before.

DVC runs a stage again when a file of its code changes, be it by a comment. What a fingerprint says to be the same work
is then copied from the record, byte for byte, and nothing is computed.
"""

import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biasline.bases.pin import file_sha256, read_pin
from biasline.errors import BiaslineError, shown
from biasline.evaluation.fingerprint import evaluation_fingerprint
from biasline.jsonfile import dump_json, load_json
from biasline.layout import TaskPlace, replacing, write_text
from biasline.params import Task
from biasline.tracking.record import Record, evaluation_outs, training_outs
from biasline.training.fingerprint import fingerprint
from biasline.training.runtime.launch import launched

_DONE = "done.json"


@dataclass(frozen=True)
class Work:
    """What a stage is about to do.

    Attributes:
        record: of the run that it belongs to.
        stage: `train` or `evaluate`.
        fingerprint: of all that the outs are computed from.
        outs: files and folders of the task, as its `TaskPlace` names them.
        wanted: whether outs of the same work may be taken (`run.reuse`).
    """

    record: Record
    stage: str
    fingerprint: str
    outs: Sequence[Path]
    wanted: bool

    def reuse(self) -> str:
        """Put the outs of the same work in their place, all or none.

        Returns:
            one line that says so; empty where the work is to be done: the record has no such work, or was damaged.
        """
        noted = _noted(self.record).get(self.stage, {})
        if not self.wanted or noted.get("fingerprint") != self.fingerprint:
            return ""
        kept = {name: self.record.files / name for name in noted["files"]}
        if any(not kept[name].is_file() or file_sha256(kept[name]) != hash_ for name, hash_ in noted["files"].items()):
            return ""
        folder = TaskPlace(self.record.task).folder
        for name in noted["folders"]:
            with replacing(folder / name) as draft:
                draft.mkdir()
        for name, source in kept.items():
            with replacing(folder / name) as draft:
                shutil.copyfile(source, draft)
            if file_sha256(folder / name) != noted["files"][name]:  # taken anew meanwhile, by another process
                return ""
        self.record.begin(TaskPlace(self.record.task), trains=self.stage == "train")
        return (
            f"done before, from the same inputs by the same code: outs copied from {shown(self.record.folder)} "
            "(run.reuse: false computes them anew)"
        )

    def note(self) -> None:
        """Note that the record has taken the outs; nothing where it lacks one, or has others of the same name.

        Two evaluations of one model share a record, and the later one's files take the place of the earlier one's.
        """
        if not all(path.exists() for path in self.outs) or self._failed():
            return
        folder = TaskPlace(self.record.task).folder
        made = {file.relative_to(folder).as_posix(): file_sha256(file) for out in self.outs for file in _files(out)}
        kept = {name: self.record.files / name for name in made}
        if any(not kept[name].is_file() or file_sha256(kept[name]) != hash_ for name, hash_ in made.items()):
            return
        folders = [out.relative_to(folder).as_posix() for out in self.outs if out.is_dir()]
        done = {"fingerprint": self.fingerprint, "folders": folders, "files": made}
        write_text(self.record.folder / _DONE, dump_json(_noted(self.record) | {self.stage: done}))

    def _failed(self) -> bool:
        """Whether own trainings of a fleet failed, which are to be tried again."""
        report = TaskPlace(self.record.task).train_report
        return self.stage == "train" and load_json(report, "").get("tenants", {}).get("failed", 0) > 0


def training_work(task: Task, place: TaskPlace, shared: Path | None = None) -> Work:
    """The training that the train stage is about to do; `shared` as `training.fingerprint` takes it.

    One of several processes takes nothing from a record, nor does one machine of several: the others would wait for it.
    """
    name = fingerprint(task, read_pin(Path(task.base)), place, shared)
    wanted = _may_reuse(task) and not task.run.launch and not launched()
    return Work(Record(place.task, name), "train", name, training_outs(place, task.tenants.many), wanted)


def evaluation_work(task: Task, place: TaskPlace) -> Work:
    """The evaluation that the evaluate stage is about to do, of the model that lies in the workspace."""
    model = load_json(place.train_report, f"dvc repro train@{place.task}")["fingerprint"]
    name = evaluation_fingerprint(task, place)
    return Work(Record(place.task, model), "evaluate", name, evaluation_outs(place), _may_reuse(task))


def _may_reuse(task: Task) -> bool:
    """Whether outs may be copied: not where code that comes with the base takes part, which no fingerprint knows."""
    return task.run.reuse and not task.load.trust_remote_code


def _noted(record: Record) -> dict[str, Any]:
    with suppress(BiaslineError):  # there is none as yet, or a full disk has cut it
        return load_json(record.folder / _DONE, "")
    return {}


def _files(path: Path) -> Iterable[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
