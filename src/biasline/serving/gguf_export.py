"""Export for llama.cpp: the base's own GGUF file with a delta's biases in it, every other tensor byte for byte."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from biasline.bases.pin import gguf_file, load_tokenizer
from biasline.bitfit.roles import is_scale
from biasline.errors import BiaslineError, shown
from biasline.layout import replacing
from biasline.serving.engines import LLAMA_CPP, check_arrives
from biasline.serving.package import Package
from biasline.serving.stock_template import stock_template
from biasline.tokens.mask import Encoder

_MERGE = "`biasline export --to hf` writes a stock Transformers folder"
# Pairs of entries that a head turns lie beside each other in llama.cpp's `llama`, half a head apart in Transformers.
_TURNED = {"llama": {"query": "attention.head_count", "key": "attention.head_count_kv"}}


@dataclass(frozen=True)
class ExportedGguf:
    """What was written.

    Attributes:
        bytes: of the file.
        biases: tensors that were added to the base's, or put in the place of its own.
    """

    bytes: int
    biases: int


def check_free_file(out: Path) -> None:
    """Refuse a target that is there.

    Raises:
        BiaslineError: where something has its name, or it is not called as GGUF files are.
    """
    if out.suffix != ".gguf":
        raise BiaslineError(f"{shown(out)}: not called as a GGUF file is", "name a file that ends in .gguf")
    if out.exists():
        raise BiaslineError(f"{shown(out)}: there already", "name a file that is not there yet")


def export_gguf(package: Package, out: Path, *, name: str, fingerprint: str) -> ExportedGguf:
    """Write base and delta as one GGUF file: quantized weights as the base has them, biases in fp32.

    Args:
        package: base, delta and task, of a base that is pinned as a GGUF file.
        out: a file that is not there.
        name: what the file calls the model.
        fingerprint: of its training.

    Raises:
        BiaslineError: where the base is no GGUF file or has changed, where llama.cpp would leave out what was trained,
            or where the file, read again, is not what it should be; nothing is left behind then.
    """
    from gguf import GGUFReader

    check_free_file(out)
    _check(package)
    reader = GGUFReader(gguf_file(package.pin, package.pin_path))
    biases = _biases(package, reader)
    said = {"general.name": name, "biasline.fingerprint": fingerprint, "biasline.base": package.pin.digest}
    tokenizer = load_tokenizer(package.pin, package.base())
    template = stock_template(Encoder.from_params(tokenizer, package.task.tokens).template)
    if template is not None:
        said["tokenizer.chat_template"] = template
    with replacing(out) as draft:
        _write(reader, draft, biases, said)
        _check_written(reader, GGUFReader(draft), biases)
    return ExportedGguf(out.stat().st_size, len(biases))


def _check(package: Package) -> None:
    """Refuse what no GGUF file of this base could be."""
    package.refuse_fleet("`biasline extract` gives one tenant's delta")
    if package.headed:
        raise BiaslineError(f"a {package.task.kind}: its head has no place in llama.cpp", _MERGE)
    if not package.pin.source.gguf:
        raise BiaslineError(
            f"base {package.pin.name}: pinned as a Transformers model, not as a GGUF file",
            f"{_MERGE}, which llama.cpp's convert_hf_to_gguf.py reads; or pin the base's GGUF file and train on it",
        )
    tensors = package.delta.manifest.tensors
    if scales := [key for key, entry in tensors.items() if is_scale(entry.role)]:
        raise BiaslineError(f"{scales[0]}: scales would change quantized weights, which stay as they are", _MERGE)
    if cut := [key for key, entry in tensors.items() if entry.cut]:
        raise BiaslineError(f"{cut[0]}: a part of a fused bias, which is laid out otherwise in a GGUF file", _MERGE)
    roles = {key: entry.role for key, entry in tensors.items()}
    check_arrives(LLAMA_CPP, package.delta.manifest.model_type, roles, _MERGE)


def _biases(package: Package, reader: Any) -> dict[str, np.ndarray]:
    """GGUF's name of each trained bias → its values, in fp32 and in GGUF's order."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    said = str(reader.fields["general.architecture"].contents())
    architecture = next(key for key, name in MODEL_ARCH_NAMES.items() if name == said)
    names = get_tensor_name_map(architecture, int(reader.fields[f"{said}.block_count"].contents()))
    found = {}
    for key, entry in package.delta.manifest.tensors.items():
        own = names.get_name(key.removesuffix(".bias"))
        if own is None:
            raise BiaslineError(f"{key}: GGUF has no name for it in {said}", _MERGE)
        values = package.delta.tensors[key].float().numpy().reshape(entry.shape)
        if (heads := _TURNED.get(said, {}).get(entry.role)) is not None:
            count = int(reader.fields[f"{said}.{heads}"].contents())
            values = values.reshape(count, 2, -1).swapaxes(1, 2).reshape(entry.shape)
        found[f"{own}.bias"] = np.ascontiguousarray(values, dtype=np.float32)
    return found


def _write(reader: Any, path: Path, biases: Mapping[str, np.ndarray], said: Mapping[str, str]) -> None:
    from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter

    writer = GGUFWriter(path, str(reader.fields["general.architecture"].contents()), endianess=reader.endianess)
    for field in reader.fields.values():
        if field.name in said or field.name == "general.architecture" or field.name.startswith("GGUF."):
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind == GGUFValueType.ARRAY else None
        writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
    for key, value in said.items():
        writer.add_key_value(key, value, GGUFValueType.STRING)
    kept = [tensor for tensor in reader.tensors if tensor.name not in biases]
    for tensor in kept:
        about = (tensor.name, tensor.data.shape, tensor.data.dtype, tensor.data.nbytes, tensor.tensor_type)
        writer.add_tensor_info(*about)
    for name, values in biases.items():
        writer.add_tensor_info(name, values.shape, values.dtype, values.nbytes, GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for data in (*(tensor.data for tensor in kept), *biases.values()):
        writer.write_tensor_data(data, tensor_endianess=reader.endianess)
    writer.close()


def _check_written(base: Any, written: Any, biases: Mapping[str, np.ndarray]) -> None:
    """Hold the file, read again, against the base and the biases."""
    found = {tensor.name: tensor for tensor in written.tensors}
    wanted = {tensor.name: tensor.data for tensor in base.tensors} | dict(biases)
    for name, data in _different(found, wanted):
        raise BiaslineError(f"tensor {name}: written and read again, it is another ({data})", "try once more")


def _different(found: Mapping[str, Any], wanted: Mapping[str, np.ndarray]) -> Iterator[tuple[str, str]]:
    for name in found.keys() ^ wanted.keys():
        yield name, "not in both"
    for name, data in wanted.items():
        if found[name].data.tobytes() != np.ascontiguousarray(data).tobytes():
            yield name, "other bytes"
