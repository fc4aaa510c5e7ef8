"""Check of a packaged model: loaded in a process of its own, it gives the answers that it was evaluated by."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from biasline.errors import BiaslineError
from biasline.kinds.answering import find_answering
from biasline.layout import TaskPlace
from biasline.serving.predictor import asked_rows
from biasline.tracking.record import Record
from biasline.tracking.uris import tracking_uri

# So many rows are asked; enough to see a wrong template, a wrong base or a lost bias, few enough to be quick.
_ASKED = 128
# Another machine, or the same rows in other batches, may round a near-tie the other way.
_MAY_DIFFER = 0.02
_NEAR = 1e-3


def check_package(record: Record, uri: str) -> None:
    """Ask a packaged model the first test rows, and hold its answers against those of its evaluation.

    Args:
        record: what the model was packaged from.
        uri: where it lies, as MLflow names it.

    Raises:
        BiaslineError: where it does not load in a process that knows only MLflow and the base, or answers otherwise.
    """
    task, path = record.resolved(), record.file(TaskPlace(record.task).predictions)
    predictions = pl.read_parquet(path)
    answering = find_answering(task.kind)
    # Drawn answers are equal only where all rows are drawn together.
    if not answering.is_drawn(task):
        predictions = predictions.head(_ASKED)
    answers = _asked_apart(uri, asked_rows(task, predictions))
    evaluated = answering.evaluated(predictions)
    odd = [place for place, pair in enumerate(zip(answers, evaluated, strict=True)) if not alike(*pair)]
    if len(odd) > _MAY_DIFFER * len(evaluated):
        first = odd[0]
        raise BiaslineError(
            f"biasline-{record.task}: the packaged model gives {len(odd)} of {len(evaluated)} test rows another answer "
            f"than its evaluation; row {predictions['row'][first]}: {answers[first]!r}, evaluated {evaluated[first]!r}",
            f"not registered; to evaluate it anew, set run.reuse: false and `dvc repro --force evaluate@{record.task}`",
        )


def _asked_apart(uri: str, rows: Sequence[dict[str, Any]]) -> list[Any]:
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch) / "answers.json"
        # -P: or this folder's modules would hide others of their names. What is imported is what was packaged.
        command = [sys.executable, "-P", str(Path(__file__).with_name("load_check_main.py")), str(target)]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"MLFLOW_TRACKING_URI": tracking_uri(), "MLFLOW_REGISTRY_URI": tracking_uri()}
        done = subprocess.run(
            command,
            input=json.dumps({"uri": uri, "rows": rows}),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not target.is_file():
            lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
            raise BiaslineError(f"{uri}: the packaged model does not load in a process of its own: {lines[-1][:300]}")
        return json.loads(target.read_text(encoding="utf-8"))


def alike(one: Any, other: Any) -> bool:
    """Whether two answers are the same, but for what the last digits of numbers are."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[name], other[name]) for name in other)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(other, float):
        return abs(one - other) <= _NEAR * max(1.0, abs(other))
    return one == other
