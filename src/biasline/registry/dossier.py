"""The dossier of a registered version: who let it out and why, of what it was made, how it does, where it fails.

One folder for whoever has to vouch for a model: a document in Markdown and HTML (and PDF), a bill of materials, the
provenance, and its signature. The same model and ledger give the same bytes.
"""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from biasline.bases.pin import file_sha256, read_pin
from biasline.errors import BiaslineError, shown
from biasline.jsonfile import load_json
from biasline.layout import TaskPlace, home, in_project, replacing, write_text
from biasline.params import read_task
from biasline.registry import ledger, why
from biasline.registry.bom import bill_of_materials
from biasline.registry.document import PNG, as_html, check_libraries, lowered, write_pdf
from biasline.registry.gates import gate_word
from biasline.registry.provenance import Material, statement
from biasline.registry.signing import copy_signature, package_contents, signature_file, signed_names, standing
from biasline.registry.versions import named_version
from biasline.registry.watch import REPORT
from biasline.serving.packaging import files_in
from biasline.serving.registered import aliased, package_folder, run_file, run_of
from biasline.tracking.watches import last_look

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_FIGURES = "figures"
# Slices and checks that a list names.
_NAMED = 5
_EVER = datetime(1970, 1, 1, tzinfo=UTC)


def dossier(
    client: "MlflowClient", task: str, which: str, out: Path, *, pdf: bool = False, public: Path | None = None
) -> list[str]:
    """Write all that is known of a registered version into a folder.

    Args:
        client: client of the tracking store.
        task: name of the task.
        which: an alias, or a fingerprint or its beginning.
        out: a folder that is not there yet.
        pdf: whether the document is wanted as PDF too.
        public: a key that its signature is held against; without one it is only told whose it says to be.

    Returns:
        what was written, and what could not be had, in lines.

    Raises:
        BiaslineError: where there is no such version, it lost its package, `out` is there, or a library is not.
    """
    if out.exists():
        raise BiaslineError(f"{shown(out)}: is there already", "name a folder that is not there yet")
    check_libraries(pdf)
    version = aliased(client, task, which) or named_version(client, task, which)
    told = why.why(client, task, which)
    title = f"Dossier of {version.name} version {version.version}"
    with tempfile.TemporaryDirectory() as scratch:
        found = _Found(client, version, told, Path(scratch))
        pictures, material = found.pictures(), found.material()
        signed = _signature(client, version, public)
        # Last, since it tells what could not be had.
        page = "\n".join([f"# {title}", "", *_page(found, list(pictures), signed), ""])
        with replacing(out) as draft:
            draft.mkdir()
            write_text(draft / "dossier.md", page)
            write_text(draft / "dossier.html", as_html(title, page, pictures))
            write_text(draft / "bom.cdx.json", bill_of_materials(material))
            write_text(draft / "provenance.json", statement(material))
            copy_signature(version, draft / "signature.json")
            for name, content in pictures.items():
                (draft / name).parent.mkdir(exist_ok=True)
                (draft / name).write_bytes(content)
            if pdf:
                write_pdf(draft / "dossier.pdf", title, page, pictures, found.made_at)
    names = ", ".join(sorted(path.name for path in out.iterdir()))
    lines = [f"{shown(out)}: {version.name} version {version.version}: {names}"]
    return lines + [f"missing: {one}" for one in found.missing]


