"""Provenance: what a version was made of, as an in-toto Statement with the predicate of SLSA."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version as version_of
from typing import Any

from biasline.bases.pin import Pin
from biasline.errors import BiaslineError, first_line
from biasline.jsonfile import dump_json
from biasline.registry.signing import AUDIT

PREDICATE = "https://slsa.dev/provenance/v1"
_BUILD_TYPE, _BUILDER = "urn:biasline:build:dvc-repro:v1", "urn:biasline:builder:dvc"


@dataclass(frozen=True)
class Material:
    """What is known of a version, for its provenance and its bill of materials.

    Attributes:
        told: what `why` tells of it.
        task: the task as it was then, with every default.
        pin: its base.
        package: its files → sha256.
        evidence: files of its run (card, numbers) → sha256, those that could be had.
        metrics: metrics.json; empty where it could not be had.
        slices: the metric that decides, and its values slice by slice; empty likewise.
        libraries: names and versions; those of requirements.lock where that is the one that it was made with.
        is_locked: whether they are of that file.
        limits: what is known of where it fails, in sentences.
    """

    told: Mapping[str, Any]
    task: Mapping[str, Any]
    pin: Pin
    package: Mapping[str, str]
    evidence: Mapping[str, str]
    metrics: Mapping[str, Any]
    slices: Sequence[Mapping[str, Any]]
    libraries: Sequence[tuple[str, str]]
    is_locked: bool
    limits: Sequence[str]

    @property
    def base_uri(self) -> str:
        """Where the base comes from, as a package URL; empty where it lies in a folder."""
        source = self.pin.source
        if source.kind == "hub":
            return f"pkg:huggingface/{source.repo}@{source.revision}"
        return f"pkg:pypi/{source.package}@{source.version}" if source.kind == "package" else ""


def statement(material: Material) -> str:
    """The statement as JSON: which files, made how, of what.

    Raises:
        BiaslineError: where the library is not installed.
    """
    try:
        from google.protobuf import json_format
        from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
        from in_toto_attestation.v1.resource_descriptor import ResourceDescriptor
        from in_toto_attestation.v1.statement import Statement
    except ImportError as error:
        raise BiaslineError(f"provenance wants a library: {first_line(error)}", AUDIT) from None
    subjects = [{"name": name, "digest": {"sha256": sha256}} for name, sha256 in sorted(material.package.items())]
    predicate = _predicate(material)
    # By the library's own messages: a field that the predicate does not have, or a subject without a hash, is an error.
    # They hold each number as a float, so that what is written is what was given.
    json_format.ParseDict(predicate, provenance_pb2.Provenance())
    made = Statement([ResourceDescriptor(**subject).pb for subject in subjects], PREDICATE, predicate)
    made.validate()
    return dump_json({"_type": made.pb.type, "subject": subjects, "predicateType": PREDICATE, "predicate": predicate})


def _predicate(material: Material) -> dict[str, Any]:
    model, code, run = (material.told[name] for name in ("model", "code", "run"))
    internal = {
        "made_by": code["made_by"],
        "not_committed": code["not_committed"],
        "dvc_experiment": code["experiment"],
        "versions": code["versions"],
        "machine": run["machine"],
        "carried_over": material.told.get("carried", {}),
    }
    times = {"startedOn": run["started"], "finishedOn": run["ended"]}
    return {
        "buildDefinition": {
            "buildType": _BUILD_TYPE,
            "externalParameters": {"task": model["name"].removeprefix("biasline-"), "parameters": dict(material.task)},
            "internalParameters": {name: value for name, value in internal.items() if value},
            "resolvedDependencies": list(_dependencies(material)),
        },
        "runDetails": {
            "builder": {"id": _BUILDER, "version": {"biasline": version_of("biasline")}},
            "metadata": {
                "invocationId": run["id"],
                **{name: at.replace("+00:00", "Z") for name, at in times.items() if at},
            },
            "byproducts": [
                {"name": name, "digest": {"sha256": sha256}} for name, sha256 in sorted(material.evidence.items())
            ],
        },
    }


def _dependencies(material: Material) -> "list[dict[str, Any]]":
    """Raw data, base, code and libraries; of what is not known only a name."""
    data, code, digest = material.told["data"], material.told["code"], material.pin.digest
    found: list[dict[str, Any]] = [
        {"name": "data", "uri": data["file"], **({"digest": {"sha256": data["sha256"]}} if data["sha256"] else {})}
    ]
    where = {"uri": material.base_uri} if material.base_uri else {}
    note = {"annotations": {"base": material.pin.name, "digest": digest}}
    found += [
        {"name": f"base/{name}", **where, "digest": {"sha256": sha256}, **note}
        for name, sha256 in sorted(material.pin.files.items())
    ]
    if code["commit"]:
        found.append({"name": "code", "digest": {"gitCommit": code["commit"]}})
    if code["requirements_lock_sha256"]:
        found.append({"name": "requirements.lock", "digest": {"sha256": code["requirements_lock_sha256"]}})
    return found
