"""Records: local copies of a run's small outs, with its lineage, below the home.

Everything in MLflow is published from a record. So a wiped store can be rebuilt, whatever task state the workspace is
in, and what a stage reports does not depend on which stage ran before it.
"""

import hashlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from biasline.data.split import keys_of
from biasline.errors import BiaslineError, full_disk_is_told, shown
from biasline.jsonfile import dump_json, load_json
from biasline.kinds.learning import find_learning
from biasline.layout import SPLITS, TaskPlace, local_state, record_folder, replacing, write_parquet, write_text
from biasline.params import CUSTOM, Task, read_task
from biasline.tokens.saved import SUMMARY
from biasline.tracking.lineage import lineage, made_again
from biasline.tracking.locks import file_lock

if TYPE_CHECKING:
    from filelock import FileLock

_LINEAGE, _OBSERVED, _LIVE = "lineage.json", "observed.json", "live.jsonl"
_LIVE_NOW = "live.running.jsonl"
_PROVED = "proved.txt"
ROWS_FILE = "rows.parquet"


@dataclass(frozen=True)
class Point:
    """What training reported at one step.

    Attributes:
        step: optimizer steps done.
        time: milliseconds since 1970.
        values: under their MLflow names.
    """

    step: int
    time: int
    values: dict[str, float]


@dataclass(frozen=True)
class Record:
    """One run's record; `files` are laid out as in the task's own folder."""

    task: str
    fingerprint: str

    @property
    def folder(self) -> Path:
        """Where the record lies."""
        return record_folder(self.task, self.fingerprint)

    @property
    def files(self) -> Path:
        """A folder: the copies of the task's files."""
        return self.folder / "files"

    @property
    def pin(self) -> Path:
        """The pin of the base that the run was made on, as it was then."""
        return self.folder / "pin.json"

    def file(self, path: Path) -> Path:
        """The record's copy of a file of the task (a path of its `TaskPlace`)."""
        return self.files / path.relative_to(TaskPlace(self.task).folder)

    def read(self, path: Path) -> Any:
        """A JSON file of the record; None where the run did not come so far."""
        found = self.file(path)
        return load_json(found, "biasline sync") if found.is_file() else None

    def resolved(self) -> Task:
        """The task as it was then, with every default."""
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

    @property
    def running(self) -> "FileLock":
        """Held by the process that trains this run."""
        return file_lock(self.folder / "running.lock", timeout=0)

    @property
    def points(self) -> list[Point]:
        """What training reported, in order; with times and what varies from run to run, which history.csv has not."""
        path = self.folder / _LIVE
        if not path.is_file():
            return []
        found = []
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):  # a disk that was full has cut it
                found.append(Point(**json.loads(line)))
        return found

    def begin_points(self) -> None:
        """Make room for what a training reports; an earlier one's points are kept until it is finished."""
        write_text(self.folder / _LIVE_NOW, "")

    def note_point(self, point: Point) -> None:
        """Add what training reports of a step."""
        with (self.folder / _LIVE_NOW).open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(point)) + "\n")

    def keep_points(self) -> None:
        """The training is finished: its points are the run's."""
        (self.folder / _LIVE_NOW).replace(self.folder / _LIVE)

    def begin(self, place: TaskPlace, *, trains: bool = False) -> None:
        """Note the lineage, the task and the base's pin, unless an earlier stage of the same run did.

        Args:
            place: of the task in the workspace.
            trains: the workspace's code and parameters are about to make this run, or would make it again. A lineage of
                what was in no commit is noted anew then, if all is committed by now.
        """
        task = read_task(place.resolved)
        for source, target in ((place.resolved, self.file(place.resolved)), (Path(task.base), self.pin)):
            if not target.is_file():
                with replacing(target) as draft:
                    shutil.copyfile(source, draft)
        earlier = self.lineage
        if not earlier or (trains and earlier.get("git.dirty") == "true"):
            base = Path(task.base)
            tags = lineage(task.data, task.base, str(base.with_suffix("")), str(CUSTOM)) | made_again(self.task, task)
            if not earlier or tags.get("git.dirty") == "false":
                write_text(self.folder / _LINEAGE, dump_json(tags))

    def is_proved(self, package: str) -> bool:
        """Whether a package of this run, named by its hash, was loaded and gave the evaluation's answers."""
        path = self.folder / _PROVED
        return path.is_file() and package in path.read_text(encoding="utf-8").split()

    def note_proof(self, package: str) -> None:
        """Remember that a package of this run was proved."""
        with full_disk_is_told(self.folder), (self.folder / _PROVED).open("a", encoding="utf-8") as file:
            file.write(package + "\n")

    def observe(self, **values: float) -> None:
        """Add measurements."""
        write_text(self.folder / _OBSERVED, dump_json(self.observed | values))

    def note_rows(self, place: TaskPlace) -> None:
        """Remember which rows this run had, as hashes of their content: who saw a row can be told later."""
        if not place.split("train").is_file():  # another method's tests bring token sets alone
            return
        task = self.resolved()
        kind, tenants = find_learning(task.kind).columns, task.tenants.column
        found = []
        for name in (*SPLITS, "quarantine"):
            rows = pl.read_parquet(place.split(name))
            hashes = [row_hash(key) for key in keys_of(rows, kind, tenants)]
            found.append(pl.DataFrame({"split": [name] * rows.height, "row": pl.Series(hashes, dtype=pl.String)}))
        with replacing(self.folder / ROWS_FILE) as draft:
            write_parquet(pl.concat(found), draft)

    def splits_with(self, hashes: Collection[str]) -> dict[str, int] | None:
        """How many of some rows each split of this run had; None where that was not noted, as by earlier versions.

        Args:
            hashes: of content keys, see `row_hash`.
        """
        path = self.folder / ROWS_FILE
        if not path.is_file():
            return None
        rows = pl.read_parquet(path).filter(pl.col("row").is_in(list(hashes)))
        return dict(rows.group_by("split").len().rows())

    def take(self, place: TaskPlace, *, trained: bool = False) -> None:
        """Copy the small outs that the workspace has of this run.

        The model and what it was made from are taken once: an equal fingerprint means equal files. The evaluation is
        taken whenever it is this model's, since it can be done again with other settings.

        Args:
            place: of the task in the workspace.
            trained: a training has just made them: they take the place of what the record has, which may be damaged.
        """
        self.begin(place)
        made = [place.resolved, place.quality, place.quality_page, place.preview, place.lengths, place.history]
        made += [place.delta, place.train_report, place.own, place.own_report, place.tokens / SUMMARY]
        wanted = [path for path in made if not self.file(path).exists()]
        if trained:
            self.note_rows(place)
            wanted += training_outs(place, self.resolved().tenants.many)
        evaluation = evaluation_outs(place)
        # metrics.json is in git, so a fresh clone has it before anything was evaluated: only the whole set counts.
        if all(path.exists() for path in evaluation if path != place.by_tenant):  # an earlier one has none
            metrics = load_json(place.metrics, f"dvc repro evaluate@{self.task}")
            if metrics.get("fingerprint") == self.fingerprint:
                wanted += [place.resolved, *evaluation]
        for path in wanted:
            if path.exists():
                with replacing(self.file(path)) as draft:
                    (shutil.copytree if path.is_dir() else shutil.copyfile)(path, draft)


