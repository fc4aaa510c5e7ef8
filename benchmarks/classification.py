"""How well BitFit classifies beside other methods: a real BERT, real GLUE tasks, the product's own stages.

`python -m benchmarks.classification` trains what benchmarks/cells/ lacks, cell by cell (a cell is a data set, a number
of training rows, a method and a seed, and one JSON there), and writes the table benchmarks/classification.md. Stopped
and started again it goes on; a cell whose settings were changed here is done anew. `--table` writes the table of what
there is; `--only sst2-1000` takes the cells whose names begin so. All of it takes some hours of two cores.

Needs the data in ../shared (or --data) and the base: `make minilm`.

For every method alike: training rows are drawn with the cell's seed; a tenth as many others, 1,000 at most, choose the
step that is kept; GLUE's dev file is the test; the base is held in bfloat16, what is trained in float32; steps of 32
rows. Rates and epochs were chosen on 2,000 further training rows of SST-2, not on dev. `article` is the recipe as it is
commonly written down: whatever has "bias" in its name, so that the classifier's weights stay at random values; the
base's own pooler; 3e-4, three epochs, the last step.
"""

import json
import random
import shutil
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import typer

from benchmarks.machine import machine
from benchmarks.rows import ALL_ROWS, PLACE, copied, laid, splits, trained
from benchmarks.runner import ROOT, Benchmark, check_data, found
from biasline.bases.pin import read_pin
from biasline.layout import TaskPlace
from biasline.params import Task

BASE = ROOT / "data/bases/minilm.json"
CELLS = Path(__file__).parent / "cells"
TABLE = Path(__file__).with_suffix(".md")
WORK = ROOT / ".biasline" / "classification"

# name → folder of the data
DATA = {"sst2": "sst2", "cola": "glue/CoLA", "rte": "glue/RTE"}
WHOLE_VALID = 1_000
# Heads start at random, as they do in what is published.
_COMMON = {"pooling": "mean", "batch_size": 32, "threads": 1, "head_start": "random", "calibrate": False}
# Rates that are left out are the product's own: 5e-3 for biases, 1e-3 for LoRA, 1e-4 for full tuning, 1e-3 for heads
# beside them and 5e-3 for a head alone.
_BITFIT = {"epochs": 8, "min_steps": 400}
_LORA = {"method": "lora", "epochs": 4, "min_steps": 400}

METHODS: dict[str, dict[str, Any]] = {
    "head": {"method": "head", "epochs": 4, "min_steps": 400},
    "article": {
        "biases": "all",
        "pooling": "model",
        "learning_rate": 3e-4,
        "epochs": 3,
        "min_steps": 1,
        "keep": "last",
        "warmup": 0.0,
    },
    "bitfit-all": {**_BITFIT, "biases": "all"},
    "bitfit-attention+mlp": {**_BITFIT, "biases": "attention+mlp"},
    "bitfit-query+mlp_in": {**_BITFIT, "biases": "query+mlp_in"},
    "bitfit-value": {**_BITFIT, "biases": "value"},
    "lora-all": {**_LORA, "lora": {"rank": 8, "layers": "all"}},
    "lora-query+value": {**_LORA, "learning_rate": 2e-3, "lora": {"rank": 8, "layers": "query+value"}},
    "full": {"method": "full", "epochs": 4, "min_steps": 400},
}
_ON_THE_WHOLE = ("bitfit-all", "lora-all", "full")
_LOOKS = {"1000": 50, "6000": 100, "all": 100}
_ORDER = [("sst2", "1000", 0), ("sst2", "6000", 0), ("sst2", "1000", 1), ("sst2", "1000", 2)]
_ORDER += [("cola", "all", 0), ("rte", "all", 0), ("sst2", "all", 0), ("sst2", "6000", 1), ("sst2", "6000", 2)]


@dataclass(frozen=True)
class Cell:
    """One training: `rows` is a number of training rows, or `all`."""

    data: str
    rows: str
    method: str
    seed: int

    @property
    def set(self) -> str:
        return f"{self.data}-{self.rows}-{self.seed}"

    @property
    def name(self) -> str:
        return f"{self.data}-{self.rows}-{self.method}-{self.seed}"

    @property
    def path(self) -> Path:
        return CELLS / f"{self.name}.json"

    def train(self) -> dict[str, Any]:
        """The train parameters, but for what is the same everywhere."""
        asked = {**_COMMON, **METHODS[self.method], "seed": self.seed, "evaluate_every": _LOOKS[self.rows]}
        if (self.data, self.rows) == ("sst2", "all"):
            asked |= {"epochs": 1, "evaluate_every": 400}
        return asked

    def settings(self) -> dict[str, Any]:
        """All that its numbers come from, but for the data and the code."""
        chosen = {"source", "quality", "split", "load", "tokens", "train", "evaluate"}
        return {"base": read_pin(BASE).digest, **self.task().model_dump(mode="json", include=chosen)}

    def task(self) -> Task:
        return Task.model_validate(
            {
                "kind": "classification",
                "base": str(BASE),
                "data": "raw",
                "source": {"preset": self.data},
                "quality": ALL_ROWS,
                "tokens": {"max_length": 128},
                "load": {"dtype": "bfloat16"},
                "train": self.train(),
            }
        )


