"""Commands that ask registered models, here or over HTTP."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from biasline.cli.common import AsJson, find_task, show
from biasline.errors import BiaslineError


def predict(
    task: Annotated[str | None, typer.Argument(metavar="[TASK]", help="The task; not with --tasks.")] = None,
    text: Annotated[
        str | None, typer.Argument(help="Instruction or text; left out, lines are read from stdin.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Rows to ask: JSON, JSON Lines, CSV, TSV, Parquet, or text line by line.")
    ] = None,
    tasks: Annotated[str, typer.Option(help="Several tasks, as a,b,c: the base is loaded once.")] = "",
    second: Annotated[str, typer.Option("--input", help="The instruction's input, or a pair's second text.")] = "",
    tenant: Annotated[
        str, typer.Option(help="Of a fleet: whose rows these are; in a file, of rows that name none.")
    ] = "",
    alias: Annotated[
        str, typer.Option(help="Which version: champion, candidate, previous; champion, or the server's, if left out.")
    ] = "",
    url: Annotated[str, typer.Option(help="Ask a server there (`biasline serve`); its key: BIASLINE_API_KEY.")] = "",
    as_json: AsJson = False,
) -> None:
    """Ask registered models: `predict TASK [TEXT]`, or `predict --tasks a,b [TEXT]`."""
    if (tasks and text is not None) or (not tasks and task is None):
        raise typer.BadParameter("name one task, or several with --tasks")
    several = list(dict.fromkeys(name.strip() for name in tasks.split(",") if name.strip()))
    names, asked = (several, task) if tasks else ([task or ""], text)
    chosen = {name: find_task(name) for name in names}
    if file is not None and (asked is not None or second):
        raise typer.BadParameter("either a text or --file")

    from biasline.kinds.answering import find_answering

    kinds = {name: find_answering(one.kind) for name, one in chosen.items()}
    columns = {name: kind.learning.columns for name, kind in kinds.items()}

    if file is not None:
        from biasline.data.sources import read_asked

        rows = {name: read_asked(file, columns[name], one.source, one.tenants.column) for name, one in chosen.items()}
    else:
        texts = _asked(asked)
        if second and (alone := [name for name in chosen if len(columns[name].prompt) == 1]):
            raise typer.BadParameter(f"--input: {alone[0]} takes one text a row")
        rows = {
            name: [dict(zip(columns[name].prompt, (line, second), strict=False)) for line in texts] for name in chosen
        }
    for name, one in chosen.items():
        if tenant and not one.tenants.many:
            raise typer.BadParameter(f"--tenant: {name} is a task of one (tenants.column is empty)")
        if one.tenants.many:
            column = one.tenants.column
            for row in rows[name]:
                row[column] = tenant if row.get(column) in (None, "") else row[column]
            if odd := next((number for number, row in enumerate(rows[name], 1) if row[column] == ""), 0):
                raise BiaslineError(f"{name}: row {odd} names no tenant ({column})", "name one: --tenant")
    if url:
        from biasline.serving.client import ask_server

        found = ask_server(url, rows, alias)
    else:
        from biasline.registry.ask import ask

        found = ask(rows, alias or "champion", bool(tasks), lambda line: print(line, file=sys.stderr))
    told, lines = [], []
    for name, answers in found:
        for row, answer in zip(rows[name], answers, strict=True):
            shaped = answer if isinstance(answer, dict) else {columns[name].answer: answer}
            told.append({**({"task": name} if tasks else {}), **row, **shaped})
            lines.append(f"{name}\t" * bool(tasks) + kinds[name].line(answer))
    show(told if as_json else lines, as_json, str)


def _asked(text: str | None) -> list[str]:
    """The texts of the command line or of standard input, a line each."""
    texts = [text] if text is not None else [line.rstrip("\n") for line in sys.stdin]
    if not any(line.strip() for line in texts):
        raise BiaslineError("nothing asked", "give a text, lines on standard input, or --file")
    for number, line in enumerate(texts, 1):
        if not line.strip():
            raise BiaslineError(f"line {number} is empty, so answers would not stand beside their lines", "take it out")
    return texts


def serve(
    tasks: Annotated[
        list[str] | None, typer.Argument(metavar="[TASK]…", help="Whose models; all that are registered if left out.")
    ] = None,
    alias: Annotated[
        list[str] | None, typer.Option(help="Aliases to serve; `TASK` means the first. champion if left out.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen at: 127.0.0.1 if left out.")] = None,
    port: Annotated[int | None, typer.Option(help="Port: 8000 if left out; 0 takes a free one.", min=0)] = None,
    keys: Annotated[Path | None, typer.Option(help="YAML file of API keys, see `biasline api-key`.")] = None,
    insecure: Annotated[bool, typer.Option("--insecure", help="Listen beyond loopback without keys.")] = False,
    allow_base: Annotated[bool, typer.Option("--allow-base", help="Answer for base:NAME too.")] = False,
    shadow: Annotated[
        list[str] | None, typer.Option(metavar="TASK@ALIAS", help="That version is asked the same, and tells nobody.")
    ] = None,
    split: Annotated[
        list[str] | None, typer.Option(metavar="TASK=ALIAS:5%", help="That version answers a share of the requests.")
    ] = None,
    traffic: Annotated[Path | None, typer.Option(help="Folder for Parquet files of what was answered by whom.")] = None,
    settings: Annotated[Path | None, typer.Option(help="YAML file of all settings, see docs/serving.md.")] = None,
) -> None:
    """Serve registered models over HTTP: each base once in memory, every model's biases behind it, mixed in a batch."""
    from biasline.serving.http import run
    from biasline.serving.server.settings import read_settings

    given: dict[str, Any] = {"tasks": tasks, "aliases": alias, "host": host, "port": port}
    given |= {"shadow": shadow, "split": split, "traffic": str(traffic) if traffic else None}
    given |= {"keys": str(keys) if keys else None, "insecure": insecure or None, "allow_base": allow_base or None}
    run(read_settings(settings, {name: value for name, value in given.items() if value not in (None, [])}))


def api_key(
    name: Annotated[str, typer.Argument(help="Who it is for; what logs say.")],
    models: Annotated[
        list[str] | None,
        typer.Option("--model", help="It may ask: `support`, `shops/acme*`; all if left out."),
    ] = None,
) -> None:
    """Make an API key: the key is printed once, and what the server's file of keys has of it."""
    from biasline.serving.server.keys import new_key, sha256_of

    key = new_key()
    print(f"key, shown this once: {key}", file=sys.stderr)
    print(f"- name: {json.dumps(name, ensure_ascii=False)}\n  sha256: {sha256_of(key)}")
    print(f"  models: {json.dumps(models or ['*'], ensure_ascii=False)}")