def row_hash(key: str) -> str:
    """A short hash of a row's content key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def note_lineage(folder: Path, tags: Mapping[str, str], without: Collection[str] = ()) -> None:
    """Add tags to the lineage of the record that lies in a folder, and take others away."""
    path = folder / _LINEAGE
    known = load_json(path, "biasline sync") if path.is_file() else {}
    write_text(path, dump_json({name: value for name, value in known.items() if name not in without} | dict(tags)))


def training_outs(place: TaskPlace, many: bool = False) -> list[Path]:
    """What the train stage writes where a delta is trained; of a fleet also its tenants' own."""
    return [place.delta, *([place.own, place.own_report] if many else []), place.train_report, place.history]


def evaluation_outs(place: TaskPlace) -> list[Path]:
    """What the evaluate stage writes."""
    made = [place.metrics, place.predictions, place.slices, place.bias_change, place.samples, place.card]
    return [*made, place.confusion, place.by_tenant]


def record_of_workspace(task: str) -> Record | None:
    """The record that the workspace's trained model belongs to, brought up to date; None before training."""
    place = TaskPlace(task)
    if not place.train_report.is_file():
        return None
    report = load_json(place.train_report, f"dvc repro train@{task}")
    record = Record(task, report["fingerprint"])
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


def note_candidate(task: str, fingerprint: str) -> None:
    """Remember which run is the candidate, so that a wiped store gets it back."""
    write_text(_candidate_note(task), fingerprint + "\n")
    _pending_note(task).unlink(missing_ok=True)


def note_pending(task: str, fingerprint: str) -> None:
    """Remember which run is to be the candidate, while the store is away."""
    write_text(_pending_note(task), fingerprint + "\n")


def pending_candidate(task: str) -> str | None:
    """The fingerprint of the run that became candidate while the store was away."""
    path = _pending_note(task)
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def noted_candidate(task: str) -> str | None:
    """The fingerprint of the run that became candidate last on this machine."""
    path = _candidate_note(task)
    return path.read_text(encoding="utf-8").strip() if path.is_file() else None


def note_champion(task: str, fingerprint: str) -> None:
    """Remember which run is the champion, so that a fleet can keep its shared delta."""
    write_text(_champion_note(task), fingerprint + "\n")


def champion_files(task: str) -> Path:
    """The folder with the champion's outs, laid out as the task's own.

    Raises:
        BiaslineError: where there is no champion, or no record of it on this machine.
    """
    path = _champion_note(task)
    if not path.is_file():
        raise BiaslineError(f"{task}: no champion is known here", f"promote a version first, or `biasline sync {task}`")
    record = Record(task, path.read_text(encoding="utf-8").strip())
    place = TaskPlace(task)
    if not all(record.file(one).is_file() for one in (place.delta, place.train_report, place.history)):
        raise BiaslineError(
            f"{task}: the champion {record.fingerprint} was made on another machine, its record is not here",
            f"copy {shown(record.folder)} from there",
        )
    return record.files


def _champion_note(task: str) -> Path:
    return local_state() / "records" / task / "champion"


def _candidate_note(task: str) -> Path:
    return local_state() / "records" / task / "candidate"


def _pending_note(task: str) -> Path:
    return local_state() / "records" / task / "candidate.pending"
