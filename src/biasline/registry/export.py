"""Export of a registered version: looked up, and written as other programs read it."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from biasline.errors import shown
from biasline.kinds.answering import find_answering
from biasline.layout import TaskPlace
from biasline.registry.versions import named_version
from biasline.serving.control_vector import export_control_vector
from biasline.serving.gguf_export import check_free_file, check_free_part, export_gguf, export_gguf_parts
from biasline.serving.lora_export import export_lora
from biasline.serving.package import Package
from biasline.serving.registered import aliased, model_name, read_package, run_file
from biasline.serving.transformers_export import check_free, export

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

_COMPARED = 32
# A LoRA of rank one is fitted on most of them.
_FITTED = 96

Export = Callable[["MlflowClient", "ModelVersion", Package, Path, str], list[str]]


def export_version(
    client: "MlflowClient", task: str, which: str, out: Path, *, to: str, target: str = "", split: bool = False
) -> list[str]:
    """Write a registered version as another program reads it.

    Args:
        client: client of the tracking store.
        task: name of the task.
        which: an alias, or a fingerprint or its beginning.
        out: a folder or file that is not there; of a split GGUF file a folder, which may have other tasks.
        to: a key of `FORMS`.
        target: the program that is to read it, by its name in `train.target`; empty: what that says.
        split: whether a GGUF file is split into the task's own part and the base's.

    Returns:
        what was written, in lines.

    Raises:
        BiaslineError: where there is no such version, where the form or the target cannot hold it, and where what was
            written does not answer as it should; nothing is left behind then.
    """
    version = aliased(client, task, which) or named_version(client, task, which)
    if split:
        check_free_part(out, task)
    elif to in ("gguf", "control-vector"):
        check_free_file(out)
    else:
        check_free(out)
    package = read_package(version)
    target = target or package.task.train.target
    write = _write_parts if split else FORMS[to]
    return write(client, version, package, out, target)


def _write_folder(
    client: "MlflowClient", version: "ModelVersion", package: Package, out: Path, target: str
) -> list[str]:
    rows, card = _test_rows(client, version, package.task.kind, _COMPARED), _card(client, version)
    about = {"name": version.name, "fingerprint": _fingerprint(version)}
    done = export(package, out, rows, card, **about, target=target)
    lines = [
        f"{_told(version, out, done.bytes)}; reloaded, it gives the same outputs on {done.compared} test rows; "
        "README.md there says how to ask it"
    ]
    if done.worded_otherwise:
        lines.append(
            f"note: {done.worded_otherwise} of these rows are worded otherwise by stock tokenization; see README.md"
        )
    if package.headed:
        lines.append("note: Transformers reads its head; whether vLLM, SGLang and llama.cpp do is not known here")
    return lines + [f"note: not for {told}" for told in done.left_out.values()]


def _write_file(client: "MlflowClient", version: "ModelVersion", package: Package, out: Path, target: str) -> list[str]:
    done = export_gguf(package, out, name=f"{version.name} {version.version}", fingerprint=_fingerprint(version))
    return [
        f"{_told(version, out, done.bytes)}: the base's own tensors byte for byte, and {done.biases} biases in fp32; "
        f"{_GREEDILY}"
    ]


def _write_parts(
    client: "MlflowClient", version: "ModelVersion", package: Package, out: Path, target: str
) -> list[str]:
    about = {"name": f"{version.name} {version.version}", "fingerprint": _fingerprint(version)}
    done = export_gguf_parts(package, out, task=_task(version), **about)
    file = out / f"{_task(version)}-00001-of-00003.gguf"
    return [
        f"{_told(version, file, done.bytes)}: {done.biases} biases in fp32 beside the base in {shown(out)}/shared; "
        f"{_GREEDILY}"
    ]


def _write_vector(
    client: "MlflowClient", version: "ModelVersion", package: Package, out: Path, target: str
) -> list[str]:
    rows = _test_rows(client, version, package.task.kind, _COMPARED)
    done = export_control_vector(package, out, rows, fingerprint=_fingerprint(version))
    return [
        f"{_told(version, out, done.bytes)}: vectors of {done.layers} layers, with which the base gives the same "
        f"outputs on {done.compared} test rows; `llama-cli -m BASE.gguf --control-vector {shown(out)}`, one at a time"
    ]


def _write_lora(client: "MlflowClient", version: "ModelVersion", package: Package, out: Path, target: str) -> list[str]:
    rows = _test_rows(client, version, package.task.kind, _FITTED)
    done = export_lora(package, out, rows, target=target, fingerprint=_fingerprint(version))
    told = _told(version, out, done.bytes)
    if done.nearest is None:
        return [
            f"{told}; PEFT loads the biases as they are (lora_bias), and gives the same outputs on {done.compared} "
            "test rows",
            "note: vLLM, SGLang and llama.cpp know no such adapter: name one as `--target` for the nearest LoRA",
        ]
    near = done.nearest
    far = ", ".join(f"{role} {error:.2%}" for role, error in near.error.items())
    return [
        f"{told}: the nearest LoRA of rank one, which is off by {far}; it gives the delta's answer to {near.same:.1%} "
        f"of {done.compared} test rows (the untuned base to {near.base:.1%})"
    ]


FORMS: dict[str, Export] = {
    "hf": _write_folder,
    "gguf": _write_file,
    "control-vector": _write_vector,
    "lora": _write_lora,
}
_GREEDILY = "ask it greedily (`--temp 0`), as it was evaluated"


def _task(version: "ModelVersion") -> str:
    return str(version.name.removeprefix(model_name("")))


def _fingerprint(version: "ModelVersion") -> str:
    return str(version.tags["biasline.fingerprint"])


def _told(version: "ModelVersion", out: Path, size: int) -> str:
    return f"{shown(out)}: {version.name} version {version.version}, {size / 1e6:.1f} MB"


def _test_rows(client: "MlflowClient", version: "ModelVersion", kind: str, most: int) -> list[dict[str, Any]]:
    """Some test rows of a version's run, as its model is asked them."""
    with tempfile.TemporaryDirectory() as scratch:
        path = run_file(client, version, TaskPlace(_task(version)).predictions, Path(scratch))
        return find_answering(kind).asked(pl.read_parquet(path).head(most))


def _card(client: "MlflowClient", version: "ModelVersion") -> str:
    with tempfile.TemporaryDirectory() as scratch:
        return run_file(client, version, TaskPlace(_task(version)).card, Path(scratch)).read_text(encoding="utf-8")
