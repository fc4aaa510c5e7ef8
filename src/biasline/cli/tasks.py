"""`biasline task`: tasks in params.yaml."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from biasline.cli.common import AsJson, show
from biasline.kinds.learning import LEARNINGS
from biasline.layout import home

_FIRST_KIND = next(iter(LEARNINGS))
if TYPE_CHECKING:
    TaskKind = str
else:
    TaskKind = Literal[*LEARNINGS]


def task_add(
    name: Annotated[str, typer.Argument(help="Small letters, digits, _ and -.")],
    base: Annotated[str, typer.Option(help="The base's pin.")],
    data: Annotated[str, typer.Option(help="The raw data file.")],
    kind: Annotated[
        TaskKind, typer.Option(help=f"What a row has: {'; '.join(one.told for one in LEARNINGS.values())}.")
    ] = _FIRST_KIND,
) -> None:
    """Add a task to params.yaml, every default spelled out with its meaning, and what its base needs."""
    from biasline.bases.pin import read_pin
    from biasline.bases.suited import suited
    from biasline.paramsfile import add_task

    pin, path = home() / base, home() / "params.yaml"
    more, notes = suited(read_pin(pin), pin, writes=not LEARNINGS[kind].headed)
    before = path.read_bytes()
    print(add_task(path, name, base, data, kind, more))
    for note in notes if path.read_bytes() != before else ():
        print(f"note: {note}")


def task_check(as_json: AsJson = False) -> None:
    """Check params.yaml, the data files and columns that it names, and every base against its pin; nothing is run."""
    from biasline.bases.pin import verified_folder
    from biasline.data.columns import check_columns
    from biasline.params import check_inputs, read_params

    root = home()
    params = read_params(root / "params.yaml")
    for name, task in params.tasks.items():
        check_inputs(name, task, root)
        check_columns(task.model_copy(update={"data": str(root / task.data)}))
    for base in sorted({task.base for task in params.tasks.values()}):
        verified_folder(root / base)
    rows = [{"task": name, "base": task.base, "data": task.data} for name, task in params.tasks.items()]
    show(rows, as_json, lambda row: f"{row['task']}: {row['data']} on {row['base']}")
