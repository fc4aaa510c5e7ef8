"""What someone gets who sets nothing, beside LoRA and full tuning at rates that were searched.

`python -m benchmarks.defaults` measures what benchmarks/defaults/ lacks, cell by cell (a data set, a number of training
rows, a method, a seed), and writes benchmarks/defaults.md. Stopped and started again it goes on; `--only sst2-200`
takes the cells whose names begin so, `--table` writes the table of what there is. Needs the data in ../shared (or
--data) and the base: `make minilm`.

GLUE's dev files and BANKING77's test file are the test. As many validation rows as a tenth of the training rows (two a
label where there are ten a label) choose the step that is kept; all else is the product's default, but for what METHODS
says. `before` is what the defaults were before the study. Rates of LoRA and full tuning are the best of those tried on
other rows, as those of biases and scales are (benchmarks/study, cells `lora…`, `full…`, `rate…`, `scales…`).

`setfit` is SetFit's own recipe on the same base and rows (validation rows too, since it needs none), by an environment
that has it (`python -m venv DIR; DIR/bin/pip install setfit`), which SETFIT names: SETFIT=DIR/bin/python. Without one
its cells are left out. It takes SETFIT_STEPS steps at most, a quarter of an hour.
"""

import csv
import json
import os
import random
import shutil
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

from benchmarks.machine import machine
from benchmarks.rows import ALL_ROWS, PLACE, copied, laid, same_training, splits, trained
from benchmarks.runner import ROOT, Benchmark, check_data, found
from biasline.params import Task

BASE = ROOT / "data/bases/minilm.json"
CELLS = Path(__file__).with_suffix("")
WORK = ROOT / ".biasline" / "defaults"
SETFIT_STEPS = 1_000

# name → folder of the data, training file, test file, and what `source` says
SETS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "sst2": ("sst2", "train.tsv", "dev.tsv", {"preset": "sst2"}),
    "cola": ("glue/CoLA", "train.tsv", "dev.tsv", {"preset": "cola"}),
    "rte": ("glue/RTE", "train.tsv", "dev.tsv", {"preset": "rte"}),
    "banking77": ("banking77", "train.csv", "test.csv", {"columns": {"label": "category"}}),
    # Twenty of its intents.
    "banking20": ("banking77", "train.csv", "test.csv", {"columns": {"label": "category"}}),
}
METHODS: dict[str, dict[str, Any]] = {
    "before": {"biases": "all", "epochs": 3.0, "head_start": "random", "calibrate": False},
    "defaults": {},
    "scales": {"biases": "attention+mlp+scale"},
    "lora": {"method": "lora", "learning_rate": 2e-3},
    "full": {"method": "full"},
    "setfit": {},
}
_PEERS = ("before", "defaults", "scales", "lora", "full")
# Data set, training rows, seeds, methods: those first that say most.
_ORDER: tuple[tuple[str, str, tuple[int, ...], tuple[str, ...]], ...] = (
    ("sst2", "1000", (0, 1, 2), _PEERS),
    ("banking77", "10-each", (0, 1, 2), ("before", "defaults", "scales", "setfit")),
    ("sst2", "200", (0, 1, 2), _PEERS),
    ("sst2", "6000", (0, 1, 2), _PEERS),
    ("cola", "all", (0, 1, 2), _PEERS),
    ("banking20", "10-each", (0, 1, 2), ("before", "defaults", "scales", "setfit")),
    ("banking77", "all", (0,), ("before", "defaults", "scales", "setfit")),
    ("sst2", "all", (0,), _PEERS),
    ("banking20", "all", (0,), ("before", "defaults", "scales", "setfit")),
    ("rte", "all", (0,), _PEERS),
)


@dataclass(frozen=True)
class Cell:
    """One training."""

    data: str
    rows: str
    method: str
    seed: int

    @property
    def set(self) -> str:
        """The name of its rows."""
        return f"{self.data}-{self.rows}@{self.seed}"

    @property
    def name(self) -> str:
        """Its name, and that of its file."""
        return f"{self.data}-{self.rows}-{self.method}-{self.seed}"

    @property
    def path(self) -> Path:
        """What it found."""
        return CELLS / f"{self.name}.json"

    @property
    def task(self) -> Task:
        """What a user would have written, and the method."""
        return Task.model_validate(
            {
                "kind": "classification",
                "base": str(BASE),
                "data": "raw",
                "source": SETS[self.data][3],
                "quality": ALL_ROWS,
                "train": {"threads": 1, "seed": self.seed, **METHODS[self.method]},
            }
        )