def cells() -> Iterator[Cell]:
    """Every cell, those first that say most."""
    for data, rows, seed in _ORDER:
        methods = _ON_THE_WHOLE if (data, rows) == ("sst2", "all") else METHODS
        yield from (Cell(data, rows, method, seed) for method in methods)


def done(cell: Cell) -> bool:
    """Whether a cell is there, with the settings that it has here."""
    if not cell.path.is_file():
        return False
    settings = found(cell)["settings"]
    digest, kept = settings.pop("base"), cell.settings()
    # How a step was cut into forward passes, which changed nothing but rounding.
    settings["train"].pop("micro_batch_size", None)
    # What the code did before there were these parameters; of others that is their default.
    settings["train"] = {"head_start": "random", "calibrate": False, **settings["train"]}
    known = Task.model_validate({**cell.task().model_dump(), **settings})
    given, unused = known.model_dump(mode="json", include=set(settings)), known.train.unused
    return digest == kept["base"] and all(
        given[group] == kept[group] if group != "train" else _used(given[group], unused) == _used(kept[group], unused)
        for group in given
    )


def _used(train: dict[str, Any], unused: set[str]) -> dict[str, Any]:
    return {name: value for name, value in train.items() if name not in unused}


def prepare(cell: Cell, data: Path) -> Path:
    """The folder of a cell's rows, made once for all methods."""
    made = {name: value for name, value in cell.settings().items() if name not in ("train", "evaluate")}
    return laid(WORK / "sets" / cell.set, cell.task(), lambda raw: draw(cell, data, raw), json.dumps(made))