class _Found:
    """What could be had of a version, each thing read once; what could not be had is told in `missing`."""

    def __init__(self, client: "MlflowClient", version: "ModelVersion", told: dict[str, Any], scratch: Path) -> None:
        self.client, self.version, self.told, self.scratch = client, version, told, scratch
        self.place = TaskPlace(version.name.removeprefix("biasline-"))
        self.missing: list[str] = list(told["missing"])
        (scratch / "package").mkdir()
        self.folder = package_folder(version, scratch / "package")
        files, *_ = files_in(self.folder)
        self.task, self.resolved = read_task(files["task"]), load_json(files["task"], "biasline sync")
        self.pin = read_pin(files["pin"])
        self.card, self.quality = self.text(self.place.card), self.text(self.place.quality_page)
        self.metrics = json.loads(self.text(self.place.metrics) or "{}")
        self.report = json.loads(self.text(self.place.train_report) or "{}")
        self.slices = self._read_slices()
        self.look = last_look(client, self.place.task, version.tags["biasline.fingerprint"], REPORT)

    def file(self, path: Path) -> Path | None:
        """A file of the run; None, which is noted, where it cannot be had."""
        try:
            return run_file(self.client, self.version, path, self.scratch)
        except BiaslineError:
            name = path.relative_to(self.place.folder).as_posix()
            self.missing += [name] if name not in self.missing else []
            return None

    def text(self, path: Path) -> str:
        """The same as text; empty where it cannot be had."""
        file = self.file(path)
        return "" if file is None else file.read_text(encoding="utf-8")

    def pictures(self) -> dict[str, bytes]:
        """The figures of the run in the store, by their paths in the dossier."""
        run = run_of(self.client, self.version)
        if run is None:
            return {}
        found = {}
        for item in sorted(self.client.list_artifacts(run.info.run_id, _FIGURES), key=lambda item: item.path):
            if item.path.endswith(".png"):
                path = self.client.download_artifacts(run.info.run_id, item.path, dst_path=str(self.scratch))
                content = Path(path).read_bytes()
                if content.startswith(PNG):
                    found[item.path] = content
        return found

    def _read_slices(self) -> list[dict[str, Any]]:
        """Rows of slices.csv, where the evaluation says which metric they are of."""
        path = self.file(self.place.slices) if "sliced_by" in self.metrics else None
        return [] if path is None else pl.read_csv(path).to_dicts()

    @property
    def made_at(self) -> datetime:
        """When the newest thing in the dossier was made."""
        times = [self.told["run"]["ended"], *(entry["time"] for entry in self.told["decisions"])]
        if self.look is not None:
            times.append(_at(self.look[1]))
        return max((datetime.fromisoformat(time) for time in times if time), default=_EVER)

    @property
    def verdict(self) -> Mapping[str, Any] | None:
        """The last decision that gates were asked for."""
        judged = [entry for entry in self.told["decisions"] if entry.get("verdict")]
        return judged[-1] if judged else None

    def limits(self) -> list[str]:
        """What is known of where the model fails, or of what nobody knows."""
        lines = lowered(_section(self.card, "Limits"), 0).splitlines()
        found = [line for line in lines if line.strip()]
        found += [f"{note[0].upper()}{note[1:]}." for note in self.report.get("notes", ())]
        gates = self.verdict["verdict"]["gates"] if self.verdict else ()
        found += [
            f"Gate “{gate['name']}” {'let it pass with a warning' if gate['passed'] else 'FAILED'}: {gate['told']}."
            for gate in gates
            if gate.get("warning") or not gate["passed"]
        ]
        found += self._failing()
        if self.told["evaluation"]["is_what_was_judged"] is False:
            found.append("It was evaluated again since it was judged: the numbers here are not those of the decision.")
        if self.told["code"]["not_committed"]:
            found.append(f"What made it was not all in a commit: {self.told['code']['not_committed']}.")
        return found

    def _failing(self) -> Iterator[str]:
        """Slices that are shown to lie below the whole, worst first."""
        if not self.slices:
            return
        metric = self.task.declared(self.metrics["sliced_by"], self.metrics["tuned"])
        whole, sign = self.metrics["tuned"].get(metric.name), 1 if metric.higher_is_better else -1
        end = "tuned_high" if sign > 0 else "tuned_low"
        if whole is None:
            return
        below = [row for row in self.slices if row.get(end) is not None and sign * (whole - row[end]) > 0]
        for row in sorted(below, key=lambda row: sign * row["tuned"])[:_NAMED]:
            yield (
                f"Slice {row['slice']} = {row['value']}: {metric.long_label} {row['tuned']:.3f} "
                f"[{row['tuned_low']:.3f}, {row['tuned_high']:.3f}] over {row['rows']} rows, of all rows {whole:.3f}."
            )
        if len(below) > _NAMED:
            yield f"{len(below) - _NAMED} more slices are shown to lie below the whole: see the card."

    def material(self) -> Material:
        """For the bill of materials and the provenance."""
        place = self.place
        kept = {path: self.file(path) for path in (place.card, place.metrics, place.quality, place.train_report)}
        libraries, is_locked = self._libraries()
        return Material(
            told=self.told,
            task=self.resolved,
            pin=self.pin,
            package={name: file_sha256(path) for name, path in package_contents(self.folder).items()},
            evidence={
                path.relative_to(place.folder).as_posix(): file_sha256(file) for path, file in kept.items() if file
            },
            metrics=self.metrics,
            slices=self.slices,
            libraries=libraries,
            is_locked=is_locked,
            limits=self.limits(),
        )

    def _libraries(self) -> tuple[list[tuple[str, str]], bool]:
        """Those of the lock, where it is the one that the model was made with; else those that the package names."""
        wanted = self.told["code"]["requirements_lock_sha256"]
        lock = home() / "requirements.lock" if in_project() else Path("requirements.lock")
        content = lock.read_bytes() if lock.is_file() else b""
        if wanted and hashlib.sha256(content).hexdigest() == wanted:
            return _pinned(content.decode()), True
        told = "the requirements.lock that it was made with"
        self.missing += [told] if told not in self.missing else []
        named = self.folder / "requirements.txt"
        pinned = dict(_pinned(named.read_text(encoding="utf-8"))) if named.is_file() else {}
        return sorted({**pinned, **self.told["code"]["versions"]}.items()), False


def _pinned(text: str) -> list[tuple[str, str]]:
    """Names and versions of a lock's lines."""
    return [(name, version) for name, _, version in (line.partition("==") for line in text.split()) if version]


def _section(page: str, name: str) -> str:
    """A part of a page of Markdown, by its heading of the second level."""
    _, _, rest = page.partition(f"\n## {name}\n")
    return rest.partition("\n## ")[0]


