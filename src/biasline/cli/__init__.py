"""`biasline …`: everything that is not a stage. Heavy libraries are imported by the command that uses them."""

import sys
from pathlib import Path

import typer

from biasline.cli import asking, bases, day_two, decisions, exports, runs, tasks
from biasline.errors import BiaslineError
from biasline.process import collect_seldom, exit_on_error

app = typer.Typer(
    help="BitFit as a pipeline: one frozen base, a bias-only delta per task. `dvc repro` makes, this decides.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
task_app = typer.Typer(help="Tasks in params.yaml.", no_args_is_help=True, rich_markup_mode=None)
task_app.command("add")(tasks.task_add)
task_app.command("check")(tasks.task_check)
# In the order of `--help`.
for command in (
    bases.pin,
    bases.inspect,
    asking.predict,
    runs.sync,
    decisions.nominate,
    decisions.promote,
    decisions.rollback,
    decisions.history,
    decisions.verify,
    decisions.sign,
    runs.compare,
    runs.tune,
    decisions.why,
    exports.merge,
    exports.export,
    exports.extract,
    exports.dossier,
    day_two.watch,
    day_two.harvest,
    day_two.erase,
    asking.serve,
    asking.api_key,
):
    app.command()(command)
app.add_typer(task_app, name="task")


def main() -> None:
    """Entry point: errors as one line and exit code 1."""
    collect_seldom()
    exit_on_error(_run)


def _run() -> None:
    for argument in sys.argv[1:]:
        try:
            argument.encode()
        except UnicodeEncodeError:
            if not Path(argument).exists():  # a file's name may be of any bytes
                raise BiaslineError(f"{argument!r}: no UTF-8", "write it in UTF-8, and have a locale that is") from None
    app()
