"""Why a model is what it is: raw file → quarantine → code → base → run → numbers → decisions, on one page."""

import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biasline.bases.pin import file_sha256
from biasline.data.validate import data_sha256
from biasline.errors import BiaslineError
from biasline.evaluation.cells import cell
from biasline.evaluation.intervals import format_interval
from biasline.jsonfile import load_json
from biasline.kinds.answering import find_answering
from biasline.layout import TaskPlace, home
from biasline.metrics.table import label_of
from biasline.params.method_spec import scale_count
from biasline.registry import ledger
from biasline.registry.aliases import CHAMPION
from biasline.registry.gates import gate_word
from biasline.registry.of_tenant import in_words, tenant_told
from biasline.registry.versions import named_version
from biasline.serving.registered import aliased, package_files, run_file, run_of
from biasline.tracking.record import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient

# What a version's run says of tenants that were carried over.
_CARRIED = ("of", "from", "tenants")
_HARDWARE = ("platform", "cpu.model", "cpu.count", "gpu")


def why(client: "MlflowClient", task: str, which: str = CHAMPION, tenant: str = "") -> dict[str, Any]:
    """Everything that a registered model was made from, and who let it out.

    Args:
        client: client of the tracking store.
        task: name of the task.
        which: an alias, or a fingerprint or its beginning.
        tenant: of a fleet, whom to tell of besides.

    Returns:
        the page's parts; `missing` names what neither the store nor a record here has, and those values are None.

    Raises:
        BiaslineError: where there is no such version, it lost its package, or it does not know the tenant.
    """
    version = aliased(client, task, which) or named_version(client, task, which)
    run, missing = run_of(client, version), []
    fingerprint = version.tags["biasline.fingerprint"]
    tags = run.data.tags if run is not None else Record(task, fingerprint).lineage
    place = TaskPlace(task)
    if run is None:
        missing.append(f"its run {version.run_id}, which was purged from the store")
    found: list[dict[str, Any]] = []
    judged = None
    with tempfile.TemporaryDirectory() as scratch:
        for path in (place.quality, place.train_report, place.metrics):
            try:
                file = run_file(client, version, path, Path(scratch))
            except BiaslineError:
                missing.append(path.relative_to(place.folder).as_posix())
                found.append({})
                continue
            found.append(load_json(file, "biasline sync"))
            judged = file_sha256(file) if path == place.metrics else judged
    quality, report, metrics = found
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
            "sha256": quality.get("raw_sha256"),
            "here": _here(resolved["data"], quality["raw_sha256"]) if quality else None,
            **{name: quality.get(name) for name in ("rows", "quarantined", "reasons", "splits")},
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
            **{name: report.get("base", {}).get(name) for name in ("name", "digest", "parameters")},
            "source": {name: value for name, value in pin["source"].items() if value},
        },
        "training": {
            # The earliest reports do not tell the rate.
            "learning_rate": report.get("learning_rate"),
            **{name: report.get(name) for name in ("method", "trainable", "steps", "kept_step", "rows")},
            **{name: resolved["train"][name] for name in ("biases", "seed", "threads")},
        },
        "run": {
            "id": run.info.run_id if run is not None else version.run_id,
            "name": run.info.run_name if run is not None else None,
            "status": run.info.status if run is not None else None,
            "started": _time(run.info.start_time) if run is not None else None,
            "ended": _time(run.info.end_time) if run is not None else None,
            "machine": {name: tags[name] for name in _HARDWARE if name in tags},
        },
        "evaluation": {
            "kind": resolved["kind"],
            **{name: metrics[name] for name in ("rows", "test_sha256", "base", "probe", "tuned") if name in metrics},
            "is_what_was_judged": judged == version.tags.get("biasline.metrics_sha256") if metrics else None,
        },
        **({"tenant": tenant_told(client, version, tenant)} if tenant else {}),
        **({"carried": {name: tags[f"carried.{name}"] for name in _CARRIED}} if "carried.of" in tags else {}),
        "decisions": list(_decisions(place.ledger, fingerprint)),
        "missing": missing,
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
    """The page; without the lines of what is missing, which it names."""
    model = told["model"]
    lines = [
        f"# {model['name']} version {model['version']} ({', '.join(model['aliases']) or 'no alias'})",
        "",
        f"Fingerprint `{model['fingerprint']}`; delta sha256 `{model['delta_sha256']}`, "
        f"{'intact' if model['delta_is_intact'] else '**NOT what was registered**'}.",
        "",
        "| | |",
        "|---|---|",
        *([f"| tenant | {cell(told['tenant']['tenant'])}: {in_words(told['tenant'])} |"] if "tenant" in told else []),
        *_made_from(told),
        *([_carried(told["carried"])] if "carried" in told else []),
        *_measured(told["evaluation"]),
    ]
    if told["missing"]:
        lines.append(
            f"| **missing** | {'; '.join(told['missing'])}; `biasline sync` where its record lies brings it back |"
        )
    lines += ["", "## Decisions", ""]
    if not told["decisions"]:
        lines.append("None yet.")
    for entry in told["decisions"]:
        reason = f": {entry['reason']}" if entry.get("reason") else ""
        lines.append(f"- {entry['time']}: {entry['decision']} by {entry['by']}{reason}")
        verdict = entry.get("verdict") or {"gates": []}
        lines += [f"  - {gate['name']}: {gate_word(gate)} ({gate['told']})" for gate in verdict["gates"]]
    return "\n".join([*lines, ""])


