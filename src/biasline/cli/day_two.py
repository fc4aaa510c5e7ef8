"""Commands about what is served, after it was let out."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from biasline.cli.common import AsJson, ModelName, find_task
from biasline.errors import BiaslineError
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
