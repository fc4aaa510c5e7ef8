"""`biasline harvest`: what people corrected of served answers becomes a raw file of the task's data."""

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from biasline.data.files import HARVESTED
from biasline.data.folders import is_saved
from biasline.data.records import read_records
from biasline.data.rules import LEAK, NEAR_DUPLICATE
from biasline.data.sources import read_examples
from biasline.data.turns import DIALOGUE
from biasline.data.validate import Dealt, deal
from biasline.errors import BiaslineError, first_few, shown
from biasline.kinds.learning import find_learning
from biasline.layout import TaskPlace, local_state, write_text
from biasline.params import Task, read_params
from biasline.paramsfile import set_data
from biasline.tracking.locks import file_lock
from biasline.watching.feedback import Corrected, Matched

# Columns of a harvested row that say where it comes from.
NAME, AT, ANSWERED_BY, ANSWERED = "harvested", "harvested_at", "harvested_from", "harvested_answer"
IN_TEST, NEAR_HELD_OUT, NEAR_OTHER = "it would be a test row", "nearly a held-out row", "nearly a row that is there"
AGAIN, NEW_LABEL, FILTERED = (
    "harvested before",
    "a label that no row has",
    "left out by source.where or source.prefer, or erased",
)
_SHOWN = 3


@dataclass(frozen=True)
class Harvest:
    """What came of a harvest.

    Attributes:
        rows: that the file has.
        confirmed: of these, those whose answer was right.
        file: where they are, or would be.
        left_out: reason → what was said so.
        notes: what a person should know.
        moved: the file of data that now lies in a folder, and that; None where it does already.
    """

    rows: int
    confirmed: int
    file: Path
    left_out: dict[str, list[str]]
    notes: list[str] = field(default_factory=list)
    moved: tuple[Path, Path] | None = None

    @property
    def as_data(self) -> dict[str, Any]:
        """As plain data."""
        left_out = {reason: len(said) for reason, said in self.left_out.items()}
        return {"rows": self.rows, "confirmed": self.confirmed, "file": str(self.file), "left_out": left_out}

    def lines(self, dry_run: bool) -> list[str]:
        """What to say of it."""
        word = "would be " if dry_run else ""
        told = [f"{self.rows:,} rows {word}in {shown(self.file)}: {self.rows - self.confirmed:,} corrected, "]
        told[0] += f"{self.confirmed:,} confirmed"
        for reason, said in sorted(self.left_out.items(), key=lambda pair: -len(pair[1])):
            told.append(f"left out, {reason}: {len(said):,} ({first_few(said, _SHOWN)})")
        if self.moved is not None and self.rows:
            was, now = self.moved
            told.append(f"{shown(was)} {word}moved to {shown(now)}, and `data` in params.yaml {word}its folder")
        return told + [f"note: {note}" for note in self.notes]


def harvest(name: str, task: Task, matched: Matched, root: Path, *, dry_run: bool = False) -> Harvest:
    """Put corrected rows beside a task's data, those that can be learned from.

    They are held against the contract, and dealt to splits, as the next `validate` does. None becomes a test row, nor
    what is near one: the next model is judged by the rows that the last one was judged by.

    Args:
        name: of the task.
        task: as params.yaml has it.
        matched: what people said, beside what was answered.
        root: the project's folder; paths of the task are below it.
        dry_run: only say what would come of it.

    Raises:
        BiaslineError: where the data are no files that rows can be put beside.
    """
    with nullcontext() if dry_run else file_lock(local_state() / "harvest" / f"{name}.lock"):
        return _harvest(name, task, matched, root, dry_run)


def _harvest(name: str, task: Task, matched: Matched, root: Path, dry_run: bool) -> Harvest:
    data = root / task.data
    folder = _folder_for(name, data)
    _refuse_shared(root, name, task)
    if _was_moved(data, folder):  # by a harvest that was killed
        set_data(root / "params.yaml", name, folder.relative_to(root).as_posix())
        data, task = folder, task.model_copy(update={"data": folder.relative_to(root).as_posix()})
    elif data != folder and folder.is_dir() and any(folder.iterdir()):
        raise BiaslineError(
            f"{shown(folder)}: is there already, so {shown(data)} cannot be moved into it",
            f"put it there yourself, and name the folder as data of tasks.{name} in params.yaml",
        )
    known = sorted(folder.glob(f"{HARVESTED}*.jsonl")) if folder.is_dir() else []
    file = folder / f"{HARVESTED}{_last(known) + 1:03}.jsonl"
    left_out = {reason: list(said) for reason, said in matched.left_out.items()}
    before = {str(record.get(NAME)) for path in known for record in read_records(path, lambda *_: True)}
    rows = []
    for row in matched.rows:
        if row.name in before:
            left_out.setdefault(AGAIN, []).append(row.name)
        else:
            rows.append(row)
    records = _records(root, task, rows)
    kept = []
    if records:
        dealt = _dealt(task, data, records, file.name, TaskPlace(name).erased)
        fates = _fates(dealt, rows, task)
        for row in rows:
            if reason := fates[row.name]:
                left_out.setdefault(reason, []).append(row.name)
        kept = [row for row in rows if not fates[row.name]]
    moved = (data, folder / data.name) if data != folder else None
    confirmed = sum(row.right == row.answered for row in kept)
    found = Harvest(len(kept), confirmed, file, left_out, list(matched.notes), moved)
    if kept and not dry_run:
        names = {row.name for row in kept}
        text = _lines([record for record in records if record[NAME] in names])
        if moved is not None:
            folder.mkdir(exist_ok=True)
            data.rename(folder / data.name)
            set_data(root / "params.yaml", name, folder.relative_to(root).as_posix())
        write_text(file, text)
    return found


