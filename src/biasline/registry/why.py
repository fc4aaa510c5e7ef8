"""Why a model is what it is: raw file → quarantine → code → base → run → numbers → decisions, on one page."""

import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biasline.bases.pin import file_sha256
from biasline.data.validate import data_sha256
from biasline.jsonfile import load_json
from biasline.layout import TaskPlace, home
from biasline.registry import ledger
from biasline.registry.aliases import CHAMPION, aliased
from biasline.registry.package import package_files
from biasline.registry.versions import named_version, run_file

if TYPE_CHECKING:
    from mlflow import MlflowClient

_HARDWARE = ("platform", "cpu.model", "cpu.count", "gpu")


def why(client: "MlflowClient", task: str, which: str = CHAMPION) -> dict[str, Any]:
    """Everything that a registered model was made from, and who let it out.

    Args:
        which: an alias, or a fingerprint or its beginning.

    Errors: `BiaslineError` where there is no such version, or its run lost a file.
    """
    version = aliased(client, task, which) or named_version(client, task, which)
    run = client.get_run(version.run_id)
    tags, fingerprint = run.data.tags, version.tags["biasline.fingerprint"]
    place = TaskPlace(task)
    with tempfile.TemporaryDirectory() as scratch:
        quality, report, metrics = (
            load_json(run_file(client, version, path, Path(scratch)), "biasline sync")
            for path in (place.quality, place.train_report, place.metrics)
        )
        judged = file_sha256(run_file(client, version, place.metrics, Path(scratch)))
    files, *_ = package_files(version)
    resolved = load_json(files["task"], "biasline sync")
    pin = load_json(files["pin"], "biasline sync")
    model = client.get_registered_model(version.name)
    aliases = sorted(name for name, number in model.aliases.items() if number == version.version)
    return {
        "model": {
            "name": version.name,
            "version": version.version,
            "aliases": aliases,
            "fingerprint": fingerprint,
            "delta_sha256": version.tags.get("biasline.delta_sha256", ""),
            "delta_is_intact": file_sha256(files["delta"]) == version.tags.get("biasline.delta_sha256"),
        },
        "data": {
            "file": resolved["data"],
            "sha256": quality["raw_sha256"],
            "here": _here(resolved["data"], quality["raw_sha256"]),
            **{name: quality[name] for name in ("rows", "quarantined", "reasons", "splits")},
        },
        "code": {
            "commit": tags.get("git.commit", ""),
            "branch": tags.get("git.branch", ""),
            "not_committed": tags.get("git.changed", ""),
            "requirements_lock_sha256": tags.get("lock.sha256", ""),
            "made_by": tags.get("made.by", ""),
            "experiment": tags.get("dvc.experiment", ""),
            "versions": {name.removeprefix("version."): tags[name] for name in sorted(tags) if "version." in name[:8]},
        },
        "base": {
            "name": report["base"]["name"],
            "digest": report["base"]["digest"],
            "source": {name: value for name, value in pin["source"].items() if value},
            "parameters": report["base"]["parameters"],
        },
        "training": {
            # The earliest reports do not tell the rate.
            "learning_rate": report.get("learning_rate"),
            **{name: report[name] for name in ("method", "trainable", "steps", "kept_step", "rows")},
            **{name: resolved["train"][name] for name in ("biases", "seed", "threads")},
        },
        "run": {
            "id": run.info.run_id,
            "name": run.info.run_name,
            "status": run.info.status,
            "started": _time(run.info.start_time),
            "ended": _time(run.info.end_time),
            "machine": {name: tags[name] for name in _HARDWARE if name in tags},
        },
        "evaluation": {
            **{name: metrics[name] for name in ("rows", "test_sha256", "base", "probe", "tuned") if name in metrics},
            "is_what_was_judged": judged == version.tags.get("biasline.metrics_sha256"),
        },
        "decisions": list(_decisions(place.ledger, fingerprint)),
    }


def _decisions(path: Path, fingerprint: str) -> Iterator[dict[str, Any]]:
    """What was decided about a model; that another took its place by a rollback is told as `taken back`."""
    for entry in ledger.entries(path):
        if entry["fingerprint"] == fingerprint:
            yield entry
        elif entry["decision"] == ledger.ROLLED_BACK and entry["previous"] == fingerprint:
            yield {**entry, "decision": "taken back"}


