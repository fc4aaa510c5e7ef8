"""Commands that decide which version serves, and that tell who decided."""

import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from biasline.cli.common import AsJson, By, ModelName, TaskName, all_tasks, find_task, show
from biasline.errors import BiaslineError, shown


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

    find_task(task)
    version = nominate_run(connect(), task, run, by or someone(), reason)
    print(f"{version.name} version {version.version} is the candidate; `biasline promote {task}` judges it")


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
        find_task(task),
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


def rollback(
    task: TaskName,
    by: By = "",
    reason: Annotated[str, typer.Option(help="Why.")] = "",
) -> None:
    """Make the champion before the present one champion again."""
    from biasline.registry.promote import rollback as roll_back
    from biasline.tracking.lineage import someone
    from biasline.tracking.store import connect

    find_task(task)
    now, was = roll_back(connect(), task, by or someone(), reason)
    told = f", version {was.version} no longer" if was is not None else ""
    print(f"{now.name} version {now.version} ({now.tags['biasline.fingerprint']}) is champion again{told}")


def history(
    task: TaskName,
    tenant: Annotated[str, typer.Option(help="Of a fleet: what served this tenant, champion by champion.")] = "",
    as_json: AsJson = False,
) -> None:
    """Who decided what, when and why: the task's ledger."""
    from biasline.layout import TaskPlace
    from biasline.registry.ledger import entries

    find_task(task)
    if tenant:
        from biasline.registry.of_tenant import in_words, tenant_history
        from biasline.tracking.store import connect

        told = list(tenant_history(connect(), task, tenant))
        show(told, as_json, lambda row: f"{row['time']}  version {row['version']} {row['decision']}: {in_words(row)}")
        return
    found = list(entries(TaskPlace(task).ledger))
    if not found and not as_json:
        print(f"{task}: nothing decided yet; `biasline promote {task}` takes the first decision")
    show(found, as_json, _told_entry)


def _told_entry(entry: dict[str, Any]) -> str:
    reason = f": {entry['reason']}" if entry.get("reason") else ""
    return f"{entry['time']}  {entry['decision']:<14}  {entry['fingerprint']}  by {entry['by']}{reason}"


def verify(
    task: Annotated[str, typer.Argument(help="One task; all if left out.")] = "",
    signature: Annotated[
        Path | None, typer.Option(metavar="PUBLIC.pem", help="A key that the champion must be signed by.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Hold ledger, aliases and packaged models against each other; exit code 1 where something is wrong."""
    from biasline.registry.verify import verify as verified
    from biasline.tracking.store import connect

    client, told = connect(), []
    for name in [task] if task else list(all_tasks()):
        find_task(name)
        right, wrong = verified(client, name, signature)
        told += [{"task": name, "right": True, "found": line} for line in right]
        told += [{"task": name, "right": False, "found": line} for line in wrong]
        if not right and not wrong:
            told.append({"task": name, "right": True, "found": "nothing registered or decided yet"})
    show(told, as_json, lambda row: f"{row['task']}: {'' if row['right'] else 'WRONG: '}{row['found']}")
    if not all(row["right"] for row in told):
        raise SystemExit(1)


def sign(
    model: ModelName,
    key: Annotated[Path, typer.Option(metavar="PRIVATE.pem", help="An elliptic-curve key of yours, PEM.")],
    password_from: Annotated[
        str, typer.Option(metavar="VARIABLE", help="The environment variable that holds the key's password.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Sign a model: its package, its card and numbers, and the ledger so far; `verify --signature` holds it to that."""
    from biasline.layout import home
    from biasline.registry.aliases import CHAMPION
    from biasline.registry.signing import sign as signed
    from biasline.tracking.store import connect

    task, _, which = model.partition("@")
    find_task(task)
    password = os.environ.get(password_from) if password_from else None
    if password_from and not password:
        raise BiaslineError(f"--password-from {password_from}: not in the environment", f"export {password_from}=…")
    done = signed(connect(), task, which or CHAMPION, key, password.encode() if password else None, password_from)
    version = done.version
    if as_json:
        told = {"version": version.version, "fingerprint": version.tags["biasline.fingerprint"], "files": done.files}
        file = done.file.relative_to(home()).as_posix()
        print(json.dumps(told | {"entries": done.entries, "signature": file, "already": done.already}, indent=2))
        return
    word = "is signed so already" if done.already else "signed"
    print(
        f"{version.name} version {version.version} {word}: {done.files} files, and {done.entries} entries of the "
        f"ledger; {shown(done.file)}{'' if done.already else ' belongs in git'}"
    )


def why(
    model: Annotated[
        str,
        typer.Argument(
            metavar="TASK[@WHICH][/TENANT]", help="Which: alias, version or fingerprint; champion if left out."
        ),
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
    find_task(task)
    told = asked(connect(), task, which or CHAMPION, tenant)
    print(json.dumps(told, indent=2, ensure_ascii=False) if as_json else as_markdown(told))
