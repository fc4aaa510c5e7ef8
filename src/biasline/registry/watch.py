"""`biasline watch`: rows of users beside those of a registered model's evaluation; its page, its run in MLflow."""

import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from biasline.bases.pin import load_tokenizer
from biasline.bases.tokenizer import Tokenizer
from biasline.errors import BiaslineError, shown
from biasline.jsonfile import dump_json
from biasline.kinds.learning import find_learning
from biasline.layout import TaskPlace, in_project, local_state, replacing
from biasline.registry.versions import named_version
from biasline.serving.package import Package
from biasline.serving.registered import aliased, model_name, read_package, run_file
from biasline.tracking.watches import log_look
from biasline.watching.page import PICTURE, draw, page
from biasline.watching.requests import Asked, answered_by, evaluated, of_file, of_traffic
from biasline.watching.watch import Reading, Report, aware, look, recent

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_PAGE, REPORT = "report.md", "report.json"
_TOKENIZED = 1_000  # texts at a time


def watch(
    client: "MlflowClient",
    task: str,
    which: str,
    *,
    traffic: Path | None,
    rows: Path | None,
    days: float,
    level: float,
    tenants_rate: float,
    sample: int = 0,
    out: Path | None = None,
) -> tuple[Report, list[str]]:
    """Look at rows of users.

    Args:
        client: client of the tracking store.
        task: name of the task.
        which: an alias, or a fingerprint or its beginning.
        traffic: a folder that a server fills; or
        rows: a file of rows.
        days: how far back; 0 for all.
        level: of false alarms, see `watching.watch.look`.
        tenants_rate: of false discoveries, likewise.
        sample: texts that the frozen base is asked.
        out: the folder that the page, its picture and the report as JSON are put into; other files there stay.

    Returns:
        the report, and what to say of it.

    Raises:
        BiaslineError: where there is no such version, or no row to look at.
    """
    began = time.monotonic()
    if out is not None and out.exists() and not out.is_dir():
        raise BiaslineError(f"{shown(out)}: no folder", "name a folder for the page")
    version = aliased(client, task, which) or named_version(client, task, which)
    package = read_package(version)
    kind, column = package.task.kind, package.task.tenants.column
    asked = of_traffic(traffic, task, kind) if traffic is not None else of_file(rows or Path(), kind, column)
    asked = recent(asked, days)
    _check_some(asked, days)
    reading, notes = _reading_of(task, package, sample)
    fingerprint = version.tags["biasline.fingerprint"]
    later = datetime.now(UTC) + timedelta(days=1)
    if ahead := sum(at is not None and aware(at) > later for at in asked.at):
        notes.append(f"{ahead:,} rows say that they were asked in the future")
    if undated := sum(at is None for at in asked.at):
        notes.append(f"{undated:,} rows do not say when they were asked: they count, but for no day")
    others = sum(one not in ("", fingerprint) for one in asked.fingerprints)
    if others:
        notes.append(f"{others:,} rows were answered by other trainings: their texts count, their answers do not")
        asked = answered_by(asked, fingerprint)
    if column and not any(asked.tenants):
        notes.append(f"no row names its tenant ({column}), so that none is looked at by itself")
    before = _evaluated_rows(client, version, package)
    about = (task, version.version, fingerprint)
    near = package.task.quality.near_duplicate
    found = look(about, before, asked, reading, level=level, tenants_rate=tenants_rate, near=near, notes=notes)
    folder = out or local_state() / "watch" / task
    with tempfile.TemporaryDirectory() as scratch:
        drawn = draw(found, Path(scratch) / PICTURE)
        (Path(scratch) / _PAGE).write_text(page(found, drawn), encoding="utf-8", newline="\n")
        (Path(scratch) / REPORT).write_text(dump_json(found.as_data), encoding="utf-8", newline="\n")
        name = _log(client, version, found, Path(scratch))
        for file in sorted(Path(scratch).iterdir()):
            with replacing(folder / file.name) as draft:  # what else is there stays
                shutil.copyfile(file, draft)
    if not drawn:  # one of an earlier look would show other days
        (folder / PICTURE).unlink(missing_ok=True)
    changed = [f"{check.name}: {check.told}" for check in found.checks if check.alarms]
    changed += [f"tenant {tenant}: {checks[0].name}: {checks[0].told}" for tenant, checks in found.tenants.items()]
    taken = time.monotonic() - began
    lines = [
        f"biasline-{task} version {version.version}: {found.verdict}, by {found.rows:,} rows of users beside "
        f"{found.before:,} of the evaluation; {shown(folder / _PAGE)}, run {name} ({taken:.1f} s)",
        *(f"- {line}" for line in changed),
    ]
    return found, lines


