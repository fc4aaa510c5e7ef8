"""Carry over: tenants of a fleet's candidate that are shown to be worse off keep the champion's deltas.

The version that comes of it is one like any other, with a run, a record and an evaluation of its own.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from biasline.bases.pin import file_sha256, load_tokenizer, read_pin
from biasline.bitfit import BiasDelta, Deltas
from biasline.bitfit.deltas import file_of, write_index
from biasline.errors import BiaslineError
from biasline.evaluation.carried import measured_anew, rows_of, with_answers, write_carried
from biasline.evaluation.references import own_spelling
from biasline.jsonfile import dump_json, load_json
from biasline.kinds.answering import find_answering
from biasline.layout import TaskPlace, home, replacing, write_parquet, write_text
from biasline.params import Task, read_task
from biasline.registry.gates import Shown, named, tenants_beside
from biasline.registry.versions import register_version
from biasline.serving.package import Package
from biasline.serving.registered import model_name, package_files, read_package
from biasline.serving.rescore import scored_on
from biasline.tokens.saved import SUMMARY
from biasline.tracking.publish import publish
from biasline.tracking.record import Record, note_lineage

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

# What two deltas must agree in for one to answer in the other's package, beside base, labels and scale.
_ABOUT = ("tokenizer_sha256", "pooling", "template", "thresholds")
# What the candidate's lineage says of it alone.
_OF_THE_CANDIDATE = ("made.by", "dvc.experiment")


def with_carried(task: Task, candidate: Shown, champion: Shown, versions: "tuple[ModelVersion, ModelVersion]") -> Shown:
    """What a candidate would show if tenants that are shown to be worse off had the champion's delta.

    Args:
        task: the parameters as they are now.
        candidate: what it shows.
        champion: the same of the champion, on the candidate's rows.
        versions: the candidate's and the champion's.

    Returns:
        the same, with `carried`; as it was where there is nobody to carry over, or the deltas do not fit, which
        `not_carried` tells. Tenants that the champion does not know have nothing to keep.

    Raises:
        BiaslineError: where the champion's files are not those that were packaged.
    """
    metrics = candidate.metrics
    if "tenants" not in metrics or task.tenants.column not in candidate.predictions.columns:
        return candidate
    metric = task.declared(task.decided_by(metrics), metrics["tuned"])
    beside = tenants_beside(task, metric, candidate, champion)
    worse = [name for name, one in beside.items() if one.verdict == "worse"]
    if not worse:
        return candidate
    theirs = read_package(versions[1])
    if theirs.tenants is None:
        return replace(candidate, not_carried="the champion is of no fleet")
    carried = sorted(name for name in worse if name in theirs.tenants)
    if not carried:
        return candidate
    if obstacle := _obstacle(_record_of(versions[0]), theirs):
        return replace(candidate, not_carried=obstacle)
    try:
        where = rows_of(task, candidate.predictions, carried)
        predictions = with_answers(candidate.predictions, champion.predictions, where)
    except BiaslineError as error:
        return replace(candidate, not_carried=str(error))
    tuned = measured_anew(task, metrics, predictions).values
    metrics = {**metrics, "tuned": {**metrics["tuned"], **tuned}}
    return replace(candidate, predictions=predictions, metrics=metrics, carried=carried, foretold=True)


def carry_over(
    client: "MlflowClient", candidate: "ModelVersion", champion: "ModelVersion", tenants: Sequence[str]
) -> "ModelVersion":
    """The version of a candidate in which some tenants have the champion's deltas; made unless it is there.

    Args:
        client: client of the tracking store.
        candidate: the version.
        champion: that of the deltas.
        tenants: those that keep them.

    Raises:
        BiaslineError: where the candidate's record is on another machine, or the deltas do not fit the candidate.
    """
    record, theirs = _record_of(candidate), read_package(champion)
    if obstacle := _obstacle(record, theirs):
        raise BiaslineError(
            f"{record.task}: {named(tenants)} cannot keep the champion's deltas: {obstacle}",
            "set gates.carry_over: false",
        )
    deltas = theirs.tenants
    assert deltas is not None
    shared = package_files(champion)[0]["delta"].read_bytes()
    taken = {name: deltas.file(name) if name in deltas.own else shared for name in tenants}
    made = Record(record.task, _fingerprint(candidate, taken))
    if not made.folder.is_dir():
        source = champion.tags["biasline.fingerprint"]
        with replacing(made.folder) as draft:
            shutil.copytree(record.folder, draft, ignore=shutil.ignore_patterns("proved.txt", "*.lock"))
            place = TaskPlace(record.task, draft / "files")
            _replace_deltas(place, made.fingerprint, source, taken)
            _evaluate(place, draft / "pin.json", tenants)
            told = {"of": record.fingerprint, "from": source, "tenants": str(len(tenants))}
            note_lineage(draft, {f"carried.{name}": value for name, value in told.items()}, _OF_THE_CANDIDATE)
    return register_version(client, made, publish(client, made))


def _record_of(version: "ModelVersion") -> Record:
    return Record(version.name.removeprefix(model_name("")), version.tags["biasline.fingerprint"])


def _fingerprint(candidate: "ModelVersion", taken: Mapping[str, bytes]) -> str:
    """Of what such a version is made of: equal parts, the candidate's evaluation among them, give the same version."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in taken.items()}
    parts = {"of": [candidate.tags[f"biasline.{name}"] for name in ("fingerprint", "package")], "carried": hashes}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _obstacle(record: Record, theirs: Package) -> str:
    """Why a champion's deltas cannot be carried into a candidate; empty where they can."""
    place = TaskPlace(record.task)
    needed = (place.delta, place.train_report, place.own_report, place.predictions, place.tokens / SUMMARY)
    if lacking := [path.name for path in needed if not record.file(path).is_file()]:
        way = f"`biasline sync {record.task}` where it was made"
        return f"the candidate's record on this machine lacks {lacking[0]} ({way})"
    mine, other = BiasDelta.load(record.file(place.delta)).manifest, theirs.delta.manifest
    parts: list[tuple[str, Any, Any]]
    parts = [("base", mine.base.get("digest"), other.base.get("digest")), ("dtype", mine.dtype, other.dtype)]
    parts += [("list of labels", mine.labels, other.labels), ("scale of scores", mine.score, other.score)]
    parts += [(name.removesuffix("_sha256"), mine.about.get(name), other.about.get(name)) for name in _ABOUT]
    unlike = [name for name, one, another in parts if one != another]
    return f"they are for another {unlike[0]}" if unlike else ""


