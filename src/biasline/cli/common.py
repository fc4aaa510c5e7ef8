"""What commands share: their usual arguments, the project's tasks, and how rows are printed."""

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from biasline.layout import home

if TYPE_CHECKING:
    from biasline.params import Task

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TaskName = Annotated[str, typer.Argument(metavar="TASK", help="The task's name in params.yaml.")]
ModelName = Annotated[
    str,
    typer.Argument(metavar="TASK[@WHICH]", help="Which: alias, version or fingerprint; champion if left out."),
]
By = Annotated[str, typer.Option("--by", help="Who decides; your login name if left out.")]


def show(rows: Sequence[Any], as_json: bool, line: Callable[[Any], str]) -> None:
    """Print rows as JSON, or each as a line."""
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        print(line(row))


def all_tasks() -> "dict[str, Task]":
    """The project's tasks."""
    from biasline.params import read_params

    return read_params(home() / "params.yaml").tasks


def find_task(name: str) -> "Task":
    """The task's parameters; an unknown task is refused with the nearest name."""
    from biasline.params import get_task, read_params

    return get_task(read_params(home() / "params.yaml"), name, "params.yaml")
