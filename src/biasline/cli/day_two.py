"""Commands about what is served, after it was let out."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from biasline.cli.common import AsJson, By, ModelName, TaskName, find_task
from biasline.errors import BiaslineError, shown
from biasline.process import store_word


def watch(
    model: ModelName,
    traffic: Annotated[
        Path | None, typer.Option(help="The folder that a server fills (traffic, with traffic_texts).")
    ] = None,
    rows: Annotated[
        Path | None, typer.Option(help="Or a file of rows: their texts, and a time, answers, tenants.")
    ] = None,
    days: Annotated[float, typer.Option(min=0, max=36_500, help="How far back; 0: all there is.")] = 7.0,
    level: Annotated[float, typer.Option(min=1e-6, max=0.5, help="Share of quiet reports that alarm.")] = 0.01,
    tenants_rate: Annotated[
        float, typer.Option(min=1e-6, max=0.5, help="Of tenants named, those that are quiet.")
    ] = 0.1,
    embeddings: Annotated[int, typer.Option(min=0, help="Texts that the frozen base is asked as well.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the page; by default below .biasline.")] = None,
    as_json: AsJson = False,
) -> None:
    """Hold what users ask and get against the evaluation: exit code 1 where something changed, 2 if it cannot tell."""
    from biasline.registry.aliases import CHAMPION
    from biasline.registry.watch import watch as looked
    from biasline.tracking.store import connect

    if (traffic is None) == (rows is None):
        raise typer.BadParameter("name --traffic or --rows")
    task, _, which = model.partition("@")
    try:
        find_task(task)
        found, lines = looked(
            connect(),
            task,
            which or CHAMPION,
            traffic=traffic,
            rows=rows,
            days=days,
            level=level,
            tenants_rate=tenants_rate,
            sample=embeddings,
            out=out,
        )
    except Exception as error:  # 1 is the alarm
        told = str(error) if isinstance(error, BiaslineError) else f"{type(error).__name__}: {store_word(error)}"
        print(f"error: {told}", file=sys.stderr)
        raise typer.Exit(2) from None
    print(json.dumps(found.as_data, indent=2, ensure_ascii=False) if as_json else "\n".join(lines))
    raise typer.Exit(1 if found.alarms else 0 if found.tells else 2)


def harvest(
    task: TaskName,
    traffic: Annotated[
        Path | None, typer.Option(help="The folder that a server fills (traffic, with traffic_texts).")
    ] = None,
    corrections: Annotated[
        Path | None,
        typer.Option(help="A file of requests and what is right: columns request, index, right, thumb."),
    ] = None,
    effect: Annotated[
        bool, typer.Option("--effect", help="Afterwards: train without the harvested rows too; what did they bring?")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would come of it; write nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make training rows of answers that people corrected or confirmed: in the file given, or told to the server."""
    from biasline.layout import home
    from biasline.serving.traffic import traffic_files
    from biasline.watching.feedback import matched, said_in_file, said_in_folder
    from biasline.watching.harvest import harvest as harvested

    asked = find_task(task)
    if effect:
        from biasline.registry.harvested import effect as measured
        from biasline.tracking.store import connect

        brought = measured(connect(), task, asked)
        print(json.dumps(brought.as_data, indent=2) if as_json else brought.as_markdown(task), end="")
        return
    if traffic is None:
        raise typer.BadParameter("--traffic: name the folder that a server fills")
    traffic_files(traffic)
    told, notes = said_in_folder(traffic, task)
    told += said_in_file(corrections, asked.tenants.column) if corrections is not None else []
    if not told:
        raise BiaslineError(
            f"{traffic}: nobody said anything of an answer of {task}",
            "clients tell it by POST /v1/feedback; or name a file: --corrections",
        )
    said = matched(told, traffic, task, asked.kind)
    said.notes += notes
    found = harvested(task, asked, said, home(), dry_run=dry_run)
    print(json.dumps(found.as_data, indent=2) if as_json else "\n".join(found.lines(dry_run)))
    if found.rows and not dry_run and not as_json:
        print(f"next: `dvc repro register@{task}`, then `biasline harvest {task} --effect`")


def erase(
    task: TaskName,
    rows: Annotated[
        Path | None, typer.Option(help="A file of the rows, as the raw data or `predict --file` have.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN=VALUE", help="Or those that are so; several must all hold. Or an SQL expression."),
    ] = None,
    traffic: Annotated[list[Path] | None, typer.Option(help="A folder that a server fills; several times.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="More than half of the rows are meant.")] = False,
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="A champion that had them goes even where no candidate passes.")
    ] = False,
    by: By = "",
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what has them; change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take rows out of data, models, store and caches for good; what learned from them is trained again."""
    from biasline.erasing.erase import erase as erased
    from biasline.erasing.plan import Request, plan
    from biasline.erasing.rows import parsed_where
    from biasline.tracking.lineage import someone
    from biasline.tracking.store import connect

    if (rows is None) == (not where):
        raise typer.BadParameter("name --rows or --where")
    if rows is not None and not rows.is_file():
        raise BiaslineError(f"{shown(rows)}: no such file", "name a file of rows")
    if not reason and not dry_run:
        raise typer.BadParameter("--reason: the ledger keeps it")
    asked = find_task(task)
    folders = [*(traffic or []), *([Path(asked.gates.traffic)] if asked.gates.traffic else [])]
    request = Request(
        task,
        rows,
        parsed_where(where or []) if where else "",
        tuple(dict.fromkeys(folder.resolve() for folder in folders)),
        everything,
        withdraw,
        by or someone(),
        reason,
    )
    if dry_run:
        found = plan(connect(), request, asked)
        print(json.dumps(found.as_data, indent=2, ensure_ascii=False) if as_json else "\n".join(found.lines))
        return
    receipt = erased(connect(), request, asked, lambda line: print(line, file=sys.stderr if as_json else sys.stdout))
    if receipt is None:
        raise typer.Exit(1)
    told = (
        f"erased: {receipt['rows']:,} rows, {len(receipt['gone']):,} trainings; commit params.yaml, data and dvc.lock"
    )
    print(json.dumps(receipt, indent=2, ensure_ascii=False) if as_json else told)