def _replace_deltas(place: TaskPlace, fingerprint: str, source: str, taken: Mapping[str, bytes]) -> None:
    """Put the deltas in, and say so in the reports."""
    before = Deltas(place.own)
    for name, content in taken.items():
        (place.own / file_of(name)).write_bytes(content)
    own, shared = {*before.own, *taken}, before.shared - taken.keys()
    write_index(place.own, own, shared)
    hashes = {name: file_sha256(place.own / file_of(name)) for name in taken}
    changed, why = (
        pl.col("tenant").is_in(list(taken)),
        f"carried over from {source}: it was worse off with the candidate",
    )
    report = pl.read_parquet(place.own_report).with_columns(
        pl.when(changed).then(pl.lit("own")).otherwise(pl.col("serves")).alias("serves"),
        pl.when(changed).then(pl.lit(why)).otherwise(pl.col("why")).alias("why"),
        pl.col("tenant").replace_strict(hashes, default=pl.col("sha256")).alias("sha256"),
    )
    write_parquet(report, place.own_report)
    told = load_json(place.train_report, "")
    counts = {**told["tenants"], "own": len(own), "shared": len(shared), "carried": len(taken)}
    size = sum(path.stat().st_size for path in (place.delta, *place.own.iterdir()))
    shared = told.get("shared", told["fingerprint"])
    told = {**told, "fingerprint": fingerprint, "shared": shared, "tenants": counts, "bytes": size}
    write_text(place.train_report, dump_json(told))


def _evaluate(place: TaskPlace, pin_path: Path, tenants: Sequence[str]) -> None:
    """Have the tenants' test rows answered by the deltas that are there now, and write the evaluation anew."""
    task, pin = read_task(place.resolved), read_pin(pin_path)
    package = Package(task, BiasDelta.load(place.delta), pin, home() / task.base, Deltas(place.own))
    predictions = pl.read_parquet(place.predictions)
    where = rows_of(task, predictions, tenants)
    given = scored_on(package, predictions.filter(where), task.evaluate.metrics)
    # A row for each of all rows: those of the others are never looked at.
    in_place = given[np.maximum(where.cast(pl.Int64).cum_sum().to_numpy() - 1, 0)]
    references = find_answering(task.kind).references(predictions)
    spelled = own_spelling(load_tokenizer(pin, package.base()), references) if references else []
    write_carried(task, place, with_answers(predictions, in_place, where), tenants, spelled)