def _made_from(told: Mapping[str, Any]) -> Iterator[str]:
    """Rows of the table: data, code, base, training, run."""
    data, code, base, training, run = (told[name] for name in ("data", "code", "base", "training", "run"))
    if data["rows"] is not None:
        reasons = ", ".join(f"{name} {count:,}" for name, count in data["reasons"].items()) or "none"
        yield f"| data | `{data['file']}`, sha256 `{data['sha256']}`; the file here is {data['here']} |"
        yield f"| quarantine | {data['quarantined']:,} of {data['rows']:,} rows: {reasons} |"
        yield f"| rows | {', '.join(f'{name} {count:,}' for name, count in data['splits'].items())} |"
    else:
        yield f"| data | `{data['file']}` |"
    yield f"| code | {_code(code)} |"
    yield f"| made again by | {'`' + code['made_by'] + '`' if code['made_by'] else 'not known'} |"
    yield f"| libraries | {_listed(code['versions'])} |"
    if training["method"] is not None:
        trainable = training["trainable"]
        count = scale_count(trainable)
        scales = f"scales {count:,}, " * bool(count)
        yield (
            f"| base | {base['name']}, {base['parameters']:,} parameters, from {_listed(base['source'])}, "
            f"digest `{base['digest']}` |"
        )
        yield (
            f"| trained | {training['method']}: {trainable['biases']:,} biases ({training['biases']}), {scales}head "
            f"{trainable['head']:,}; {training['rows']:,} rows, {training['steps']} steps at "
            f"{training['learning_rate']}, step {training['kept_step']} kept; seed {training['seed']}, "
            f"{training['threads']} threads |"
        )
    else:
        yield f"| base | from {_listed(base['source'])} |"
    if run["name"] is not None:
        yield f"| run | {run['name']} (`{run['id']}`), {run['status']}, {run['started']} … {run['ended']} |"
    yield f"| machine | {_listed(run['machine'])} |"


def _measured(evaluation: Mapping[str, Any]) -> Iterator[str]:
    """Rows of the table: the test set, and what each model reached on it."""
    if "rows" not in evaluation:
        return
    yield f"| test set | {evaluation['rows']:,} rows, sha256 `{evaluation['test_sha256']}` |"
    cheaper = find_answering(evaluation["kind"]).cheaper
    for key, name in {"base": "untuned", "probe": cheaper.label, "tuned": "tuned"}.items():
        if key in evaluation:
            yield f"| {name} | {_numbers(evaluation[key], evaluation['kind'])} |"
    if not evaluation["is_what_was_judged"]:
        yield "| | **evaluated again since: these are not the numbers that this version was judged by** |"


def _carried(carried: Mapping[str, str]) -> str:
    return (
        f"| carried over | {carried['tenants']} tenants have the deltas of `{carried['from']}`, the others those of "
        f"`{carried['of']}` |"
    )


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _code(code: Mapping[str, Any]) -> str:
    if not code["commit"]:
        return f"not in git; **{code['not_committed']}**" if code["not_committed"] else "not in git"
    told = f"commit `{code['commit']}`" + (f" on {code['branch']}" if code["branch"] not in ("", "HEAD") else "")
    told += f", experiment {code['experiment']}" if code["experiment"] else ""
    told += f", requirements.lock sha256 `{code['requirements_lock_sha256'][:12]}`"
    return told + (f"; **not committed: {code['not_committed']}**" if code["not_committed"] else "")


def _numbers(values: Mapping[str, float], kind: str) -> str:
    told = []
    for name, value in values.items():
        if not name.endswith(("_low", "_high")):
            interval = format_interval(values.get(f"{name}_low"), values.get(f"{name}_high"), ".4f")
            told.append(f"{label_of(kind, name)} {value:.4f}{interval}")
    return ", ".join(told)
