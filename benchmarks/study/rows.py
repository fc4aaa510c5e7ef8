"""The rows of a study's data sets: training rows drawn by seed, others that choose the step, others that judge."""

import json
import random
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from benchmarks.rows import ALL_ROWS, laid
from biasline.params import Task

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".biasline" / "study"
BASE = ROOT / "data/bases/minilm.json"


@dataclass(frozen=True)
class Rows:
    """A data set of the study.

    Attributes:
        file: in ../shared/data; a TSV or CSV.
        text, label: its columns, by place or name.
        train: number of training rows; with `each`, per label.
        valid: rows that choose the step that is kept.
        judges: rows that judge, at most.
        each: numbers are per label.
    """

    file: str
    text: str
    label: str
    train: int
    valid: int
    judges: int
    each: bool = False


SETS = {
    "sst2-1000": Rows("sst2/train.tsv", "sentence", "label", 1_000, 100, 4_000),
    "sst2-6000": Rows("sst2/train.tsv", "sentence", "label", 6_000, 600, 4_000),
    "cola": Rows("glue/CoLA/train.tsv", "4", "2", 6_000, 600, 1_951),
    "banking-10": Rows("banking77/train.csv", "text", "category", 10, 2, 4_000, each=True),
    "banking": Rows("banking77/train.csv", "text", "category", 6_000, 600, 4_000),
}


def read(file: Path, rows: Rows) -> list[tuple[str, str]]:
    """(text, label) of each row."""
    named = not rows.text.isdigit()
    frame = pl.read_csv(
        file,
        has_header=named,
        separator="\t" if file.suffix == ".tsv" else ",",
        quote_char=None if file.suffix == ".tsv" else '"',
        infer_schema=False,
    )
    text, label = (pl.col(name) if named else pl.nth(int(name) - 1) for name in (rows.text, rows.label))
    return list(frame.select(text=text, label=label).iter_rows())


def dealt(found: list[tuple[str, str]], rows: Rows, seed: int) -> dict[str, list[tuple[str, str]]]:
    """Training, validation and judging rows, by seed; the judges are the same whatever the seed."""
    fixed = list(found)
    random.Random(2026).shuffle(fixed)
    if not rows.each:
        judges, rest = fixed[: rows.judges], fixed[rows.judges :]
        random.Random(seed).shuffle(rest)
        return {"train": rest[: rows.train], "valid": rest[rows.train :][: rows.valid], "test": judges}
    by_label = defaultdict(list)
    for row in fixed:
        by_label[row[1]].append(row)
    made: dict[str, list[tuple[str, str]]] = {"train": [], "valid": [], "test": []}
    for one in by_label.values():
        judges, rest = one[: len(one) // 3], one[len(one) // 3 :]
        random.Random(seed).shuffle(rest)
        made["train"] += rest[: rows.train]
        made["valid"] += rest[rows.train :][: rows.valid]
        made["test"] += judges
    return made


def task(train: dict[str, Any]) -> Task:
    """The task of a cell."""
    return Task.model_validate(
        {
            "kind": "classification",
            "base": str(BASE),
            "data": "raw",
            "quality": ALL_ROWS,
            "tokens": {"max_length": 128},
            "train": {"threads": 1, "batch_size": 32, **train},
        }
    )


def write(name: str, data: Path, raw: Path) -> None:
    """The rows of a set, `NAME@SEED`, as files of a user."""
    set_name, _, seed = name.partition("@")
    rows = SETS[set_name]
    for split, found in dealt(read(data / rows.file, rows), rows, int(seed)).items():
        lines = [json.dumps({"text": text, "label": label}) for text, label in found]
        (raw / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def lay(name: str, data: Path) -> Path:
    """The folder of a set, `NAME@SEED`, made once for all cells."""
    return laid(WORK / "sets" / name, task({}), lambda raw: write(name, data, raw))
