"""A project's own metrics of answers."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from biasline.custom import own_functions
from biasline.errors import BiaslineError, first_line, shown
from biasline.metrics.table import reserved


class OwnScores:
    """A project's own scores of answers: the public functions of a Python file.

    Each takes one row as a dict (its columns, and the model's text as `answer`) and gives a number, the higher the
    better; its name is the metric's.

    Args:
        path: the file.
        kind: of task, whose metrics have names that no function may have.

    Raises:
        BiaslineError: where the file does not run, or a function has the name of another metric.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self._path = path
        self._functions = own_functions(path, "evaluate.metrics")
        if clash := set(self._functions) & set(reserved(kind)):
            raise BiaslineError(f"{shown(path)}: {min(clash)} is a metric already", "call the function something else")

    def __call__(self, rows: Sequence[Mapping[str, Any]], answers: Sequence[str]) -> dict[str, np.ndarray]:
        """Name → scores, (rows,)."""
        asked = [{**row, "answer": answer} for row, answer in zip(rows, answers, strict=True)]
        return {name: np.array([self._score(f, row) for row in asked]) for name, f in self._functions.items()}

    def _score(self, function: FunctionType, row: dict[str, Any]) -> float:
        where = f"{shown(self._path)}: {function.__name__}: row {row['row']}"
        try:
            value = float(function(row))
        except Exception as error:  # whatever the user's code raises
            raise BiaslineError(f"{where}: {type(error).__name__}: {first_line(error)}", "mend the function") from None
        if not math.isfinite(value):
            raise BiaslineError(f"{where}: {value} is no score", "return a finite number")
        return value
