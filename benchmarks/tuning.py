"""What `biasline tune` finds on tasks that no default was chosen on, and what it costs.

`python -m benchmarks.tuning` measures what benchmarks/tuning/ lacks, cell by cell (a task and a seed), and writes
benchmarks/tuning.md. Stopped and started again it goes on. Needs the data in ../shared (or --data); the intents need
the base of `make minilm`, the instructions take the demo base.

- *intents*: ten of BANKING77's that no other benchmark here has, ten rows each, half as many choose.
- *alpaca*: a slice of Chinese Alpaca, 800 rows; 100 choose, 100 are the test.

Each is trained by the product's defaults, searched by 24 trials, and trained with what the search ends with. The test
rows are looked at after that. Cost is that of the search in trainings, by steps and by time.
"""

import csv
import json
import random
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

from benchmarks.machine import machine
from benchmarks.rows import ALL_ROWS, ALL_TEXTS, PLACE, copied, laid, same_training, splits, trained
from benchmarks.runner import ROOT, Benchmark, check_data, found
from biasline.params import Task, changed

CELLS = Path(__file__).with_suffix("")
WORK = ROOT / ".biasline" / "tuning"
TRIALS = 24
TASKS: dict[str, dict[str, Any]] = {
    "intents": {"kind": "classification", "base": "data/bases/minilm.json"},
    "alpaca": {"base": "data/bases/tiny-bloom.json", "evaluate": {"max_new_tokens": 64}},
}
SEEDS = (0, 1)


@dataclass(frozen=True)
class Cell:
    """One search."""

    data: str
    seed: int

    @property
    def name(self) -> str:
        """Its name, and that of its file."""
        return f"{self.data}-{self.seed}"

    @property
    def path(self) -> Path:
        """What it found."""
        return CELLS / f"{self.name}.json"

    @property
    def task(self) -> Task:
        """What a user would have written."""
        given = TASKS[self.data]
        train = {"threads": 1, "seed": self.seed}
        quality = ALL_ROWS if "kind" in given else ALL_TEXTS
        told = {**given, "base": str(ROOT / given["base"]), "data": "raw", "quality": quality, "train": train}
        return Task.model_validate(told)


def cells() -> Iterator[Cell]:
    """Every cell."""
    for seed in SEEDS:
        for data in TASKS:
            yield Cell(data, seed)


def done(cell: Cell) -> bool:
    """Whether a cell is there, with the parameters that it has here."""
    return cell.path.is_file() and same_training(found(cell)["train"], cell.task)


