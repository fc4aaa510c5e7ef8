"""Export for llama.cpp: the base's own GGUF file with a delta's biases in it, every other tensor byte for byte."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from biasline.bases.pin import gguf_file, load_tokenizer
from biasline.bitfit.engines import LLAMA_CPP, check_arrives
from biasline.bitfit.roles import is_scale
from biasline.errors import BiaslineError, shown
from biasline.layout import replacing
from biasline.serving.package import Package
from biasline.serving.stock_template import stock_template
from biasline.tokens.mask import Encoder

_MERGE = "`biasline export --to hf` writes a stock Transformers folder"
# Pairs of entries that a head turns lie beside each other in llama.cpp's `llama`, half a head apart in Transformers.
_TURNED = {"llama": {"query": "attention.head_count", "key": "attention.head_count_kv"}}


_F32 = "F32"
# Of a split file: the fields, a task's own biases, the base's tensors.
_PARTS, _OWN = 3, 2


@dataclass(frozen=True)
class ExportedGguf:
    """What was written.

    Attributes:
        bytes: of the file, or of the task's own part.
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
    check_free_file(out)
    _check(package)
    reader = _read(gguf_file(package.pin, package.pin_path))
    biases = _biases(package, reader)
    tensors = {one.name: one for one in _tensors(reader) if one.name not in biases} | {
        name: _Tensor(name, values, _F32) for name, values in biases.items()
    }
    said = {"general.name": name, "biasline.fingerprint": fingerprint, "biasline.base": package.pin.digest}
    _write(out, reader, list(tensors.values()), {**said, **_template(package)})
    return ExportedGguf(out.stat().st_size, len(biases))


def check_free_part(folder: Path, task: str) -> None:
    """Refuse a folder that has a task's part already.

    Raises:
        BiaslineError: naming it.
    """
    part = _part(folder, task, _OWN)
    if part.exists():
        raise BiaslineError(f"{shown(part)}: there already", "name another folder, or delete the task's three parts")


def export_gguf_parts(package: Package, folder: Path, *, task: str, name: str, fingerprint: str) -> ExportedGguf:
    """Write a delta as one part of a split GGUF file whose other parts all tasks on the base share.

    `TASK-00001-of-00003.gguf` is what llama.cpp opens: a link to the fields (vocabulary, template), as the third is one
    to the base's tensors. Both lie in `shared/`, named by what is in them. The second has the biases, and is the task's
    own.

    Args:
        package: as `export_gguf`.
        folder: which may hold other tasks.
        task: how the parts are called.
        name: what the task's part calls the model.
        fingerprint: of its training.

    Raises:
        BiaslineError: as `export_gguf`, and where the folder has the task already.
    """
    check_free_part(folder, task)
    _check(package)
    reader = _read(gguf_file(package.pin, package.pin_path))
    biases = _biases(package, reader)
    kept = [one for one in _tensors(reader) if one.name not in biases]
    count = len(kept) + len(biases)
    fields = {"biasline.base": package.pin.digest, **_template(package)}
    sha256 = package.pin.source.gguf_sha256
    shared = {
        1: _shared(
            folder, "fields", [sha256, fields, count], lambda path: _write(path, reader, [], fields, (0, count))
        ),
        _PARTS: _shared(
            folder, "base", [sha256, sorted(biases)], lambda path: _write(path, reader, kept, None, (_PARTS - 1, count))
        ),
    }
    own = [_Tensor(name, values, _F32) for name, values in biases.items()]
    said = {"general.name": name, "biasline.fingerprint": fingerprint}
    for number, target in shared.items():
        link = _part(folder, task, number)
        link.unlink(missing_ok=True)
        link.symlink_to(target.relative_to(folder))
    out = _part(folder, task, _OWN)
    _write(out, reader, own, said, (_OWN - 1, count), whole=False)
    return ExportedGguf(out.stat().st_size, len(biases))


def _part(folder: Path, task: str, number: int) -> Path:
    return folder / f"{task}-{number:05}-of-{_PARTS:05}.gguf"


def _shared(folder: Path, what: str, named_by: Any, write: Callable[[Path], None]) -> Path:
    """A part that tasks share, written where it is not there yet."""
    key = hashlib.sha256(json.dumps(named_by, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / "shared" / f"{what}-{key}.gguf"
    if not path.is_file():
        write(path)
    return path


def _template(package: Package) -> dict[str, str]:
    """The task's chat template, where it is not the base's own."""
    tokenizer = load_tokenizer(package.pin, package.base())
    template = stock_template(Encoder.from_params(tokenizer, package.task.tokens).template)
    return {} if template is None else {"tokenizer.chat_template": template}


def _check(package: Package) -> None:
    """Refuse what no GGUF file of this base could be."""
    package.refuse_fleet("`biasline extract` gives one tenant's delta")
    if package.headed:
        raise BiaslineError(f"a {package.task.kind}: its head has no place in llama.cpp", _MERGE)
    if not package.pin.source.gguf:
        raise BiaslineError(
            f"base {package.pin.name}: pinned as a Transformers model, not as a GGUF file",
            "pin the base's GGUF file and train on it",
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


class _Tensor(NamedTuple):
    """A tensor as a file has it."""

    name: str
    data: np.ndarray
    kind: Any


def _read(path: Path) -> Any:
    from gguf import GGUFReader

    return GGUFReader(path)


def _tensors(reader: Any) -> list[_Tensor]:
    return [_Tensor(one.name, one.data, one.tensor_type) for one in reader.tensors]


def _write(
    path: Path,
    reader: Any,
    tensors: Sequence[_Tensor],
    said: Mapping[str, str] | None,
    part: tuple[int, int] | None = None,
    whole: bool = True,
) -> None:
    """Write a file, read it again and hold it against what it should be.

    Args:
        path: of the file.
        reader: of the base's file.
        tensors: in their order.
        said: fields that take the place of the base's, or stand beside them; None for no fields at all.
        part: of a split file: which, from 0, and how many tensors all parts have.
        whole: whether the base's fields go along.
    """
    from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter

    with replacing(path) as draft:
        writer = GGUFWriter(draft, str(reader.fields["general.architecture"].contents()), endianess=reader.endianess)
        for field in reader.fields.values() if whole and said is not None else ():
            if field.name in (said or ()) or field.name == "general.architecture" or field.name.startswith("GGUF."):
                continue
            kind = field.types[0]
            inner = field.types[-1] if kind == GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, sub_type=inner)
        for key, value in (said or {}).items():
            writer.add_key_value(key, value, GGUFValueType.STRING)
        if part is not None:
            writer.add_key_value("split.no", part[0], GGUFValueType.UINT16)
            writer.add_key_value("split.count", _PARTS, GGUFValueType.UINT16)
            writer.add_key_value("split.tensors.count", part[1], GGUFValueType.INT32)
        for name, data, kind in tensors:
            kind = GGMLQuantizationType.F32 if kind is _F32 else kind
            writer.add_tensor_info(name, data.shape, data.dtype, data.nbytes, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for one in tensors:
            writer.write_tensor_data(one.data, tensor_endianess=reader.endianess)
        writer.close()
        found = {one.name: one.data.tobytes() for one in _read(draft).tensors} if tensors else {}
        wanted = {one.name: np.ascontiguousarray(one.data).tobytes() for one in tensors}
        if odd := sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name)):
            raise BiaslineError(f"tensor {odd[0]}: written and read again, it is another", "try once more")
