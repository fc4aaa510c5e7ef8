"""Carry over: tenants of a fleet's candidate that are shown to be worse off keep the champion's deltas.

The version that comes of it is one like any other, with a run, a record and an evaluation of its own.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from biasline.bases.pin import file_sha256, read_pin
from biasline.bitfit import BiasDelta, Deltas
from biasline.bitfit.deltas import file_of, write_index
from biasline.errors import BiaslineError
from biasline.evaluation.carried import measured_anew, rows_of, with_answers, write_carried
from biasline.jsonfile import dump_json, load_json
from biasline.layout import TaskPlace, home, replacing, write_parquet, write_text
from biasline.params import Task, read_task
from biasline.registry.files import package_files
from biasline.registry.gates import Shown, named, tenants_beside
from biasline.registry.versions import register_version
from biasline.serving.package import Package
from biasline.serving.rescore import scored_on
from biasline.tokens.saved import SUMMARY
from biasline.tracking.publish import publish
from biasline.tracking.record import Record, note_lineage

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

# What two deltas must agree in for one to answer in the other's package, beside base, labels and scale.
_ABOUT = ("tokenizer_sha256", "pooling", "template")


def with_carried(task: Task, candidate: Shown, champion: Shown, version: "ModelVersion") -> Shown:
    """What a candidate would show if tenants that are shown to be worse off had the champion's delta.

    Args:
        task: the parameters as they are now.
        candidate: what it shows.
        champion: the same of the champion, on the candidate's rows.
        version: the champion's.

    Returns:
        the same, with `carried`; as it was where there is nobody to carry over, or the deltas do not fit, which
        `not_carried` tells.
    """
    metrics = candidate.metrics
    if "tenants" not in metrics or task.tenants.column not in candidate.predictions.columns:
        return candidate
    metric = task.declared(task.decided_by(metrics), metrics["tuned"])
    beside = tenants_beside(task, metric, candidate, champion)
    worse = [name for name, verdict in beside.items() if verdict == "worse"]
    if not worse:
        return candidate
    files, *_ = package_files(version)
    if "tenants" not in files:
        return replace(candidate, not_carried="the champion is of no fleet")
    known = Deltas(files["tenants"])
    carried = sorted(name for name in worse if name in known)
    if not carried:
        return candidate
    try:
        where = rows_of(task, candidate.predictions, carried)
        predictions = with_answers(candidate.predictions, champion.predictions, where)
    except BiaslineError as error:
        return replace(candidate, not_carried=str(error))
    tuned = measured_anew(task, metrics, predictions).values
    return replace(candidate, predictions=predictions, metrics={**metrics, "tuned": tuned}, carried=carried)


def carry_over(
    client: "MlflowClient", task: str, candidate: str, champion: "ModelVersion", tenants: list[str]
) -> "ModelVersion":
    """The version of a candidate in which some tenants have the champion's deltas; made unless it is there.

    Args:
        client: client of the tracking store.
        task: name of the task.
        candidate: its fingerprint.
        champion: the version.
        tenants: those that keep its deltas.

    Raises:
        BiaslineError: where the candidate's record is on another machine, or the deltas do not fit the candidate.
    """
    place, record = TaskPlace(task), Record(task, candidate)
    files, *_ = package_files(champion)
    theirs, deltas = BiasDelta.load(files["delta"]), Deltas(files["tenants"])
    taken = {name: deltas.file(name) if name in deltas.own else files["delta"].read_bytes() for name in tenants}
    way_out = f"make the candidate anew here: `dvc repro --force register@{task}`; or set gates.carry_over: false"
    needed = (place.delta, place.train_report, place.own_report, place.predictions, place.tokens / SUMMARY)
    if lacking := [path for path in needed if not record.file(path).is_file()]:
        raise BiaslineError(
            f"{task}: {named(tenants)} keep the champion's deltas, and the candidate's record lacks {lacking[0].name}",
            way_out,
        )
    if unlike := _unlike(BiasDelta.load(record.file(place.delta)), theirs):
        raise BiaslineError(f"{task}: the champion's deltas are of other {unlike} than the candidate", way_out)
    made = Record(task, _fingerprint(candidate, taken))
    if not made.folder.is_dir():
        source = champion.tags["biasline.fingerprint"]
        with replacing(made.folder) as draft:
            shutil.copytree(record.folder, draft, ignore=shutil.ignore_patterns("proved.txt", "*.lock"))
            _replace_deltas(TaskPlace(task, draft / "files"), made.fingerprint, source, taken)
            _evaluate(TaskPlace(task, draft / "files"), draft / "pin.json", tenants)
            note_lineage(draft, {"carried.of": candidate, "carried.from": source, "carried.tenants": str(len(tenants))})
    return register_version(client, made, publish(client, made))


def _fingerprint(candidate: str, taken: Mapping[str, bytes]) -> str:
    """Of what such a version is made of: equal parts give the same version."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in taken.items()}
    return hashlib.sha256(json.dumps({"of": candidate, "carried": hashes}, sort_keys=True).encode()).hexdigest()[:16]