def cells() -> Iterator[Cell]:
    """Every cell that can be measured here; those of SetFit where there is an environment that has it."""
    for seed in range(3):
        for data, rows, seeds, methods in _ORDER:
            for method in methods:
                cell = Cell(data, rows, method, seed)
                if seed in seeds and (method != "setfit" or "SETFIT" in os.environ or cell.path.is_file()):
                    yield cell


def done(cell: Cell) -> bool:
    """Whether a cell is there, with the parameters that it has here."""
    return cell.path.is_file() and same_training(found(cell)["train"], cell.task)


def drawn(rows: list[list[str]], how_many: str, seed: int, label: int) -> tuple[list[list[str]], list[list[str]]]:
    """Training and validation rows.

    Args:
        rows: of the training file.
        how_many: `200`, `10-each` or `all`.
        seed: of the draw.
        label: the column of the label.
    """
    rows = list(rows)
    random.Random(seed).shuffle(rows)
    if how_many.endswith("-each"):
        each = int(how_many.removesuffix("-each"))
        by_label = defaultdict(list)
        for row in rows:
            by_label[row[label]].append(row)
        parts = sorted(by_label.items())
        return [row for _, part in parts for row in part[:each]], [
            row for _, part in parts for row in part[each:][: max(1, each // 5)]
        ]
    valid = min(1_000, len(rows) // 10) if how_many == "all" else int(how_many) // 10
    count = len(rows) - valid if how_many == "all" else int(how_many)
    return rows[:count], rows[count:][:valid]


def write(cell: Cell, data: Path, raw: Path) -> None:
    """The rows of a cell, as files of a user."""
    folder, train, test, _ = SETS[cell.data]
    shape = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if train.endswith(".tsv") else {}
    parts = {}
    for name, file in (("train", train), ("test", test)):
        with (data / folder / file).open(encoding="utf-8", newline="") as lines:
            parts[name] = list(csv.reader(lines, **shape))
    head = [] if cell.data == "cola" else parts["train"][:1]
    train_rows, test_rows = (parts[name][len(head) :] for name in ("train", "test"))
    if cell.data == "banking20":
        chosen = set(random.Random(cell.data).sample(sorted({row[1] for row in test_rows}), 20))
        train_rows, test_rows = ([row for row in rows if row[1] in chosen] for rows in (train_rows, test_rows))
    label = 3 if cell.data == "rte" else 1
    kept, valid = drawn(train_rows, cell.rows, cell.seed, label)
    for name, rows in (("train", kept), ("valid", valid), ("test", test_rows)):
        with (raw / f"{name}{Path(train).suffix}").open("w", encoding="utf-8", newline="") as out:
            if shape:
                out.writelines("\t".join(row) + "\n" for row in [*head, *rows])
            else:
                csv.writer(out).writerows([*head, *rows])


def lay(cell: Cell, data: Path) -> Path:
    """The folder of a cell's rows, made once for all methods."""
    return laid(WORK / "sets" / cell.set, cell.task, lambda raw: write(cell, data, raw))


def lay_all(wanted: list[Cell], data: Path) -> None:
    """The rows of all cells."""
    check_data(data / "sst2")
    for one in {one.set: one for one in wanted}.values():
        lay(one, data)


def measure(cell: Cell, data: Path) -> tuple[dict[str, Any], str]:
    """Train and evaluate one cell."""
    work = copied(lay(cell, data), WORK / "cells" / cell.name)
    began = time.monotonic()
    told = with_setfit(cell) if cell.method == "setfit" else through_the_stages(cell.task)
    told |= {"seconds": round(time.monotonic() - began, 1), "splits": splits()}
    told |= {"train": cell.task.train.model_dump(mode="json"), "machine": machine("torch", "transformers", "peft")}
    shutil.rmtree(work)
    metric = cell.task.metric
    return told, f"{metric} {told['tuned'][metric]:.4f}, {told['seconds']:.0f} s"


def through_the_stages(task: Task) -> dict[str, Any]:
    """What the product's own stages and gates say."""
    import polars as pl

    from biasline.registry.gates import Shown, judge

    metrics, report, _ = trained(task)
    predictions = pl.read_parquet(PLACE.predictions)
    verdict = judge(task, Shown(task.train.method, metrics, predictions))
    told = {name: metrics[name] for name in ("tuned", "base", "probe", "over_head_alone") if name in metrics}
    told |= {name: report[name] for name in ("trainable", "bytes", "steps", "kept_step")}
    told["gates"] = {gate.name: gate.passed for gate in verdict.gates if gate.name.startswith("better")}
    for who in ("tuned", "probe"):
        told[f"{who}_right"] = _bits(predictions[f"{who}_exact"].to_list())
    return told


def with_setfit(cell: Cell) -> dict[str, Any]:
    """What SetFit's recipe gives on the same rows."""
    import polars as pl

    from biasline.bases.pin import verified_folder
    from biasline.evaluation.classify import class_metrics

    for split in ("train", "valid", "test"):
        frame = pl.read_parquet(PLACE.split(split))
        frame.select("text", "label").write_ndjson(f"{split}.jsonl")
    asked = {"base": str(verified_folder(BASE)[1]), "seed": cell.seed, "max_steps": SETFIT_STEPS}
    Path("asked.json").write_text(json.dumps(asked), encoding="utf-8")
    script = Path(__file__).with_name("setfit_recipe.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
    subprocess.run([os.environ["SETFIT"], str(script)], check=True, env=environment, stdout=subprocess.DEVNULL)
    told = json.loads(Path("answers.json").read_text(encoding="utf-8"))
    frame = pl.read_ndjson("test.jsonl")
    reference, given, labels = frame["label"].to_list(), told["labels"], sorted(set(frame["label"]))
    sure = np.array(told["probabilities"])
    metrics = class_metrics("classification", reference, given, labels, sure)
    right = [one == other for one, other in zip(reference, given, strict=True)]
    return {"tuned": metrics, "tuned_right": _bits(right), "versions": told["versions"], "steps": told["steps"]}


def _bits(right: list[bool]) -> str:
    return "".join("01"[one] for one in right)


def page() -> str:
    """A table per set of rows: each method, and what the defaults are better by on the same rows."""
    there = [cell for cell in cells() if done(cell)]
    lines = [
        "# Who sets nothing, beside who searched",
        "",
        "`python -m benchmarks.defaults`, MiniLM (22.7 M parameters): see its text for what the lines mean. Means over",
        "seeds, in brackets the lowest and the highest; Matthews correlation for CoLA, else accuracy. Differences of",
        "right labels in points, row by row over all seeds, with 95 % intervals.",
        "",
    ]
    for data, rows in dict.fromkeys((cell.data, cell.rows) for cell in there):
        every = {(cell.method, cell.seed): found(cell) for cell in there if (cell.data, cell.rows) == (data, rows)}
        some = next(iter(every.values()))
        lines += [
            f"## {data}, {some['splits']['train']:,} training rows, {some['splits']['test']:,} test rows",
            "",
            "| | trained | value | calibration error | defaults less this | head alone | refused by the gates |",
            "|---|---:|---|---|---|---|---|",
        ]
        for method in METHODS:
            told = {seed: one for (name, seed), one in every.items() if name == method}
            if told:
                lines.append(_line(data, method, told, {seed: every.get(("defaults", seed)) for seed in told}))
        lines.append("")
    return "\n".join(lines)


def _line(data: str, method: str, told: dict[int, dict[str, Any]], own: dict[int, dict[str, Any] | None]) -> str:
    metric = "mcc" if data == "cola" else "accuracy"
    counts = [one["trainable"]["total"] for one in told.values() if "trainable" in one]
    alone = [one["probe"][metric] for one in told.values() if "probe" in one]
    refused = [one for one in told.values() if not all(one.get("gates", {}).values())]
    gated = f"{len(refused)} of {len(told)}" if counts else ""
    cells = (
        method,
        f"{counts[0]:,}" if counts else "all",
        _spread([one["tuned"][metric] for one in told.values()]),
        _spread([one["tuned"]["calibration_error"] for one in told.values()]),
        "" if method == "defaults" else _gap([(other, told[seed]) for seed, other in own.items() if other]),
        _spread(alone) if alone else "",
        gated,
    )
    return f"| {' | '.join(cells)} |"


def _spread(values: list[float]) -> str:
    several = f" [{min(values):.3f}, {max(values):.3f}]" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{several}"


def _gap(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> str:
    from biasline.evaluation.statistics import paired_interval

    if not pairs:
        return ""
    ours, theirs = (
        np.array([one == "1" for pair in pairs for one in pair[place]["tuned_right"]], dtype=float) for place in (0, 1)
    )
    mean, low, high = (100 * value for value in paired_interval(ours, theirs))
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


DEFAULTS = Benchmark(
    module="benchmarks.defaults",
    out=Path(__file__).with_suffix(".md"),
    cells=cells,
    lay=lay_all,
    measure=measure,
    page=page,
    done=done,
)

if __name__ == "__main__":
    typer.run(DEFAULTS.__call__)