def _here(data: str, sha256: str) -> str:
    path = home() / data
    if not path.exists():
        return "not here"
    return "the same" if data_sha256(path) == sha256 else "another by now"


def _time(milliseconds: int | None) -> str:
    if milliseconds is None:
        return ""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def as_markdown(told: Mapping[str, Any]) -> str:
    """The page."""
    model, data, code, base = told["model"], told["data"], told["code"], told["base"]
    training, run, evaluation = told["training"], told["run"], told["evaluation"]
    reasons = ", ".join(f"{name} {count:,}" for name, count in data["reasons"].items()) or "none"
    splits = ", ".join(f"{name} {count:,}" for name, count in data["splits"].items())
    trainable = training["trainable"]
    lines = [
        f"# {model['name']} version {model['version']} ({', '.join(model['aliases']) or 'no alias'})",
        "",
        f"Fingerprint `{model['fingerprint']}`; delta sha256 `{model['delta_sha256']}`, "
        f"{'intact' if model['delta_is_intact'] else '**NOT what was registered**'}.",
        "",
        "| | |",
        "|---|---|",
        f"| data | `{data['file']}`, sha256 `{data['sha256']}`; the file here is {data['here']} |",
        f"| quarantine | {data['quarantined']:,} of {data['rows']:,} rows: {reasons} |",
        f"| rows | {splits} |",
        f"| code | {_code(code)} |",
        f"| made again by | {'`' + code['made_by'] + '`' if code['made_by'] else 'not known'} |",
        f"| libraries | {_listed(code['versions'])} |",
        f"| base | {base['name']}, {base['parameters']:,} parameters, from {_listed(base['source'])}, "
        f"digest `{base['digest']}` |",
        f"| trained | {training['method']}: {trainable['biases']:,} biases ({training['biases']}), head "
        f"{trainable['head']:,}; {training['rows']:,} rows, {training['steps']} steps at "
        f"{training['learning_rate']}, step {training['kept_step']} kept; seed {training['seed']}, "
        f"{training['threads']} threads |",
        f"| run | {run['name']} (`{run['id']}`), {run['status']}, {run['started']} … {run['ended']} |",
        f"| machine | {_listed(run['machine'])} |",
        f"| test set | {evaluation['rows']:,} rows, sha256 `{evaluation['test_sha256']}` |",
    ]
    names = {"base": "untuned", "probe": "head alone", "tuned": "tuned"}
    for key, name in names.items():
        if key in evaluation:
            lines.append(f"| {name} | {_numbers(evaluation[key])} |")
    if not evaluation["is_what_was_judged"]:
        lines.append("| | **evaluated again since: these are not the numbers that this version was judged by** |")
    lines += ["", "## Decisions", ""]
    if not told["decisions"]:
        lines.append("None yet.")
    for entry in told["decisions"]:
        reason = f": {entry['reason']}" if entry.get("reason") else ""
        lines.append(f"- {entry['time']}: {entry['decision']} by {entry['by']}{reason}")
        verdict = entry.get("verdict") or {"gates": []}
        lines += [
            f"  - {gate['name']}: {'passed' if gate['passed'] else 'FAILED'} ({gate['told']})"
            for gate in verdict["gates"]
        ]
    return "\n".join([*lines, ""])


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _code(code: Mapping[str, Any]) -> str:
    if not code["commit"]:
        return f"not in git; **{code['not_committed']}**" if code["not_committed"] else "not in git"
    told = f"commit `{code['commit']}`" + (f" on {code['branch']}" if code["branch"] not in ("", "HEAD") else "")
    told += f", experiment {code['experiment']}" if code["experiment"] else ""
    told += f", requirements.lock sha256 `{code['requirements_lock_sha256'][:12]}`"
    return told + (f"; **not committed: {code['not_committed']}**" if code["not_committed"] else "")


def _numbers(values: Mapping[str, float]) -> str:
    told = []
    for name, value in values.items():
        if not name.endswith(("_low", "_high")):
            low, high = values.get(f"{name}_low"), values.get(f"{name}_high")
            interval = f" [{low:.4f}, {high:.4f}]" if low is not None and high is not None else ""
            told.append(f"{name.replace('_', ' ')} {value:.4f}{interval}")
    return ", ".join(told)
