"""What own deltas are worth: tenants alone, the delta that they share, and their own from there.

`python -m benchmarks.fleet_quality` trains what benchmarks/cells/ lacks of it, cell by cell (a data set, a number of
training rows a tenant, a seed), and writes benchmarks/fleet_quality.md. Stopped and started again it goes on; `--only
fleet-shops` takes the cells whose names begin so, `--table` writes the table of what there is.

- *shops*: 20 shops of `biasline.demo.shops` on the demo base, answers right to the letter.
- *reviews*: 16 domains of reviews (fdu_mtl in ../shared/data) on MiniLM (`make minilm`), positive or negative; texts
  are cut at 48 tokens.

*Alone* is a task of the tenant's rows and no others; *own* the tenant's delta trained from the shared one, whether it
is better or not; *served* what the fleet would answer with, own or shared by the tenant's validation rows. A tenant has
a fifth as many validation rows as training rows, ten at least.
"""

import csv
import gzip
import io
import json
import os
import random
import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import typer

from benchmarks.machine import machine
from benchmarks.runner import ROOT, Benchmark

OUT = Path(__file__).with_suffix(".md")
CELLS = Path(__file__).with_name("cells")
WORK = ROOT / ".biasline" / "fleet_quality"
ROWS, SEEDS, TEST = (20, 50, 200), (0, 1, 2), 60
SHOPS = 20
VARIANTS = ("alone", "shared", "own", "served")
_TRAIN = {"threads": 1, "batch_size": 16, "min_steps": 100, "evaluate_every": 25}
TASKS: Mapping[str, Mapping[str, Any]] = {
    "shops": {
        "base": "data/bases/tiny-bloom.json",
        "train": {**_TRAIN, "biases": "all", "learning_rate": 1e-2, "min_steps": 200},
        "evaluate": {"max_new_tokens": 24},
    },
    "reviews": {
        "kind": "classification",
        "base": "data/bases/minilm.json",
        "tokens": {"max_length": 48},
        "train": _TRAIN,
    },
}

Row = dict[str, str]


@dataclass(frozen=True)
class Cell:
    """One data set, so many training rows a tenant, one seed."""

    data: str
    rows: int
    seed: int

    @property
    def name(self) -> str:
        """Its name, and that of its file."""
        return f"fleet-{self.data}-{self.rows}-{self.seed}"

    @property
    def path(self) -> Path:
        """What it found."""
        return CELLS / f"{self.name}.json"


def cells() -> Iterator[Cell]:
    """Every cell, one seed after the other."""
    for seed in SEEDS:
        for data in TASKS:
            for rows in ROWS:
                yield Cell(data, rows, seed)


def rows_of(cell: Cell, shared: Path) -> dict[str, dict[str, list[Row]]]:
    """Split → tenant → rows; test rows are the same for each seed of the reviews."""
    valid = max(10, cell.rows // 5)
    if cell.data == "shops":
        from biasline.demo.shops import shops, to_jsonl

        made = tuple(replace(shop, rows=cell.rows + valid + TEST) for shop in shops(SHOPS))
        found = by_tenant([json.loads(line) for line in to_jsonl(made, cell.seed).splitlines()])
        tests = {name: rows[-TEST:] for name, rows in found.items()}
    else:
        found, tests = (reviews(shared / f"fdu_mtl/{split}.csv.gz") for split in ("train", "test"))
        for name, rows in found.items():
            random.Random(f"{cell.seed} {name}").shuffle(rows)
            tests[name] = random.Random(name).sample(tests[name], TEST)
    return {
        "train": {name: rows[: cell.rows] for name, rows in found.items()},
        "valid": {name: rows[cell.rows :][:valid] for name, rows in found.items()},
        "test": tests,
    }


def reviews(path: Path) -> dict[str, list[Row]]:
    """Reviews by domain."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = [{"shop": row["domain"], "text": row["text"], "label": row["label"]} for row in csv.DictReader(file)]
    return by_tenant(rows)


def by_tenant(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows by the tenant that they name."""
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["shop"]].append(row)
    return found


def made(name: str, asked: Mapping[str, Any], splits: Mapping[str, Sequence[Row]]) -> Any:
    """A task of these rows, trained: it and where it lies."""
    from biasline.data.augment import augment
    from biasline.data.validate import validate
    from biasline.layout import TaskPlace
    from biasline.params import Task
    from biasline.tokens.sets import tokenize
    from biasline.training.train import train

    folder = Path("raw") / name
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    off = [rule for rule in _OFF if rule != "conflicting_duplicate" or "kind" in asked]
    task = Task.model_validate({**asked, "data": str(folder), "quality": {"off": off}})
    place = TaskPlace(name)
    validate(task, place)
    place.resolved.write_text(task.model_dump_json(), encoding="utf-8")
    augment(task, place)
    tokenize(task, place)
    train(task, place, lambda _: lambda *_: None)
    return task, place


# Every row counts; that shops are asked the same is no leak.
_OFF = ("duplicate", "near_duplicate", "leak", "conflicting_duplicate", "control_characters", "mojibake")