def _log(client: "MlflowClient", version: "ModelVersion", found: Report, folder: Path) -> str:
    """The name of the look's run."""
    metrics = {"rows": float(found.rows), "alarms": float(found.alarms), "tenants_changed": float(len(found.tenants))}
    metrics |= {_metric(check.name): check.distance for check in found.checks}
    tags = {"biasline.version": version.version, "biasline.fingerprint": found.fingerprint}
    return log_look(client, found.task, metrics, tags, folder)


def _metric(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)


def _evaluated_rows(client: "MlflowClient", version: "ModelVersion", package: Package) -> Asked:
    """The test rows of a version's evaluation, with what it answered."""
    place = TaskPlace(version.name.removeprefix(model_name("")))
    with tempfile.TemporaryDirectory() as scratch:
        predictions = pl.read_parquet(run_file(client, version, place.predictions, Path(scratch)))
    return evaluated(package.task.kind, predictions, package.task.tenants.column)


def _reading_of(task: str, package: Package, sample: int) -> tuple[Reading, list[str]]:
    """What is known of a model's texts, and notes on what is not.

    Args:
        task: the name.
        package: what the version holds.
        sample: texts on either side that the frozen base is asked; 0 for none, and it is not loaded.
    """
    folder = package.base()
    tokenizer, notes = load_tokenizer(package.pin, folder), []
    unknown = tokenizer.unk_token_id
    trained = _training_texts(task, package)
    if not trained:
        notes.append("the training rows of this model are not in this checkout: copies of them were not looked for")
    texts = not package.headed
    reading = Reading(
        unknown=None if unknown is None else lambda rows: _unknown(tokenizer, rows, unknown),
        lengths=(lambda rows: _lengths(tokenizer, rows)) if texts else None,
        longest=package.task.evaluate.max_new_tokens if texts else 0,
        vectors=_vectors(package, folder, tokenizer, sample) if sample else None,
        trained=trained,
    )
    return reading, notes


def _training_texts(task: str, package: Package) -> list[str]:
    """Texts of the training rows, where this checkout has those that the model was trained on; else none."""
    from biasline.training.fingerprint import folder_sha256

    place = TaskPlace(task)
    if not in_project() or not place.tokens.is_dir() or not place.split("train").is_file():
        return []
    if folder_sha256(place.tokens) != package.delta.manifest.about.get("tokens_sha256"):
        return []
    columns = find_learning(package.task.kind).columns.prompt
    rows = pl.read_parquet(place.split("train"), columns=list(columns)).iter_rows()
    return ["\n".join(str(value) for value in row if value) for row in rows]


def _tokens(tokenizer: Tokenizer, texts: Sequence[str]) -> "list[list[int]]":
    found: list[list[int]] = []
    for start in range(0, len(texts), _TOKENIZED):
        found += tokenizer(list(texts[start : start + _TOKENIZED]), add_special_tokens=False)["input_ids"]
    return found


def _unknown(tokenizer: Tokenizer, texts: Sequence[str], unknown: int) -> np.ndarray:
    rows = _tokens(tokenizer, texts)
    return np.array([ids.count(unknown) / max(1, len(ids)) for ids in rows])


def _lengths(tokenizer: Tokenizer, texts: Sequence[str]) -> np.ndarray:
    return np.array([len(ids) for ids in _tokens(tokenizer, texts)])


def _vectors(
    package: Package, folder: Path, tokenizer: Tokenizer, sample: int
) -> "Callable[[Sequence[str]], np.ndarray]":
    loaded: list[Any] = []

    def vectors(texts: Sequence[str]) -> np.ndarray:
        from biasline.evaluation.heads import features

        if not loaded:
            loaded.append(package.load(folder))
        chosen = [texts[place] for place in np.random.default_rng(0).permutation(len(texts))[:sample]]
        longest = package.task.tokens.max_length
        rows = [{"input_ids": ids[:longest] or [0]} for ids in _tokens(tokenizer, chosen)]
        model = loaded[0]
        return features(model, rows, model.config.pad_token_id, package.task.evaluate.batch_size)

    return vectors


def _check_some(rows: Asked, days: float) -> None:
    """Refuse to say anything of no rows.

    Raises:
        BiaslineError: where there are none.
    """
    if not len(rows):
        raise BiaslineError(f"no row of the last {days:g} days", "name more of them: --days 30, or --days 0 for all")