def draw(cell: Cell, data: Path, raw: Path) -> None:
    """The rows of a cell's set, as files of a user."""
    lines = (data / DATA[cell.data] / "train.tsv").read_text(encoding="utf-8").splitlines()
    head, rows = ([], lines) if cell.data == "cola" else (lines[:1], lines[1:])
    random.Random(cell.seed).shuffle(rows)
    if cell.rows != "all":
        count = int(cell.rows)
        valid = count // 10
    else:
        valid = min(WHOLE_VALID, len(rows) // 10)
        count = len(rows) - valid
    for name, part in (("train", rows[:count]), ("valid", rows[count : count + valid])):
        (raw / f"{name}.tsv").write_text("\n".join([*head, *part]) + "\n", encoding="utf-8")
    shutil.copy(data / DATA[cell.data] / "dev.tsv", raw / "test.tsv")


def measure(cell: Cell, data: Path) -> tuple[dict[str, Any], str]:
    """Train and evaluate one cell."""
    folder, task = copied(prepare(cell, data), WORK / "cells" / cell.name), cell.task()
    found = article(task, PLACE) if cell.method == "article" else through_the_stages(task)
    told = {"data": cell.data, "rows": cell.rows, "method": cell.method, "seed": cell.seed}
    told |= {"splits": splits(), **found, "machine": machine("torch", "transformers", "peft")}
    shutil.rmtree(folder)
    return told | {"settings": cell.settings()}, f"{task.metric} {found['tuned'][task.metric]:.3f}"


def through_the_stages(task: Task) -> dict[str, Any]:
    metrics, report, _ = trained(task)
    kept = {name: report[name] for name in ("trainable", "bytes", "steps", "kept_step")}
    return {name: metrics[name] for name in ("tuned", "base", "probe", "test_sha256")} | kept


def article(task: Task, place: TaskPlace) -> dict[str, Any]:
    """What the stages refuse to do: the classifier's weights stay at random values."""
    import numpy as np
    import torch

    from biasline.bases.load import load_classifier
    from biasline.bases.pin import verified_folder
    from biasline.evaluation.classify import class_metrics, probabilities
    from biasline.tokens.saved import read_summary, read_token_set
    from biasline.training.batches import Plan
    from biasline.training.loop import Sets, fit
    from biasline.training.loss import ClassLabels
    from biasline.training.methods import WholeTuning

    torch.set_num_threads(task.train.threads)
    labels = read_summary(place)["labels"]
    pin, folder = verified_folder(Path(task.base))
    model, _ = load_classifier(pin, folder, task.load, labels, task.train.seed, pooling=task.train.pooling)
    chosen = {name: part for name, part in model.named_parameters() if "bias" in name}
    for part in chosen.values():
        part.requires_grad_(True)
    rows, test = read_token_set(place, "train"), read_token_set(place, "test").to_list()
    plan, pad = Plan.of(len(rows), task.train), model.config.pad_token_id
    sets = Sets(rows, read_token_set(place, "valid"), ClassLabels(), pad)
    history = fit(model, WholeTuning({"biases": list(chosen.values())}), plan, sets, task.train, lambda *_: None)
    given = [labels[number] for number in np.argmax(probabilities(model, test, pad, 64), -1)]
    reference = [labels[row["labels"]] for row in test]
    biases = sum(part.numel() for part in chosen.values())
    return {
        "tuned": class_metrics("classification", reference, given, labels),
        "trainable": {"biases": biases, "head": 0, "total": biases},
        "steps": plan.total_steps,
        "kept_step": history.best_step,
    }


def page() -> str:
    """The table: a line per method, a column per data set and size; mean and range over seeds."""
    frame = pl.DataFrame([_row(one) for one in cells() if done(one)], infer_schema_length=None)
    columns = frame.select("data", "rows").unique(maintain_order=True).rows()
    heads = []
    for data, rows in columns:
        part = frame.filter(data=data, rows=rows)
        seeds = part["seed"].n_unique()
        heads.append(f"{data} {part['train_rows'][0]:,} rows ({seeds} seed{'s' if seeds > 1 else ''})")
    majority = [_told(frame.filter(data=data, rows=rows)["majority"].drop_nulls()[:1]) for data, rows in columns]
    lines = [
        "# Methods on MiniLM (22.7 M parameters): GLUE's dev sets",
        "",
        "`python -m benchmarks.classification`; mean over seeds, in brackets lowest and highest. Accuracy, for CoLA",
        "Matthews correlation.",
        "",
        f"| | trained | head | bytes | {' | '.join(heads)} |",
        "|---|---:|---:|---:|" + "---|" * len(columns),
        f"| majority | | | | {' | '.join(majority)} |",
    ]
    for (method,), part in frame.group_by("method", maintain_order=True):
        values = [_told(part.filter(data=data, rows=rows)["value"]) for data, rows in columns]
        size = "" if part["bytes"][0] is None else f"{part['bytes'][0]:,}"
        trained = f"{part['trained'][0]:,} | {part['head'][0]:,}"
        lines.append(f"| {method} | {trained} | {size} | {' | '.join(values)} |")
    lines += ["", "Seed by seed on the same rows, `bitfit-all` less the other, in points:", ""]
    own = frame.filter(method="bitfit-all").select("data", "rows", "seed", own="value")
    for data, rows in columns:
        for other in ("full", "lora-all", "lora-query+value"):
            pairs = frame.filter(data=data, rows=rows, method=other).join(own, on=["data", "rows", "seed"])
            gaps = (100 * (pairs["own"] - pairs["value"])).to_list()
            if gaps:
                listed = ", ".join(f"{gap:+.1f}" for gap in gaps)
                lines.append(f"- {data} {rows} rows, {other}: {statistics.mean(gaps):+.1f} ({listed})")
    return "\n".join(lines) + "\n"


def _row(cell: Cell) -> dict[str, Any]:
    """What the table needs of a cell."""
    told, metric = found(cell), cell.task().metric
    counts = told["trainable"]
    return {
        **{name: getattr(cell, name) for name in ("data", "rows", "method", "seed")},
        "value": told["tuned"][metric],
        "majority": told.get("base", {}).get(metric),
        "trained": counts["total"] - counts["head"],
        "head": counts["head"],
        "bytes": told.get("bytes"),
        "train_rows": told["splits"]["train"],
    }


def _told(values: pl.Series) -> str:
    if values.is_empty():
        return ""
    return f"{values.mean():.3f}" + (f" [{values.min():.3f}, {values.max():.3f}]" if len(values) > 1 else "")


def prepare_all(wanted: list[Cell], data: Path) -> None:
    """The rows of all cells."""
    check_data(data / "sst2")
    for one in {one.set: one for one in wanted}.values():
        prepare(one, data)


CLASSIFICATION = Benchmark(
    module="benchmarks.classification",
    out=TABLE,
    cells=cells,
    lay=prepare_all,
    measure=measure,
    page=page,
    done=done,
)

if __name__ == "__main__":
    typer.run(CLASSIFICATION.__call__)