def _at(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def _page(found: _Found, pictures: Sequence[str], signed: str) -> Iterator[str]:
    """The document, below its title."""
    told, made, decided = found.told, why.as_markdown(found.told).partition("\n## Decisions\n")[0], found.verdict
    yield from _in_short(found, signed)
    yield from ("", "## What it was made of", "", lowered(made, 1))
    card = lowered(found.card, 1) or "The card could not be had."
    yield from ("", "## Model card", "", card)
    for name in pictures:
        yield from ("", f"![{Path(name).stem.replace('_', ' ')}]({name})")
    yield from ("", "## Data report", "", lowered(found.quality, 1) or "The report could not be had.")
    yield from ("", "## Gates", "")
    if decided is None:
        yield "No gate was asked yet."
    else:
        verdict = decided["verdict"]
        beside = f"; {verdict['standing']} than the champion" if verdict["standing"] else ""
        yield f"On {decided['time']}: {decided['decision']}, by {verdict['metric']}{beside}."
        yield from ("", "| gate | | numbers |", "|---|---|---|")
        for gate in verdict["gates"]:
            yield f"| {_cell(gate['name'])} | {gate_word(gate)} | {_cell(gate['told'])} |"
    yield from ("", "## Ledger", "")
    if not told["decisions"]:
        yield "Nothing was decided about it yet."
    else:
        yield from ("| time | decision | by | reason | id |", "|---|---|---|---|---|")
    for entry in told["decisions"]:
        by, reason = _cell(entry.get("by", "")), _cell(entry.get("reason") or "")
        yield f"| {entry['time']} | {entry['decision']} | {by} | {reason} | `{entry['id']}` |"
    yield from ("", "## Drift", "", *_drift(found))
    limits = found.limits()
    yield from ("", "## Known limits", "", *(f"- {_line(line)}" for line in limits or ["None is known."]))
    yield from ("", "## Signature", "", signed)
    yield from ("", "## What could not be had", "")
    missing = found.missing
    yield from (f"- {_line(one)}" for one in missing) if missing else ("Nothing is missing.",)


def _in_short(found: _Found, signed: str) -> Iterator[str]:
    model, evaluation = found.told["model"], found.told["evaluation"]
    let_out = [entry for entry in found.told["decisions"] if entry["decision"] in (ledger.PROMOTED, ledger.ROLLED_BACK)]
    yield from ("| | |", "|---|---|")
    yield f"| model | {model['name']} version {model['version']} ({', '.join(model['aliases']) or 'no alias'}) |"
    if let_out:
        last = let_out[-1]
        reason = f": {_cell(last['reason'])}" if last.get("reason") else ""
        yield f"| let out | {last['time']}, {last['decision']}, by {_cell(last.get('by', ''))}{reason} |"
    else:
        yield "| let out | by nobody |"
    metric = found.metrics.get("metric")
    if metric is not None and metric in evaluation.get("tuned", {}):
        low, high = (evaluation["tuned"].get(f"{metric}_{end}") for end in ("low", "high"))
        between = f" [{low:.4f}, {high:.4f}]" if None not in (low, high) else ""
        value = f"{evaluation['tuned'][metric]:.4f}{between}"
        yield f"| judged by | {metric} {value} on {evaluation['rows']:,} held-out rows |"
    yield f"| signature | {_cell(signed)} |"
    yield f"| beside this page | `bom.cdx.json` (CycloneDX), `provenance.json` (in-toto, SLSA){_beside(found)} |"


def _beside(found: _Found) -> str:
    return ", `signature.json`" if signature_file(found.version).is_file() else ""


def _drift(found: _Found) -> Iterator[str]:
    """The latest look at what users ask."""
    if found.look is None:
        yield f"Nobody has looked at what users ask of it: `biasline watch {found.place.task}` does."
        return
    name, at, report = found.look
    rows = f"{report['rows']:,} rows of users beside {report['before']:,} of the evaluation"
    yield f"{_at(at)} (run {name}): **{report['verdict']}**, by {rows}."
    changed = [f"{check['name']}: {check['told']}" for check in report["checks"] if check["alarms"]]
    changed += [f"tenant {tenant}: {checks[0]['name']}" for tenant, checks in report["tenants"].items() if checks]
    if changed:
        yield ""
        yield from (f"- {_line(one)}" for one in changed)


def _signature(client: "MlflowClient", version: "ModelVersion", public: Path | None) -> str:
    """How the version stands, in a sentence."""
    file = signature_file(version)
    if public is not None:
        found = standing(client, version, public)
        return f"{'It holds' if found.holds else '**It does NOT hold**' if found.signed else 'None'}: {found.told}."
    if not file.is_file():
        return "None: nobody has signed it."
    covered = len(signed_names(file))
    return (
        f"There is one over {covered} files, which was not held against a key here: `biasline verify --signature "
        "PUBLIC.pem` does so."
    )


def _cell(text: str) -> str:
    """A text in a table, whole: what `cell` cuts is what somebody may have to vouch for."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _line(text: str) -> str:
    """A text as an item of a list."""
    return " ".join(text.split()).replace("<", "&lt;")
