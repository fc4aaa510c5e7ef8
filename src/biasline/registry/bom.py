"""Bill of materials: a version, its base, its data and its libraries, as CycloneDX (ML-BOM)."""

import json
import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from importlib.metadata import version as version_of
from typing import Any

from biasline.errors import BiaslineError, first_line
from biasline.jsonfile import dump_json
from biasline.registry.provenance import Material
from biasline.registry.signing import AUDIT

_MODEL, _TRAINING, _TEST = "model", "data:training", "data:test"
# Files of a package that a reader looks for; provenance names all of them, code included.
_FILES = "artifacts/"


def bill_of_materials(material: Material) -> str:
    """The bill as JSON of CycloneDX 1.6.

    Raises:
        BiaslineError: where the library is not installed.
    """
    try:
        from cyclonedx.model.bom import Bom
        from cyclonedx.model.component import Component, ComponentType
        from cyclonedx.output import make_outputter
        from cyclonedx.schema import OutputFormat, SchemaVersion
    except ImportError as error:
        raise BiaslineError(f"a bill of materials wants a library: {first_line(error)}", AUDIT) from None
    model, run = material.told["model"], material.told["run"]
    bom = Bom(serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"urn:biasline:{model['name']}:{_sha256_of(material)}"))
    if run["ended"]:
        bom.metadata.timestamp = datetime.fromisoformat(run["ended"])
    bom.metadata.tools.components.add(
        Component(name="biasline", version=version_of("biasline"), type=ComponentType.APPLICATION)
    )
    bom.metadata.component = _model(material)
    parts = [_base(material), *_data(material), *_libraries(material)]
    bom.components = parts
    bom.register_dependency(bom.metadata.component, parts)
    made = json.loads(make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string())
    if not run["ended"]:
        del made["metadata"]["timestamp"]  # the library's is the present moment
    # Neither a model's card nor what kind of data a component holds is in the library yet; both are in the schema.
    made["metadata"]["component"]["modelCard"] = _card(material)
    for component in made["components"]:
        if component["type"] == "data":
            component["data"] = [{"type": "dataset", "name": component["name"]}]
    return dump_json(made)


def _sha256_of(material: Material) -> str:
    return f"{material.told['model']['fingerprint']}:{','.join(sorted(material.package.values()))}"


def _model(material: Material) -> Any:
    from cyclonedx.model.component import Component, ComponentType

    model, training = material.told["model"], material.told["training"]
    trainable = training["trainable"] or {}
    properties = {
        "fingerprint": model["fingerprint"],
        "aliases": ", ".join(model["aliases"]),
        "method": training["method"] or "",
        "trained": str(trainable.get("total", "")),
        "commit": material.told["code"]["commit"],
    }
    files = [
        Component(name=name, type=ComponentType.FILE, bom_ref=f"file:{name}", hashes=_hashes(sha256))
        for name, sha256 in material.package.items()
        if name.startswith(_FILES)
    ]
    return Component(
        name=model["name"],
        version=str(model["version"]),
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=_MODEL,
        description=f"A delta of biases on {material.pin.name} (`biasline`)",
        hashes=_hashes(model["delta_sha256"]),
        properties=_properties(properties),
        components=files,
    )


def _base(material: Material) -> Any:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    pin = material.pin
    source = {name: value for name, value in pin.source.model_dump().items() if value}
    files = [
        Component(name=name, type=ComponentType.FILE, bom_ref=f"base/{name}", hashes=_hashes(sha256))
        for name, sha256 in pin.files.items()
    ]
    return Component(
        name=pin.name,
        version=pin.source.revision or pin.source.version or pin.digest[:16],
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="base",
        description="The frozen base model",
        purl=PackageURL.from_string(material.base_uri) if material.base_uri else None,
        properties=_properties({"digest": pin.digest, **{f"source.{name}": value for name, value in source.items()}}),
        components=files,
    )


def _data(material: Material) -> Iterator[Any]:
    """The raw file, and the test rows that were drawn from it."""
    from cyclonedx.model.component import Component, ComponentType

    data, evaluation = material.told["data"], material.told["evaluation"]
    splits = data["splits"] or {}
    counts = {"rows": data["rows"], "quarantined": data["quarantined"], **{f"rows.{k}": v for k, v in splits.items()}}
    yield Component(
        name=data["file"],
        type=ComponentType.DATA,
        bom_ref=_TRAINING,
        description="The raw data, of which training, validation and test rows were drawn",
        hashes=_hashes(data["sha256"]),
        properties=_properties(counts),
    )
    if "rows" in evaluation:
        yield Component(
            name=f"test rows of {data['file']}",
            type=ComponentType.DATA,
            bom_ref=_TEST,
            description="The held-out rows that it was evaluated on; the hash is over these rows",
            hashes=_hashes(evaluation["test_sha256"]),
            properties=_properties({"rows": evaluation["rows"]}),
        )


def _libraries(material: Material) -> Iterator[Any]:
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    for name, version in material.libraries:
        purl = PackageURL("pypi", None, name.lower().replace("_", "-"), version)
        yield Component(
            name=name, version=version, type=ComponentType.LIBRARY, purl=purl, bom_ref=f"library:{name}=={version}"
        )


def _hashes(sha256: str | None) -> list[Any]:
    from cyclonedx.model import HashAlgorithm, HashType

    return [HashType(alg=HashAlgorithm.SHA_256, content=sha256)] if sha256 else []


def _properties(values: Mapping[str, Any]) -> list[Any]:
    """Those that say something, under a name of ours."""
    from cyclonedx.model import Property

    return [
        Property(name=f"biasline:{name}", value=str(value)) for name, value in values.items() if value not in (None, "")
    ]


def _card(material: Material) -> dict[str, Any]:
    """The model's card, as the schema has it."""
    metrics = material.metrics
    datasets = [{"ref": _TRAINING}, *([{"ref": _TEST}] if "rows" in material.told["evaluation"] else [])]
    measured = list(_measured(metrics)) if metrics else []
    measured += [
        _metric(metrics["sliced_by"], row["tuned"], row.get("tuned_low"), row.get("tuned_high"))
        | {"slice": f"{row['slice']} = {row['value']}"}
        for row in material.slices
    ]
    return {
        "modelParameters": {
            "approach": {"type": "supervised"},
            "task": material.task["kind"],
            "architectureFamily": "transformer",
            "modelArchitecture": str(material.pin.inventory.get("model_type", material.pin.name)),
            "datasets": datasets,
        },
        **({"quantitativeAnalysis": {"performanceMetrics": measured}} if measured else {}),
        **({"considerations": {"technicalLimitations": list(material.limits)}} if material.limits else {}),
    }


def _measured(metrics: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for who, told in {"base": "untuned base", "probe": "beside it", "tuned": "tuned"}.items():
        values = metrics.get(who, {})
        for name, value in values.items():
            if not name.endswith(("_low", "_high")):
                found = _metric(name, value, values.get(f"{name}_low"), values.get(f"{name}_high"))
                yield found | {"slice": f"test rows, {told}"}


def _metric(name: str, value: float, low: float | None, high: float | None) -> dict[str, Any]:
    ends = {"lowerBound": str(low), "upperBound": str(high)}
    return {"type": name, "value": str(value), **({"confidenceInterval": ends} if None not in (low, high) else {})}
