"""Commands about runs: the store, their comparison, a search."""

import json
import sys
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from biasline.cli.common import AsJson, TaskName, all_tasks, find_task
from biasline.errors import BiaslineError, shown
from biasline.layout import home


def sync(task: Annotated[str, typer.Argument(help="One task; all if left out.")] = "") -> None:
    """Rebuild what the MLflow store lacks from outs, records and ledger; as often as you like."""
    from biasline.registry.aliases import CANDIDATE, CHAMPION
    from biasline.registry.sync import sync as sync_task
    from biasline.serving.registered import aliased
    from biasline.tracking.store import connect, experiment_id
    from biasline.tracking.uris import shown_uri
    from biasline.tracking.views import table_path

    client = connect()
    for name in [task] if task else list(all_tasks()):
        find_task(name)
        for line in sync_task(client, name):
            print(f"{name}: {line}")
        found = {alias: aliased(client, name, alias) for alias in (CANDIDATE, CHAMPION)}
        told = ", ".join(f"{alias} {version.version if version else 'none'}" for alias, version in found.items())
        print(f"{name}: in step with {shown_uri()} ({told})")
        address = shown_uri() if shown_uri().startswith("http") else "http://127.0.0.1:5000"
        print(f"{name}: its runs, best first: {address.rstrip('/')}{table_path(experiment_id(client, name))}")


def compare(
    task: TaskName,
    run: Annotated[
        bool, typer.Option("--run", help="First train, with whatever DVC has queued, the methods that no run has.")
    ] = False,
    figure: Annotated[Path | None, typer.Option(help="Draw quality against size into this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Put the runs of a task beside each other: quality with intervals on equal test rows, size, time, memory."""
    from biasline.figures.canvas import save_figure
    from biasline.figures.comparison import methods
    from biasline.layout import home, local_state
    from biasline.serving.traffic import agreements
    from biasline.tracking.compare import as_markdown, run_missing
    from biasline.tracking.compare import compare as compared
    from biasline.tracking.store import connect

    client, asked = connect(), find_task(task)
    found = compared(client, task, asked)
    if run and found.missing:
        run_missing(task, asked.data, found.missing)
        found = compared(client, task, asked)
    try:
        said = agreements(home() / asked.gates.traffic, task) if asked.gates.traffic else []
    except BiaslineError as error:  # of another machine, maybe: the runs compare without it
        print(f"no agreement is told: {error}", file=sys.stderr)
        said = []
    if as_json:
        print(json.dumps({**found.as_data(), "agreement": [asdict(one) for one in said]}, indent=2))
    else:
        print(as_markdown(found))
        for one in said:
            print(f"{one.shadow_fingerprint[:8]} beside {one.fingerprint[:8]}, as users asked: {one.told}")
    if found.others:
        print(f"{found.others} runs on other test rows are left out", file=sys.stderr)
    if found.missing:
        way = "their messages are above" if run else f"`biasline compare {task} --run` trains them"
        print(f"no run of: {', '.join(found.missing)}; {way}", file=sys.stderr)
    if drawn := [asdict(row) for row in found.runs if row.bytes]:
        target = figure or local_state() / "compare" / f"{task}.png"
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            save_figure(methods(drawn, found.label), target)
            print(f"drawn: {shown(target)}", file=sys.stderr)
        except PermissionError as error:
            if figure is not None:
                raise
            print(f"not drawn: {shown(target)}: {error.strerror}; --figure names another file", file=sys.stderr)
    if run and found.missing:
        raise SystemExit(1)  # DVC itself ends well when experiments of its queue failed


def tune(
    task: TaskName,
    trials: Annotated[int, typer.Option(help="Points to try, the task's own parameters among them.", min=2)] = 24,
    minutes: Annotated[float, typer.Option(help="After so long no further trial begins; 0: no limit.", min=0)] = 20.0,
    write: Annotated[bool, typer.Option("--write", help="Write what is better into params.yaml.")] = False,
    figure: Annotated[Path | None, typer.Option(help="Draw what mattered into this file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Search biases, rates and steps of a task's training, judged by its validation rows; stopped, it can go on."""
    from biasline.figures.canvas import check_format, save_figure
    from biasline.figures.search import trials as drawn
    from biasline.layout import local_state
    from biasline.paramsfile import set_train
    from biasline.search.told import as_data, as_text
    from biasline.search.trainee import current_task
    from biasline.search.tune import tune as tuned

    asked = find_task(task)
    target = figure or local_state() / "tune" / f"{task}.png"
    check_format(target)
    with redirect_stdout(sys.stderr):  # standard output is the outcome's
        found = tuned(*current_task(task, asked), trials, minutes, lambda line: print(line, flush=True))
    print(json.dumps(as_data(found), indent=2) if as_json else as_text(task, found))
    if write and found.verdict.better:
        print(set_train(home() / "params.yaml", task, found.verdict.best.changes), file=sys.stderr)
    save_figure(drawn(found.points, found.importance), target)
    print(f"drawn: {shown(target)}", file=sys.stderr)