def right(task: Any, delta: Path, own: Path | None, rows: Sequence[Row]) -> list[bool]:
    """Whether each row is answered right, by a delta, or by those of the tenants."""
    from biasline.bases.pin import read_pin
    from biasline.bitfit import BiasDelta, Deltas
    from biasline.serving.package import Package

    pin, deltas = Path(task.base), Deltas(own) if own else None
    answers = Package(task, BiasDelta.load(delta), read_pin(pin), pin, deltas).predictor()(rows)
    if isinstance(answers[0], str):
        return [answer == row["output"].strip() for answer, row in zip(answers, rows, strict=True)]
    return [answer["label"] == row["label"] for answer, row in zip(answers, rows, strict=True)]


def measured(cell: Cell, shared: Path) -> dict[str, Any]:
    """Train all variants of a cell and ask them the test rows."""
    from biasline.bitfit import BiasDelta
    from biasline.bitfit.deltas import file_of, write_index

    splits, asked = rows_of(cell, shared), {**TASKS[cell.data]}
    asked["train"] = {**asked["train"], "seed": cell.seed}
    names = sorted(splits["test"])
    test = [row for name in names for row in splits["test"][name]]
    whole = {split: [row for name in names for row in rows[name]] for split, rows in splits.items()}
    began = time.monotonic()
    task, place = made("fleet", {**asked, "tenants": {"column": "shop", "min_rows": 1}}, whole)
    seconds = {"fleet": time.monotonic() - began}
    found = {
        "shared": right(task.of_one(), place.delta, None, test),
        "served": right(task, place.delta, place.own, test),
    }
    everyone = Path("own")
    everyone.mkdir()
    kept = [BiasDelta.load(path) for path in Path(".biasline/tenants/fleet").glob("*.safetensors")]
    for delta in kept:
        delta.save(everyone / file_of(delta.manifest.about["tenant"]))
    write_index(
        everyone,
        [delta.manifest.about["tenant"] for delta in kept],
        set(names) - {delta.manifest.about["tenant"] for delta in kept},
    )
    found["own"] = right(task, place.delta, everyone, test)
    found["alone"], began = [], time.monotonic()
    for number, name in enumerate(names):
        one, place = made(f"alone-{number}", asked, {split: rows[name] for split, rows in splits.items()})
        found["alone"] += right(one, place.delta, None, splits["test"][name])
    seconds["alone"] = time.monotonic() - began
    return {
        "tenants": names,
        "right": {who: "".join("01"[one] for one in found[who]) for who in VARIANTS},
        "own_deltas": len(kept),
        "seconds": {who: round(value, 1) for who, value in seconds.items()},
        "task": asked,
        "machine": machine("torch", "transformers"),
    }


def measure(cell: Cell, shared: Path) -> tuple[dict[str, Any], str]:
    """Measure a cell in a folder of its own."""
    folder = WORK / cell.name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    (folder / "data/bases").symlink_to(ROOT / "data/bases")
    (folder / "dvc.yaml").write_text("stages: {}\n", encoding="utf-8")
    (folder / "params.yaml").write_text("tasks: {}\n", encoding="utf-8")
    os.chdir(folder)
    os.environ["DVC_ROOT"] = str(folder)
    with redirect_stdout(io.StringIO()):
        found = measured(cell, shared)
    shutil.rmtree(folder)
    means = {who: found["right"][who].count("1") / len(found["right"][who]) for who in VARIANTS}
    told = ", ".join(f"{who} {mean:.3f}" for who, mean in means.items())
    return found, f"{told}; {sum(found['seconds'].values()):.0f} s"


def page() -> str:
    """The table of the cells that there are."""
    from biasline.evaluation.statistics import paired_interval

    lines = ["# Tenants alone, what they share, and their own", ""]
    lines += [
        "`python -m benchmarks.fleet_quality`: see its text for what the columns mean. Shares of right answers on"
    ]
    lines += [f"{TEST} test rows a tenant; differences in points, with 95 % intervals over all rows, pair by pair.", ""]
    lines += ["| | rows a tenant | seeds | alone | shared | own | served | served less alone | served less shared |"]
    lines += ["|---|---:|---:|---:|---:|---:|---:|---|---|"]
    for data in TASKS:
        for rows in ROWS:
            there = [cell for cell in cells() if (cell.data, cell.rows) == (data, rows) and cell.path.is_file()]
            if not there:
                continue
            told = [json.loads(cell.path.read_text(encoding="utf-8"))["right"] for cell in there]
            hits = {who: np.array([one == "1" for part in told for one in part[who]], dtype=float) for who in VARIANTS}
            means = " | ".join(f"{hits[who].mean():.3f}" for who in VARIANTS)
            gains = []
            for other in ("alone", "shared"):
                mean, low, high = (100 * value for value in paired_interval(hits["served"], hits[other]))
                gains.append(f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]")
            lines.append(f"| {data} | {rows} | {len(there)} | {means} | {' | '.join(gains)} |")
    return "\n".join([*lines, ""])


QUALITY = Benchmark(module="benchmarks.fleet_quality", out=OUT, cells=cells, measure=measure, page=page)

if __name__ == "__main__":
    typer.run(QUALITY.__call__)