def _folder_for(name: str, data: Path) -> Path:
    """Where harvested files lie: the folder of the data, or the one that a single file would be moved into."""
    if data.is_dir():
        if is_saved(data):
            raise BiaslineError(
                f"{shown(data)}: a data set saved by `datasets`: no file can be put beside its rows",
                "save its splits as Parquet files in a folder",
            )
        return data
    if Path(f"{data}.dvc").is_file():
        raise BiaslineError(
            f"{shown(data)}: `dvc add` has it, so it is not moved into a folder for harvested files to lie beside it",
            f"mkdir {shown(data.with_suffix(''))}; dvc move {shown(data)} {shown(data.with_suffix(''))}; then name "
            "that folder in params.yaml",
        )
    stem, place = data.name.split(".")[0], TaskPlace(name)
    # A folder that the pipeline writes, and that git does not see, is no place for raw data.
    outs = (place.clean, place.tokens, place.model, place.evaluation, place.signatures)
    taken = {data.name, *(out.name for out in outs)}
    return data.with_name(f"{stem}-rows" if stem in taken else stem)


def _was_moved(data: Path, folder: Path) -> bool:
    return data != folder and not data.exists() and (folder / data.name).is_file()


def _refuse_shared(root: Path, name: str, task: Task) -> None:
    """Answers of one task are no rows of another."""
    tasks = read_params(root / "params.yaml").tasks
    if others := [other for other, one in tasks.items() if other != name and one.data == task.data]:
        raise BiaslineError(
            f"tasks.{others[0]} in params.yaml has the same data, {task.data}: it would get the rows too",
            f"copy the data for it, and name them as data of tasks.{others[0]}",
        )


def _last(files: Iterable[Path]) -> int:
    numbers = [path.stem.removeprefix(HARVESTED) for path in files]
    return max((int(number) for number in numbers if number.isdecimal()), default=0)


def _records(root: Path, task: Task, rows: list[Corrected]) -> list[dict[str, Any]]:
    """Rows as the data's own files have them."""
    if not rows:
        return []
    columns = find_learning(task.kind).columns
    taken = read_examples(root / task.data, columns, task.source).taken
    made = []
    for row in rows:
        record: dict[str, Any] = {}
        if DIALOGUE in taken:
            said = [*row.row.get("history", []), {"role": "user", "content": _asked(row.row, columns.prompt)}]
            record[taken[DIALOGUE]] = [*said, {"role": "assistant", "content": row.right}]
        else:
            record = {taken.get(ours, ours): value for ours, value in row.row.items()}
            record[taken.get(columns.answer, columns.answer)] = row.right
        if task.tenants.column:
            record[task.tenants.column] = row.tenant
        made.append(record | {NAME: row.name, AT: row.at, ANSWERED_BY: row.fingerprint, ANSWERED: _text(row.answered)})
    return made


def _asked(row: Mapping[str, Any], prompt: tuple[str, ...]) -> str:
    return "\n".join(str(row[name]) for name in prompt if row.get(name))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _lines(records: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _dealt(task: Task, data: Path, records: list[dict[str, Any]], file: str, erased: Path) -> Dealt:
    """All data as if the rows were there already."""
    quality = task.quality.model_copy(update={"max_quarantine": 1.0, "hard": {}})
    source = task.source.model_copy(update={"harvested": True})
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / data.name
        for path in sorted(data.rglob("*")) if data.is_dir() else [data]:
            if path.is_file():
                link = folder / (path.relative_to(data) if data.is_dir() else path.name)
                link.parent.mkdir(parents=True, exist_ok=True)
                os.symlink(path.resolve(), link)
        (folder / file).write_text(_lines(records), encoding="utf-8")
        return deal(task.model_copy(update={"data": str(folder), "quality": quality, "source": source}), erased)


def _fates(dealt: Dealt, rows: list[Corrected], task: Task) -> dict[str, str]:
    """Name of a row → why it is left out; empty where it is learned from."""
    fates = dict.fromkeys((row.name for row in rows), FILTERED)
    columns = find_learning(task.kind).columns
    labels: set[str] | None = None
    if columns.looks == "label":
        old = dealt.checked.good.filter(pl.col(NAME).is_null() | ~pl.col(NAME).is_in(list(fates)))
        labels = set(old[columns.answer].to_list())
    for split, frame in dealt.splits.items():
        for name, answer in frame.filter(pl.col(NAME).is_in(list(fates))).select(NAME, columns.answer).iter_rows():
            new = labels is not None and answer not in labels
            fates[name] = IN_TEST if split == "test" else NEW_LABEL if new else ""
    quarantine = dealt.checked.quarantine
    for name, reasons in quarantine.filter(pl.col(NAME).is_in(list(fates))).select(NAME, "reasons").iter_rows():
        told = {LEAK: NEAR_HELD_OUT, NEAR_DUPLICATE: NEAR_OTHER}
        first = reasons[0]
        fates[name] = told.get(first, f"{first}: {dealt.checked.told.get(first, first)}")
    return fates
