"""What the benchmarks of trainings share: rows that went through the stages before training, and the stages after."""

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from biasline.layout import TaskPlace
from biasline.params import Task

# Every row counts, as in what was published.
ALL_TEXTS = {"off": ["duplicate", "near_duplicate", "leak", "control_characters", "mojibake"]}
# Of labels and scores.
ALL_ROWS = {"off": [*ALL_TEXTS["off"], "conflicting_duplicate"]}
PLACE = TaskPlace("x")


def laid(folder: Path, task: Task, write: Callable[[Path], None], made: str = "") -> Path:
    """A folder whose rows went through validation, augmentation and tokenization; made once.

    Args:
        folder: where.
        task: whose `data` is `raw`.
        write: writes a user's files into a folder.
        made: what the rows depend on; where that is another than before, they are made anew.
    """
    note = folder / "made"
    if note.is_file() and note.read_text(encoding="utf-8") == made:
        return folder
    from biasline.data.augment import augment
    from biasline.data.validate import validate
    from biasline.tokens.sets import tokenize

    shutil.rmtree(folder, ignore_errors=True)
    (folder / "raw").mkdir(parents=True)
    write(folder / "raw")
    os.chdir(folder)
    print(folder.name, validate(task, PLACE), flush=True)
    augment(task, PLACE)
    tokenize(task, PLACE)
    note.write_text(made, encoding="utf-8")
    return folder


def copied(rows: Path, folder: Path) -> Path:
    """A folder with the same rows, for one cell; the current one from now on."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(rows, folder)
    os.chdir(folder)
    return folder


def trained(task: Task) -> tuple[dict[str, Any], dict[str, Any], float]:
    """metrics.json and train.json of the product's own stages on the current folder's rows; seconds of training."""
    from biasline.evaluation.evaluate import evaluate
    from biasline.training.train import train

    began = time.monotonic()
    train(task, PLACE, lambda _: lambda *_: None)
    seconds = time.monotonic() - began
    evaluate(task, PLACE)
    metrics, report = (json.loads(path.read_text(encoding="utf-8")) for path in (PLACE.metrics, PLACE.train_report))
    return metrics, report, seconds


def same_training(told: dict[str, Any], task: Task) -> bool:
    """Whether parameters of training that a cell has give what a task's give now; later ones may have been added."""
    wanted = json.loads(json.dumps(task.train.numbers()))
    return all(told.get(name) == value for name, value in wanted.items())


def splits() -> dict[str, int]:
    """Rows of each split in the current folder."""
    found: dict[str, int] = json.loads(PLACE.quality.read_text(encoding="utf-8"))["splits"]
    return found