def _unlike(ours: BiasDelta, theirs: BiasDelta) -> str:
    """What two deltas do not agree in; empty where one answers in the other's place."""
    mine, other = ours.manifest, theirs.manifest
    parts: list[tuple[str, Any, Any]]
    parts = [("bases", mine.base.get("digest"), other.base.get("digest")), ("labels", mine.labels, other.labels)]
    parts += [("scales of scores", mine.score, other.score)]
    parts += [(name.removesuffix("_sha256"), mine.about.get(name), other.about.get(name)) for name in _ABOUT]
    return next((name for name, one, another in parts if one != another), "")


def _replace_deltas(place: TaskPlace, fingerprint: str, source: str, taken: Mapping[str, bytes]) -> None:
    """Put the deltas in, and say so in the reports."""
    before = Deltas(place.own)
    for name, content in taken.items():
        (place.own / file_of(name)).write_bytes(content)
    own, shared = {*before.own, *taken}, before.shared - taken.keys()
    write_index(place.own, own, shared)
    hashes = {name: file_sha256(place.own / file_of(name)) for name in taken}
    changed, why = pl.col("tenant").is_in(list(taken)), f"carried over from {source}: the candidate's was worse"
    report = pl.read_parquet(place.own_report).with_columns(
        pl.when(changed).then(pl.lit("own")).otherwise(pl.col("serves")).alias("serves"),
        pl.when(changed).then(pl.lit(why)).otherwise(pl.col("why")).alias("why"),
        pl.col("tenant").replace_strict(hashes, default=pl.col("sha256")).alias("sha256"),
    )
    write_parquet(report, place.own_report)
    told = load_json(place.train_report, "")
    counts = {**told["tenants"], "own": len(own), "shared": len(shared), "carried": len(taken)}
    size = sum(path.stat().st_size for path in (place.delta, *place.own.iterdir()))
    told = {**told, "fingerprint": fingerprint, "tenants": counts, "bytes": size}
    write_text(place.train_report, dump_json(told))


def _evaluate(place: TaskPlace, pin: Path, tenants: list[str]) -> None:
    """Have the tenants' test rows answered by the deltas that are there now, and write the evaluation anew."""
    task = read_task(place.resolved)
    package = Package(task, BiasDelta.load(place.delta), read_pin(pin), home() / task.base, Deltas(place.own))
    predictions = pl.read_parquet(place.predictions)
    where = rows_of(task, predictions, tenants)
    given = scored_on(package, predictions.filter(where), task.evaluate.metrics)
    # A row for each of all rows: those of the others are never looked at.
    in_place = given[np.maximum(where.cast(pl.Int64).cum_sum().to_numpy() - 1, 0)]
    write_carried(task, place, with_answers(predictions, in_place, where), tenants)