def rows_of(cell: Cell, data: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of each split, drawn by the cell's seed; the test's are the same for each."""
    draw = random.Random(cell.seed)
    if cell.data == "alpaca":
        rows = json.loads((data / "alpaca_zh/alpaca_zh_demo_1k.json").read_text(encoding="utf-8"))
        random.Random(2026).shuffle(rows)
        test, rest = rows[:100], rows[100:]
        draw.shuffle(rest)
        return {"train": rest[:800], "valid": rest[800:], "test": test}
    made: dict[str, list[dict[str, Any]]] = {"train": [], "valid": [], "test": []}
    by_label: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for split in ("train", "test"):
        part = by_label[split] = defaultdict(list)
        with (data / f"banking77/{split}.csv").open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                part[row["category"]].append({"text": row["text"], "label": row["category"]})
    # The twenty that benchmarks.defaults takes are left to it.
    taken = set(random.Random("banking20").sample(sorted(by_label["test"]), 20))
    for label in random.Random("held out").sample(sorted(by_label["test"].keys() - taken), 10):
        rows = by_label["train"][label]
        draw.shuffle(rows)
        made["train"] += rows[:10]
        made["valid"] += rows[10:15]
        made["test"] += by_label["test"][label]
    return made


def write(cell: Cell, data: Path, raw: Path) -> None:
    """The rows of a cell, as files of a user."""
    for split, rows in rows_of(cell, data).items():
        lines = (json.dumps(row, ensure_ascii=False) for row in rows)
        (raw / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def lay(cell: Cell, data: Path) -> Path:
    """The folder of a cell's rows."""
    return laid(WORK / "sets" / cell.name, cell.task, lambda raw: write(cell, data, raw))


def lay_all(wanted: list[Cell], data: Path) -> None:
    """The rows of all cells."""
    check_data(data / "banking77")
    for cell in wanted:
        lay(cell, data)


def measure(cell: Cell, data: Path) -> tuple[dict[str, Any], str]:
    """Train by the defaults, search, and train with what was found."""
    from biasline.search.told import as_data
    from biasline.search.tune import tune

    work = copied(lay(cell, data), WORK / "cells" / cell.name)
    for name in ("dvc.yaml", "params.yaml"):  # a project of its own
        Path(name).touch()
    told: dict[str, Any] = {"defaults": outcome_of(cell.task)}
    began = time.monotonic()
    found = as_data(tune(cell.task, PLACE, TRIALS, 0, lambda line: print(line, flush=True)))
    seconds = round(time.monotonic() - began, 1)
    told["search"] = {name: value for name, value in found.items() if name != "points"} | {"seconds": seconds}
    if found["better"]:
        best = changed(cell.task.train, found["best"]["train"], "the best trial")
        told["found"] = outcome_of(cell.task.model_copy(update={"train": best}))
    told |= {"splits": splits(), "train": cell.task.train.model_dump(mode="json")}
    told |= {"machine": machine("torch", "transformers", "optuna")}
    shutil.rmtree(work)
    return told, f"{found['trainings']:.1f} trainings, {'better' if found['better'] else 'nothing beats the defaults'}"


def outcome_of(task: Task) -> dict[str, Any]:
    """What the test rows say of a training: the numbers, and of each row its worth (high is good); how long it took."""
    import polars as pl

    metrics, report, seconds = trained(task)
    predictions = pl.read_parquet(PLACE.predictions).sort("row")
    worth = predictions["tuned_exact"].cast(pl.Float64) if task.kind == "classification" else -predictions["tuned_nll"]
    return {
        "tuned": metrics["tuned"],
        "steps": report["steps"],
        "seconds": round(seconds, 1),
        "worth": [round(value, 5) for value in worth.fill_null(0.0).to_list()],
    }


def page() -> str:
    """A line per search."""
    lines = [
        "# What a search finds",
        "",
        "`python -m benchmarks.tuning`: see its text. *Worth* is the share of right labels, of texts the likelihood of",
        "the right answer (log, a token); differences are paired, row by row on the test, with 95 % intervals.",
        "",
        "| | training rows | worth by the defaults | by what was found | better by | trainings, by steps | by time |",
        "|---|---:|---:|---:|---|---:|---:|",
    ]
    for cell in cells():
        if done(cell):
            lines.append(_line(cell.name, found(cell)))
    return "\n".join([*lines, ""])


def _line(name: str, told: dict[str, Any]) -> str:
    from biasline.evaluation.statistics import paired_interval

    before = np.array(told["defaults"]["worth"])
    value, better = "", "nothing beats the defaults, it says"
    if "found" in told:
        after = np.array(told["found"]["worth"])
        mean, low, high = paired_interval(after, before)
        changes = ", ".join(f"{name} {value}" for name, value in told["search"]["best"]["train"].items())
        value, better = f"{after.mean():.4f}", f"{mean:+.4f} [{low:+.4f}, {high:+.4f}] ({changes})"
    times = told["search"]["seconds"] / told["defaults"]["seconds"]
    rows, spent = told["splits"]["train"], told["search"]["trainings"]
    return f"| {name} | {rows:,} | {before.mean():.4f} | {value} | {better} | {spent:.1f} | {times:.1f} |"


TUNING = Benchmark(
    module="benchmarks.tuning",
    out=Path(__file__).with_suffix(".md"),
    cells=cells,
    lay=lay_all,
    measure=measure,
    page=page,
    done=done,
)

if __name__ == "__main__":
    typer.run(TUNING.__call__)
