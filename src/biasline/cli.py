"""`biasline …`: everything that is not a stage. Heavy libraries are imported by the command that uses them."""

import json
import shutil
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from biasline.errors import BiaslineError, shown
from biasline.kinds.learning import LEARNINGS
from biasline.process import collect_seldom, exit_on_error, store_word

if TYPE_CHECKING:
    from biasline.params import Task

app = typer.Typer(
    help="BitFit as a pipeline: one frozen base, a bias-only delta per task. `dvc repro` makes, this decides.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
task_app = typer.Typer(help="Tasks in params.yaml.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(task_app, name="task")


_FIRST_KIND = next(iter(LEARNINGS))
if TYPE_CHECKING:
    TaskKind = str
else:
    TaskKind = Literal[*LEARNINGS]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
TaskName = Annotated[str, typer.Argument(metavar="TASK", help="The task's name in params.yaml.")]
By = Annotated[str, typer.Option("--by", help="Who decides; your login name if left out.")]


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


@task_app.command("add")
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

    pin, path = _project() / base, _project() / "params.yaml"
    more, notes = suited(read_pin(pin), pin, writes=not LEARNINGS[kind].headed)
    before = path.read_bytes()
    print(add_task(path, name, base, data, kind, more))
    for note in notes if path.read_bytes() != before else ():
        print(f"note: {note}")


@task_app.command("check")
def task_check(as_json: AsJson = False) -> None:
    """Check params.yaml, the data files and columns that it names, and every base against its pin; nothing is run."""
    from biasline.bases.pin import verified_folder
    from biasline.data.columns import check_columns
    from biasline.params import check_inputs, read_params

    root = _project()
    params = read_params(root / "params.yaml")
    for name, task in params.tasks.items():
        check_inputs(name, task, root)
        check_columns(task.model_copy(update={"data": str(root / task.data)}))
    for base in sorted({task.base for task in params.tasks.values()}):
        verified_folder(root / base)
    rows = [{"task": name, "base": task.base, "data": task.data} for name, task in params.tasks.items()]
    _show(rows, as_json, lambda row: f"{row['task']}: {row['data']} on {row['base']}")


@app.command()
def pin(
    source: Annotated[
        str, typer.Argument(help="Local folder, hub id OWNER/NAME, or package:NAME/FOLDER; each /FILE.gguf too.")
    ],
    out: Annotated[Path | None, typer.Option(help="Pin to write; data/bases/NAME.json if left out.")] = None,
    revision: Annotated[str, typer.Option(help="Branch, tag or commit of a hub id.")] = "",
    allow_bin: Annotated[bool, typer.Option(help="Accept pickled weights (read with weights_only=True).")] = False,
) -> None:
    """Pin a base: hash its files, count its biases, write a small JSON."""
    from biasline.bases.create import create_pin
    from biasline.layout import write_text

    target = out or Path("data/bases") / f"{Path(source.rstrip('/')).name.lower().removesuffix('.gguf')}.json"
    made = create_pin(source, target, revision, allow_bin)
    text, before = made.dumps(), target.read_text(encoding="utf-8") if target.is_file() else None
    found = made.inventory
    if text == before:
        print(f"{shown(target)}: pinned so already")
        return
    write_text(target, text)
    print(
        f"{shown(target)}: {found['model_type']}, {found['parameters']:,} parameters, {found['biases']:,} biases "
        f"({found['share']:.3%}), {len(made.files)} files hashed{'' if before is None else '; it replaces another pin'}"
    )


@app.command()
def inspect(
    model: Annotated[
        str, typer.Argument(help="A pin, a model's folder or config.json, package:NAME/FOLDER, or a hub id.")
    ],
    revision: Annotated[str, typer.Option(help="Branch, tag or commit of a hub id.")] = "",
    labels: Annotated[int, typer.Option(help="With a new classification head for so many labels.", min=0)] = 0,
    figure: Annotated[Path | None, typer.Option(help="Draw layer × role into this file (.png, .svg, .pdf).")] = None,
    as_json: AsJson = False,
) -> None:
    """List every bias of a base, and where one could be injected; reads its config alone, no weights."""
    from biasline.bases.create import config_file, inventory_of
    from biasline.bases.describe import as_data, as_text

    found = inventory_of(config_file(model, revision), labels)
    if as_json:
        print(json.dumps(as_data(found), indent=2))
    else:
        print(as_text(found, shutil.get_terminal_size((140, 24)).columns))
    if figure is not None:
        from biasline.figures.biases import bias_counts
        from biasline.figures.canvas import save_figure

        save_figure(bias_counts(found), figure)
        print(f"drawn: {shown(figure)}", file=sys.stderr)


@app.command()
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
    chosen = {name: _task(name) for name in names}
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
    _show(told if as_json else lines, as_json, str)


def _asked(text: str | None) -> list[str]:
    """The texts of the command line or of standard input, a line each."""
    texts = [text] if text is not None else [line.rstrip("\n") for line in sys.stdin]
    if not any(line.strip() for line in texts):
        raise BiaslineError("nothing asked", "give a text, lines on standard input, or --file")
    for number, line in enumerate(texts, 1):
        if not line.strip():
            raise BiaslineError(f"line {number} is empty, so answers would not stand beside their lines", "take it out")
    return texts


@app.command()
def sync(task: Annotated[str, typer.Argument(help="One task; all if left out.")] = "") -> None:
    """Rebuild what the MLflow store lacks from outs, records and ledger; as often as you like."""
    from biasline.registry.aliases import CANDIDATE, CHAMPION
    from biasline.registry.sync import sync as sync_task
    from biasline.serving.registered import aliased
    from biasline.tracking.store import connect, experiment_id
    from biasline.tracking.uris import shown_uri
    from biasline.tracking.views import table_path

    client = connect()
    for name in [task] if task else list(_tasks()):
        _task(name)
        for line in sync_task(client, name):
            print(f"{name}: {line}")
        found = {alias: aliased(client, name, alias) for alias in (CANDIDATE, CHAMPION)}
        told = ", ".join(f"{alias} {version.version if version else 'none'}" for alias, version in found.items())
        print(f"{name}: in step with {shown_uri()} ({told})")
        address = shown_uri() if shown_uri().startswith("http") else "http://127.0.0.1:5000"
        print(f"{name}: its runs, best first: {address.rstrip('/')}{table_path(experiment_id(client, name))}")


@app.command()
def nominate(
    task: TaskName,
    run: Annotated[str, typer.Argument(help="A run's fingerprint (or its beginning), id or name.")],
    by: By = "",
    reason: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """Make a run's model the candidate."""
    from biasline.registry.promote import nominate as nominate_run
    from biasline.tracking.lineage import someone
    from biasline.tracking.store import connect

    _task(task)
    version = nominate_run(connect(), task, run, by or someone(), reason)
    print(f"{version.name} version {version.version} is the candidate; `biasline promote {task}` judges it")


@app.command()
def promote(
    task: TaskName,
    by: By = "",
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the verdict; decide and record nothing.")] = False,
    run: Annotated[str, typer.Option(help="A run's model instead of the candidate: fingerprint, id or name.")] = "",
    champion_is_lost: Annotated[
        bool, typer.Option("--champion-is-lost", help="Judge without the champion, which has no version any more.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Hold the candidate against the gates and make it champion; exit code 1 where a gate refuses."""
    from biasline.registry.promote import promote as promote_candidate
    from biasline.tracking.lineage import someone
    from biasline.tracking.store import connect

    decision = promote_candidate(
        connect(),
        task,
        _task(task),
        by or someone(),
        reason,
        dry_run=dry_run,
        run=run,
        champion_is_lost=champion_is_lost,
    )
    verdict = decision.verdict
    if as_json:
        data = {"version": decision.version, "fingerprint": decision.fingerprint, "promoted": decision.promoted}
        print(json.dumps(data | {"verdict": verdict.as_data() if verdict else None}, indent=2))
    elif verdict is None:
        print(f"biasline-{task} version {decision.version} is champion already; nothing changed")
    else:
        end = "would be " * dry_run + ("promoted" if verdict.passed else "refused")
        beside = f", {verdict.standing} than the champion" if verdict.standing else ""
        print(f"**biasline-{task} version {decision.version} ({decision.fingerprint}): {end}{beside}**\n")
        if decision.made_of:
            print(f"It is version {decision.made_of} with the champion's deltas for some tenants, see below.\n")
        print(verdict.as_markdown())
        if dry_run:
            told = "nothing changed"
        else:
            told = "it is champion now" if decision.promoted else "the champion stays"
            told += f"; `biasline history {task}` tells"
        print(f"\n{told}")
    if verdict is not None and not verdict.passed:
        raise SystemExit(1)


@app.command()
def rollback(
    task: TaskName,
    by: By = "",
    reason: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """Make the champion before the present one champion again."""
    from biasline.registry.promote import rollback as roll_back
    from biasline.tracking.lineage import someone
    from biasline.tracking.store import connect

    _task(task)
    now, was = roll_back(connect(), task, by or someone(), reason)
    told = f", version {was.version} no longer" if was is not None else ""
    print(f"{now.name} version {now.version} ({now.tags['biasline.fingerprint']}) is champion again{told}")


@app.command()
def history(
    task: TaskName,
    tenant: Annotated[str, typer.Option(help="Of a fleet: what served this tenant, champion by champion.")] = "",
    as_json: AsJson = False,
) -> None:
    """Who decided what, when and why: the task's ledger."""
    from biasline.layout import TaskPlace
    from biasline.registry.ledger import entries

    _task(task)
    if tenant:
        from biasline.registry.of_tenant import in_words, tenant_history
        from biasline.tracking.store import connect

        told = list(tenant_history(connect(), task, tenant))
        _show(told, as_json, lambda row: f"{row['time']}  version {row['version']} {row['decision']}: {in_words(row)}")
        return
    found = list(entries(TaskPlace(task).ledger))
    if not found and not as_json:
        print(f"{task}: nothing decided yet; `biasline promote {task}` takes the first decision")
    _show(found, as_json, _told_entry)


@app.command()
def verify(
    task: Annotated[str, typer.Argument(help="One task; all if left out.")] = "", as_json: AsJson = False
) -> None:
    """Hold ledger, aliases and packaged models against each other; exit code 1 where something is wrong."""
    from biasline.registry.verify import verify as verified
    from biasline.tracking.store import connect

    client, told = connect(), []
    for name in [task] if task else list(_tasks()):
        _task(name)
        right, wrong = verified(client, name)
        told += [{"task": name, "right": True, "found": line} for line in right]
        told += [{"task": name, "right": False, "found": line} for line in wrong]
        if not right and not wrong:
            told.append({"task": name, "right": True, "found": "nothing registered or decided yet"})
    _show(told, as_json, lambda row: f"{row['task']}: {'' if row['right'] else 'WRONG: '}{row['found']}")
    if not all(row["right"] for row in told):
        raise SystemExit(1)


@app.command()
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

    client, asked = connect(), _task(task)
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


@app.command()
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

    asked = _task(task)
    target = figure or local_state() / "tune" / f"{task}.png"
    check_format(target)
    with redirect_stdout(sys.stderr):  # standard output is the outcome's
        found = tuned(*current_task(task, asked), trials, minutes, lambda line: print(line, flush=True))
    print(json.dumps(as_data(found), indent=2) if as_json else as_text(task, found))
    if write and found.verdict.better:
        print(set_train(_project() / "params.yaml", task, found.verdict.best.changes), file=sys.stderr)
    save_figure(drawn(found.points, found.importance), target)
    print(f"drawn: {shown(target)}", file=sys.stderr)


@app.command()
def why(
    model: Annotated[
        str,
        typer.Argument(metavar="TASK[@WHICH][/TENANT]", help="Which: an alias or a fingerprint; champion if left out."),
    ],
    as_json: AsJson = False,
) -> None:
    """What made a model: data, quarantine, code, base, run, numbers, decisions; Markdown."""
    from biasline.registry.aliases import CHAMPION
    from biasline.registry.why import as_markdown
    from biasline.registry.why import why as asked
    from biasline.tracking.store import connect

    version, _, tenant = model.partition("/")  # a tenant's name may have any character
    task, _, which = version.partition("@")
    _task(task)
    told = asked(connect(), task, which or CHAMPION, tenant)
    print(json.dumps(told, indent=2, ensure_ascii=False) if as_json else as_markdown(told))


@app.command()
def merge(
    model: Annotated[
        str, typer.Argument(metavar="TASK[@WHICH]", help="Which: an alias or a fingerprint; champion if left out.")
    ],
    out: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
) -> None:
    """Write a model as a stock Transformers folder that needs no delta, once its outputs are shown to be the same."""
    export(model, out)


@app.command()
def export(
    model: Annotated[
        str, typer.Argument(metavar="TASK[@WHICH]", help="Which: an alias or a fingerprint; champion if left out.")
    ],
    out: Annotated[Path, typer.Argument(help="A folder, or of gguf and control-vector a file, that is not there yet.")],
    to: Annotated[
        Literal["hf", "gguf", "control-vector", "lora"],
        typer.Option(help="Stock Transformers (as merge); a file for llama.cpp; what that adds to layers; for PEFT."),
    ] = "hf",
    target: Annotated[
        Literal["", "transformers", "llama.cpp", "vllm", "sglang"],
        typer.Option(help="Of hf and lora: the program that is to read it; train.target if left out."),
    ] = "",
    split: Annotated[
        bool, typer.Option("--split", help="Of gguf: into a folder where all tasks share the base.")
    ] = False,
) -> None:
    """Write a model as other programs read it; what one of them would leave out without a word is refused."""
    if split and to != "gguf":
        raise typer.BadParameter("--split is of --to gguf")
    if target and to not in ("hf", "lora"):
        raise typer.BadParameter("--target is of --to hf and lora: the others are llama.cpp's")
    from biasline.registry.aliases import CHAMPION
    from biasline.registry.export import export_version
    from biasline.tracking.store import connect

    task, _, which = model.partition("@")
    _task(task)
    for line in export_version(connect(), task, which or CHAMPION, out, to=to, target=target, split=split):
        print(line)


@app.command()
def extract(
    model: Annotated[
        str, typer.Argument(metavar="TASK[@WHICH]", help="Which: an alias or a fingerprint; champion if left out.")
    ],
    tenant: Annotated[str, typer.Argument(help="The tenant's name.")],
    out: Annotated[Path, typer.Argument(help="A file that is not there yet.")],
) -> None:
    """Write the delta of one tenant of a fleet: an ordinary delta file, byte for byte as it was trained."""
    from biasline.registry.aliases import CHAMPION
    from biasline.registry.extract import extract as extract_delta
    from biasline.tracking.store import connect

    task, _, which = model.partition("@")
    _task(task)
    done = extract_delta(connect(), task, which or CHAMPION, tenant, out)
    print(
        f"{shown(out)}: the delta of {tenant!r} in {done.name} version {done.version}, {done.bytes:,} bytes{done.told}"
    )


@app.command()
def watch(
    model: Annotated[
        str, typer.Argument(metavar="TASK[@WHICH]", help="Which: an alias or a fingerprint; champion if left out.")
    ],
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
        _task(task)
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


@app.command()
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


@app.command("api-key")
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


def _told_entry(entry: dict[str, Any]) -> str:
    reason = f": {entry['reason']}" if entry.get("reason") else ""
    return f"{entry['time']}  {entry['decision']:<14}  {entry['fingerprint']}  by {entry['by']}{reason}"


def _show(rows: Sequence[Any], as_json: bool, line: Any) -> None:
    if as_json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
        return
    for row in rows:
        print(line(row))


def _project() -> Path:
    from biasline.layout import home

    return home()


def _tasks() -> dict[str, "Task"]:
    from biasline.params import read_params

    return read_params(_project() / "params.yaml").tasks


def _task(name: str) -> "Task":
    """The task's parameters; an unknown task is refused with the nearest name."""
    from biasline.params import get_task, read_params

    return get_task(read_params(_project() / "params.yaml"), name, "params.yaml")
