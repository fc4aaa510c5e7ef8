"""The tuned model of a task, whoever's rows it is asked: of a fleet each row has the delta that serves its tenant."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import polars as pl

from biasline.bitfit import BiasDelta, Deltas, Tenants
from biasline.bitfit.pretrained import PretrainedModel
from biasline.layout import TaskPlace
from biasline.params import Task
from biasline.training.methods import apply_tuned


@dataclass(frozen=True)
class Tuned:
    """A model and what it is asked in.

    Attributes:
        model: the base with what was trained in its place; of a fleet, plain.
        asked: given the tenant of each row, the block in which the rows are asked; any block will do where the task is
            of one.
    """

    model: Any
    asked: Callable[[Sequence[str]], AbstractContextManager[Any]] = nullcontext


def owners_in(task: Task, rows: pl.DataFrame) -> list[str]:
    """The tenant of each row; none where the task is of one."""
    return rows[task.tenants.column].to_list() if task.tenants.many else []


def tuned_model(task: Task, place: TaskPlace, model: PretrainedModel) -> Tuned:
    """What was trained for a task.

    Args:
        task: its parameters.
        place: where its model lies.
        model: the base, loaded as for training; it is the tuned one from then on.

    Raises:
        BiaslineError: where nothing was trained yet, or it does not fit the base.
    """
    if not task.tenants.many:
        return Tuned(apply_tuned(task.train.method, model, place))
    tenants = Tenants(model, BiasDelta.load(place.delta), Deltas(place.own))
    return Tuned(model, tenants.asked)
