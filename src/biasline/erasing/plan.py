"""What is to be erased, and what holds or saw it: looked for before anything is changed."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from biasline.data.split import keys_of
from biasline.erasing.cache import Cache
from biasline.erasing.rows import Selected, select, take_out
from biasline.erasing.runs import LEARNED, UNKNOWN, Trainings, trainings_with
from biasline.erasing.served import served_rows
from biasline.errors import BiaslineError, first_few, shown
from biasline.kinds.learning import find_learning
from biasline.layout import SPLITS, TaskPlace, home
from biasline.params import Task, Where, read_params
from biasline.tracking.git import GitRefused, git
from biasline.tracking.record import row_hash

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Request:
    """What somebody wants erased.

    Attributes:
        task: name of the task.
        rows: a file of rows; or
        where: a filter on the raw data.
        traffic: folders of servers.
        everything: whether most rows may go.
        withdraw: whether a champion that had the rows goes even where nothing takes its place.
        by: who decides.
        reason: why.
    """

    task: str
    rows: Path | None
    where: Where
    traffic: tuple[Path, ...] = ()
    everything: bool = False
    withdraw: bool = False
    by: str = ""
    reason: str = ""

    @property
    def told(self) -> str:
        """What is erased, as a hash: a plan that was begun belongs to one request."""
        rows = self.rows.read_bytes() if self.rows is not None else b""
        return hashlib.sha256(json.dumps([self.task, self.where], default=list).encode() + rows).hexdigest()[:16]


@dataclass(frozen=True)
class Plan:
    """What holds or saw the rows.

    Attributes:
        selected: the rows.
        trainings: that had them.
        served: folder → rows in it.
        splits: rows of each split in the workspace.
        cached: objects of DVC's cache, and their bytes.
        unreached: what this command cannot reach, in words.
    """

    selected: Selected
    trainings: Trainings
    served: dict[Path, int]
    splits: dict[str, int]
    cached: tuple[int, int]
    unreached: list[str] = field(default_factory=list)

    @property
    def learned(self) -> list[str]:
        """Trainings that learned from the rows, or may have."""
        return [name for name, how in self.trainings.how.items() if how in (LEARNED, UNKNOWN)]

    @property
    def as_data(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "rows": self.selected.rows,
            "of": self.selected.total,
            "files": {str(path): len(numbers) for path, numbers in self.selected.records.items()},
            "kept_elsewhere": len(self.selected.kept_elsewhere),
            "trainings": self.trainings.how,
            "runs": list(self.trainings.runs),
            "versions": list(self.trainings.versions),
            "aliases": self.trainings.aliases,
            "records": len(self.trainings.records),
            "checkpoints": len(self.trainings.checkpoints),
            "splits": self.splits,
            "served": {str(folder): count for folder, count in self.served.items()},
            "cache": {"objects": self.cached[0], "bytes": self.cached[1]},
            "unreached": self.unreached,
        }

    @property
    def lines(self) -> list[str]:
        """What to say of it."""
        found, had = self.selected, self.trainings
        lines = [f"{found.rows:,} of {found.total:,} rows of the raw data"]
        lines += [f"- {len(numbers):,} in {shown(path)}" for path, numbers in sorted(found.records.items())]
        if found.absent:
            lines.append(f"- {found.absent:,} rows of the list are in no raw file")
        if found.kept_elsewhere:
            lines.append(
                f"- {len(found.kept_elsewhere):,} of their texts are those of rows that stay, too: they are not "
                "refused when they come back"
            )
        lines += [f"{count:,} rows served, in {shown(folder)}" for folder, count in self.served.items()]
        ways = sorted(set(had.how.values()))
        counts = ", ".join(f"{way} {sum(one == way for one in had.how.values()):,}" for way in ways)
        lines.append(f"{len(had.how):,} trainings had them" + (f": {counts}" if counts else ""))
        lines.append(
            f"- {len(had.runs):,} runs and {len(had.versions):,} versions in MLflow, {len(had.records):,} records and "
            f"{len(had.checkpoints):,} checkpoints here"
        )
        lines += [f"- the {alias} is one of them: {name}" for alias, name in had.aliases.items()]
        objects, size = self.cached
        lines.append(f"{objects:,} earlier outs of the task in DVC's cache, {size:,} bytes, and on its remotes")
        told = ", ".join(f"{name} {count:,}" for name, count in self.splits.items())
        lines.append(
            f"in the workspace: {told or 'no split has them now'}; splits, token sets, augmented rows, model and "
            "evaluation are made again"
        )
        return lines + [f"NOT reached: {one}" for one in self.unreached]


def plan(client: "MlflowClient", request: Request, task: Task, *, of_commits: bool = False) -> Plan:
    """Say what holds or saw the rows; nothing is changed.

    Args:
        client: client of the tracking store.
        request: what is to go.
        task: its parameters.
        of_commits: whether outs of every commit are looked for in DVC's cache, which takes longer.

    Raises:
        BiaslineError: where no row is named, or most are and that is not said to be meant.
    """
    root = home()
    selected = select(task, root / task.data, request.rows, request.where)
    served = {
        folder: served_rows(folder, request.task, task, selected.keys, selected.texts, take_out=False)
        for folder in request.traffic
    }
    had = trainings_with(client, request.task, {row_hash(key) for key in selected.keys})
    known = [how for how in had.how.values() if how != UNKNOWN]
    if not selected.rows and not any(served.values()) and not known:
        raise BiaslineError(f"{task.data}: no row is like that", "nothing is erased; look at the file or filter")
    if 2 * selected.rows > selected.total and not request.everything:
        raise BiaslineError(
            f"{selected.rows:,} of {selected.total:,} rows of {task.data} are named, more than half",
            "if that is meant: --all" + ("; a file without rows is to be deleted by hand" * _is_all(selected)),
        )
    for path, numbers in selected.records.items() if not _is_all(selected) else ():
        take_out(task, root / task.data, path, numbers, dry_run=True)
    cache = Cache(root)
    objects = cache.objects(cache.of_task(request.task, of_commits=of_commits))
    size = sum(path.stat().st_size for path in objects)
    splits = _splits(TaskPlace(request.task), task, selected)
    return Plan(selected, had, served, splits, (len(objects), size), _unreached(request, task, root))


def _splits(place: TaskPlace, task: Task, selected: Selected) -> dict[str, int]:
    """Rows of each split in the workspace that are to go."""
    found = {}
    for name in (*SPLITS, "quarantine"):
        if place.split(name).is_file():
            rows = pl.read_parquet(place.split(name))
            keys = keys_of(rows, find_learning(task.kind).columns, task.tenants.column)
            found[name] = sum(key in selected.keys for key in keys)
    return {name: count for name, count in found.items() if count}


def _is_all(selected: Selected) -> bool:
    return selected.rows == selected.total


def _unreached(request: Request, task: Task, root: Path) -> list[str]:
    """What no command here takes rows out of."""
    told = []
    try:
        paths = sorted({task.data, *Cache(root).raw_paths(request.task)})
        commits = (git("log", "--all", "--format=%h", "--", *paths, where=root) or "").split()
        if commits:
            told.append(
                f"git's history: {len(commits):,} commits of {first_few(paths, 3)} ({first_few(commits, 3)}), here, in "
                "other clones and at its remotes; `git filter-repo` rewrites it"
            )
        refs = (git("for-each-ref", "--format=%(refname)", "refs/exps", where=root) or "").split()
        if refs:
            told.append(f"{len(refs):,} DVC experiments: `dvc exp remove --all-commits` forgets them")
    except GitRefused as error:
        told.append(f"git: {error}")
    others = [name for name, one in read_params(root / "params.yaml").tasks.items() if one.data == task.data]
    told += [f"the task {name}, which has the same data: erase there too" for name in others if name != request.task]
    if task.tenants.keeps_shared:
        told.append("the fleet's shared delta: it learned from them and is kept (tenants.shared: keep)")
    if not request.traffic:
        told.append("what servers kept: name their folders (--traffic)")
    return [*told, "other clones' records, caches and backups; models that were exported or are loaded elsewhere"]
