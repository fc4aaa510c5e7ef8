"""All of a task's names of columns, held against what its data have before anything is done with them."""

from pathlib import Path

import polars as pl

from biasline.data.dialogues import PROBLEM
from biasline.data.raw import FIXED_SPLIT, NOT_TEXT_SUFFIX
from biasline.data.sources import read_examples
from biasline.errors import BiaslineError
from biasline.kinds.learning import columns_of
from biasline.params import Task

# What evaluation adds for slices: how long the prompt is.
_LENGTH = "length"
# Records that are read first: most files have each of their columns there.
_FIRST = 2_000

# What columns of answers begin with, once a model was evaluated.
_ANSWERED = ("base", "probe", "tuned", "tokens", "probability")


def check_columns(task: Task) -> None:
    """Whether the data have the columns that a task names: slices, group, filter, `source.columns`.

    Costs the first records alone where all are there; the whole file is read before one is called absent.

    Raises:
        BiaslineError: naming the parameter, the column and those that there are; or for data that cannot be read.
    """
    source = task.source
    named = (*task.evaluate.slices, task.split.group, task.tenants.column)
    if not (any(named) or source.where or source.columns):
        return
    data, kind = Path(task.data), columns_of(task.kind)
    try:
        refuse_absent(task, read_examples(data, kind, source, limit=_FIRST).frame)
    except BiaslineError:  # what the first records lack, a later one may have
        refuse_absent(task, read_examples(data, kind, source).frame)


def refuse_absent(task: Task, frame: pl.DataFrame) -> None:
    """Whether what was read has the columns that slices and groups are made of.

    Args:
        task: names them.
        frame: see `sources.Examples`.

    Raises:
        BiaslineError: naming the parameter, the column and those that there are.
    """
    ours = [name for name in frame.columns if not name.endswith(NOT_TEXT_SUFFIX) and name not in (FIXED_SPLIT, PROBLEM)]
    wanted: list[tuple[str, str, tuple[str, ...]]] = [("split.group", task.split.group, ())] if task.split.group else []
    wanted += [("tenants.column", task.tenants.column, ())] if task.tenants.column else []
    wanted += [("evaluate.slices", name, (_LENGTH,)) for name in task.evaluate.slices]
    owner = task.tenants.column
    if owner in ("row", *columns_of(task.kind).columns) or owner.split("_")[0] in _ANSWERED:
        raise BiaslineError(
            f"tenants.column: {owner!r} is a name that the task's own columns have",
            "give the column another name in the data",
        )
    for key, name, further in wanted:
        known = [*ours, *further]
        if name not in known:
            raise BiaslineError(
                f"{key}: no column {name!r}; there are: {', '.join(name for name in known if name != 'row')}",
                f"mend {key} in params.yaml: columns are named as the data have them, those of the task's kind as ours",
            )
