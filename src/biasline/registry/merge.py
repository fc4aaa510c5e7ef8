"""Export of a registered version: looked up, and written as stock Transformers or llama.cpp read it."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from biasline.kinds.answering import find_answering
from biasline.layout import TaskPlace
from biasline.registry.versions import named_version
from biasline.serving.gguf_export import (
    ExportedGguf,
    check_free_file,
    check_free_part,
    export_gguf,
    export_gguf_parts,
)
from biasline.serving.registered import aliased, model_name, read_package, run_file
from biasline.serving.transformers_export import Exported, check_free, export

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_COMPARED = 32


@dataclass(frozen=True)
class Merged(Exported):
    """What was written, and of which version of the registered model."""

    version: str


def merge(client: "MlflowClient", task: str, which: str, out: Path) -> Merged:
    """Write a registered version as a stock Transformers folder: weights, tokenizer, generation config, card.

    Args:
        client: client of the tracking store.
        task: name of the task.
        which: an alias, or a fingerprint or its beginning.
        out: a folder that is not there, or empty.

    Raises:
        BiaslineError: where there is no such version, and as `export` does; nothing is left behind then.
    """
    version = aliased(client, task, which) or named_version(client, task, which)
    check_free(out)
    package = read_package(version)
    rows, card = _test_rows_and_card(client, version, package.task.kind)
    done = export(package, out, rows, card, name=version.name, fingerprint=version.tags["biasline.fingerprint"])
    return Merged(done.bytes, done.compared, done.worded_otherwise, version.version)


def write_gguf(client: "MlflowClient", task: str, which: str, out: Path, split: bool) -> tuple[str, ExportedGguf]:
    """Write a registered version as one GGUF file, or as a part of a split one.

    Args:
        client: client of the tracking store.
        task: name of the task.
        which: an alias, or a fingerprint or its beginning.
        out: a file that is not there; of a split one a folder, which may have other tasks.
        split: whether it is split.

    Returns:
        the version's number, and what was written.

    Raises:
        BiaslineError: where there is no such version, and as `export_gguf` does; nothing is left behind then.
    """
    version = aliased(client, task, which) or named_version(client, task, which)
    if split:
        check_free_part(out, task)
    else:
        check_free_file(out)
    name, fingerprint = f"{version.name} {version.version}", version.tags["biasline.fingerprint"]
    package = read_package(version)
    if split:
        return version.version, export_gguf_parts(package, out, task=task, name=name, fingerprint=fingerprint)
    return version.version, export_gguf(package, out, name=name, fingerprint=fingerprint)


def _test_rows_and_card(client: "MlflowClient", version: "ModelVersion", kind: str) -> tuple[list[dict[str, Any]], str]:
    """Some test rows of a version's run, and its card."""
    place = TaskPlace(version.name.removeprefix(model_name("")))
    with tempfile.TemporaryDirectory() as scratch:
        predictions = pl.read_parquet(run_file(client, version, place.predictions, Path(scratch)))
        card = run_file(client, version, place.card, Path(scratch)).read_text(encoding="utf-8")
    return find_answering(kind).asked(predictions.head(_COMPARED)), card
