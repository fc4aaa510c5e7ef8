"""Export as a control vector: what llama.cpp adds to the stream behind each layer, beside any file of the base.

Exact where the delta is nothing but biases of the MLP's output from the second layer on: a layer of LLaMA's kind ends
by adding what its MLP gives to the stream, and llama.cpp adds the vector right behind that. It has none for the first
layer.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from biasline.bitfit.pretrained import PretrainedModel
from biasline.errors import BiaslineError, first_few
from biasline.layout import replacing
from biasline.serving.gguf_export import check_free_file
from biasline.serving.package import Package
from biasline.serving.proof import check_same, outputs

# Types whose layers end by adding the MLP's output to the stream, → architecture in GGUF.
_TYPES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
_OTHERWISE = "`biasline export --to gguf`, or train.biases: mlp_out with train.layers: 1-"


@dataclass(frozen=True)
class ExportedVector:
    """What was written.

    Attributes:
        bytes: of the file.
        layers: that have a vector.
        compared: rows on which base and file give the packaged model's outputs.
    """

    bytes: int
    layers: int
    compared: int


def export_control_vector(
    package: Package, out: Path, rows: Sequence[dict[str, Any]], *, fingerprint: str
) -> ExportedVector:
    """Write a delta as a GGUF file that llama.cpp takes as `--control-vector`.

    Args:
        package: base, delta and task.
        out: a file that is not there.
        rows: of the task's kind, one at least: on them the base with the file's vectors must have the packaged model's
            outputs.
        fingerprint: of the training.

    Raises:
        BiaslineError: where a control vector cannot be the delta, or is not; nothing is left behind then.
    """
    check_free_file(out)
    vectors = _vectors(package)
    predictor = package.predictor()
    inputs = predictor.inputs(rows)
    wanted = outputs(predictor.model, inputs, package.headed)
    package.delta.revert(predictor.model)
    architecture = _TYPES[package.delta.manifest.model_type]
    with replacing(out) as draft:
        _write(draft, vectors, architecture, fingerprint, package.pin.digest)
        with _added(predictor.model, read_vectors(draft)):
            found = outputs(predictor.model, inputs, package.headed)
        check_same("the base with the vectors", wanted, found, rows, _OTHERWISE)
    return ExportedVector(out.stat().st_size, len(vectors), len(rows))


def read_vectors(path: Path) -> dict[int, np.ndarray]:
    """Number of a layer → what is added behind it, fp32, of a file as llama.cpp reads it."""
    from gguf import GGUFReader

    return {int(one.name.removeprefix("direction.")): np.array(one.data) for one in GGUFReader(path).tensors}


def _vectors(package: Package) -> dict[int, np.ndarray]:
    package.refuse_fleet("`biasline extract` gives one tenant's delta")
    if package.headed:
        raise BiaslineError(f"a {package.task.kind}: its head has no place in llama.cpp", "`biasline export --to hf`")
    manifest = package.delta.manifest
    if manifest.model_type not in _TYPES:
        raise BiaslineError(
            f"a control vector is exact on {', '.join(sorted(_TYPES))}; this base is a {manifest.model_type}, whose "
            "layers end otherwise",
            "`biasline export --to hf`",
        )
    other = [key for key, entry in manifest.tensors.items() if entry.role != "mlp_out" or not entry.layer]
    if other:
        raise BiaslineError(
            f"a control vector has no place for {first_few(other)}: it holds what is added behind a layer, from the "
            "second on",
            _OTHERWISE,
        )
    found = {}
    for place, change in package.delta.change(package.load(package.base())):
        assert place.layer is not None
        found[place.layer] = change.numpy().astype(np.float32)
    return found


def _write(path: Path, vectors: Mapping[int, np.ndarray], architecture: str, fingerprint: str, base: str) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, "controlvector")
    writer.add_string("controlvector.model_hint", architecture)
    writer.add_uint32("controlvector.layer_count", len(vectors))
    writer.add_string("biasline.fingerprint", fingerprint)
    writer.add_string("biasline.base", base)
    for layer, vector in sorted(vectors.items()):
        writer.add_tensor(f"direction.{layer}", vector)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@contextmanager
def _added(model: PretrainedModel, vectors: Mapping[int, np.ndarray]) -> Iterator[None]:
    """The model with vectors added behind layers, as llama.cpp does it."""
    layers: Any = model.get_submodule("model.layers")

    def adding(vector: torch.Tensor) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return output[0] + vector.to(output[0]), *output[1:]
            return output + vector.to(output)

        return hook

    hooks = [layers[number].register_forward_hook(adding(torch.from_numpy(one))) for number, one in vectors.items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
