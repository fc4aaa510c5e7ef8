"""Writing a pin: resolve a source to a folder, hash its files, count its biases."""

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biasline.bases.gguf import SUFFIX, unpacked
from biasline.bases.limits import limits_of, quantization_of
from biasline.bases.pin import (
    BIN_FILES,
    MODEL_FILES,
    TOKENIZER_FILES,
    WEIGHTS,
    WEIGHTS_INDEX,
    Pin,
    PinnedSource,
    chosen_files,
    file_sha256,
    locate,
    package_folder,
    read_pin,
    safetensors_of,
    tokenizer_sha256,
)
from biasline.bases.tokenizer import beyond, open_tokenizer, stock_class
from biasline.errors import BiaslineError, shown
from biasline.jsonfile import load_json

if TYPE_CHECKING:
    from biasline.bitfit import Inventory

_COMMIT = re.compile(r"[0-9a-f]{40}")


def create_pin(source: str, out: Path, revision: str = "", allow_bin: bool = False) -> Pin:
    """Pin a base; nothing is written.

    Args:
        source: a local folder, `package:NAME/INNER/FOLDER` of an installed Python package, or a hub id `OWNER/NAME`;
            each with `/FILE.gguf` behind it for a file of llama.cpp's.
        out: where the pin will lie; a folder is remembered relative to it.
        revision: branch, tag or commit of a hub id; what it resolves to, a commit, is pinned.
        allow_bin: accept a base whose weights are pickled.

    Raises:
        BiaslineError: where the source is not there, has no config or weights, or has pickled weights only.
    """
    folder, pinned = _resolve(source, out, revision)
    if pinned.gguf:
        # Anew, or what became of it in the cache would be taken for what it was.
        folder, pinned = _unpacked(folder, pinned, anew=True)
    if not (folder / "config.json").is_file():
        raise BiaslineError(f"{shown(folder)}: no config.json, so no Transformers model", "name the model's folder")
    names = chosen_files(folder)
    weights = [name for name in names if name.endswith((".safetensors", ".bin"))]
    if not weights:
        strays = sorted(path.name for path in folder.glob("*.safetensors"))
        beside = f"; Transformers does not read {strays[0]}" if strays else ""
        raise BiaslineError(
            f"{shown(folder)}: no weights ({WEIGHTS}, or the files that {WEIGHTS_INDEX} names){beside}",
            "name the folder that holds them",
        )
    if absent := [name for name in weights if not (folder / name).is_file()]:
        raise BiaslineError(
            f"{shown(folder / absent[0])} is missing, which {WEIGHTS_INDEX} names", "fetch the base's files anew"
        )
    if weights[0].endswith(".bin") and not allow_bin:
        raise BiaslineError(
            f"{shown(folder / weights[0])}: pickled weights, no safetensors beside them",
            "convert them with save_pretrained, or accept them with --allow-bin (and load.allow_bin in params)",
        )
    files = {name: file_sha256(folder / name) for name in names}
    inventory = inventory_of(folder / "config.json").summary()
    if method := quantization_of(folder):
        print(
            f"warning: {shown(folder)}: its weights are quantized ({method}): training needs the package that reads "
            "them, and a device that it runs on",
            file=sys.stderr,
        )
    class_name = _tokenizer_class(folder)
    return Pin(
        name=out.stem,
        source=pinned,
        files=files,
        tokenizer_sha256=tokenizer_sha256(files, class_name),
        inventory=inventory,
        tokenizer_class=class_name,
    )


def _tokenizer_class(folder: Path) -> str:
    """The class that reads the base's tokenizer; what a user should know of it goes to stderr."""
    if not (folder / "tokenizer.json").is_file():
        return ""
    limits = limits_of(folder)
    class_name, told = stock_class(folder, limits)
    try:
        odd = beyond(open_tokenizer(folder, class_name), limits)
    except Exception:  # a tokenizer that cannot be read is refused where it is needed
        odd = []
    if odd:
        named = ", ".join(map(repr, odd[:3])) + (", …" if len(odd) > 3 else "")
        told.append(
            f"warning: the tokenizer has {len(odd):,} tokens that the base's {limits.vocabulary:,} embeddings do not "
            f"reach ({named}): data and templates that need one are refused"
        )
    for line in told:
        print(line, file=sys.stderr)
    return class_name


def _resolve(source: str, out: Path, revision: str) -> tuple[Path, PinnedSource]:
    """The folder that a source means, and how a pin names it; of a GGUF file the folder that it is in."""
    if source.lower().endswith(SUFFIX):
        place, slash, name = source.rpartition("/")
        folder, pinned = _resolve_folder(place or slash or ".", out, revision, name)
        return folder, pinned.model_copy(update={"gguf": name})
    return _resolve_folder(source, out, revision)


def _unpacked(folder: Path, pinned: PinnedSource, anew: bool = False) -> tuple[Path, PinnedSource]:
    """The folder of what a GGUF file is unpacked to, and the source with the file's hash."""
    file = folder / pinned.gguf
    if not file.is_file():
        raise BiaslineError(f"{shown(file)}: no such file", "name a GGUF file that is there")
    pinned = pinned.model_copy(update={"gguf_sha256": file_sha256(file)})
    return unpacked(file, pinned.gguf_sha256, anew), pinned


def _resolve_folder(source: str, out: Path, revision: str, file: str = "") -> tuple[Path, PinnedSource]:
    if source.startswith("package:"):
        return _package(*source.removeprefix("package:").partition("/")[::2])
    folder = Path(source).expanduser()
    if folder.is_dir():
        # Relative, so that a pin beside its base is right in every clone.
        return folder, PinnedSource(
            kind="folder", path=Path(os.path.relpath(folder.resolve(), out.parent.resolve())).as_posix()
        )
    if _is_hub_id(source):
        return _hub(source, revision, file)
    raise BiaslineError(
        f"{source}: no folder, and no hub id (OWNER/NAME)",
        "name a folder, package:NAME/FOLDER, or a hub id, of a GGUF file with its name behind it",
    )


def _is_hub_id(source: str) -> bool:
    return re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source) is not None and not source.startswith(".")


def _package(package: str, inner: str) -> tuple[Path, PinnedSource]:
    from importlib.metadata import PackageNotFoundError, packages_distributions, version

    folder = package_folder(package, inner)
    if folder is None:
        raise BiaslineError(f"package {package!r} is not installed", "install it with pip, then pin again")
    distribution = packages_distributions().get(package, [package])[0]
    try:
        installed = version(distribution)
    except PackageNotFoundError:
        installed = ""
    return folder, PinnedSource(kind="package", package=package, path=inner, version=installed)


def _hub(repo: str, revision: str, file: str = "") -> tuple[Path, PinnedSource]:
    folder = _snapshot_of(repo, revision, [file] if file else [*TOKENIZER_FILES, *MODEL_FILES, WEIGHTS])
    commit = folder.name
    if not file and (weights := safetensors_of(folder)) != [WEIGHTS]:
        folder = _snapshot_of(repo, commit, weights or [*BIN_FILES, "pytorch_model-*.bin"])
    if not _COMMIT.fullmatch(commit):
        raise BiaslineError(
            f"{repo}: its cached snapshot {commit!r} is no commit", "delete it from the cache, try again"
        )
    return folder, PinnedSource(kind="hub", repo=repo, revision=commit)


def _snapshot_of(repo: str, revision: str, patterns: list[str]) -> Path:
    """The hub's snapshot, from the network if it answers, else from the cache."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=patterns))
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise BiaslineError(
            f"{repo} {revision}".strip() + f": neither in the hub cache nor to be had from the hub: {reason}",
            "check the id and revision, connect, or name a local folder",
        ) from None


def config_file(source: str, revision: str = "") -> Path:
    """The config.json that a pin, a model's folder, a config file, a GGUF file or a hub id leads to.

    No weights are fetched, but for a GGUF file's.

    Raises:
        BiaslineError: where it leads to none.
    """
    path = Path(source).expanduser()
    if source.lower().endswith(SUFFIX):
        folder, pinned = _resolve(source, Path(), revision)
        return _unpacked(folder, pinned)[0] / "config.json"
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise BiaslineError(f"{shown(path)}: no config.json, so no Transformers model", "name the model's folder")
        return path / "config.json"
    if path.is_file() and "pin_version" not in load_json(path, ""):
        return path
    if path.is_file():
        return locate(read_pin(path), path) / "config.json"
    if source.startswith("package:"):
        return _package(*source.removeprefix("package:").partition("/")[::2])[0] / "config.json"
    if path.suffix == ".json":
        raise BiaslineError(f"{shown(path)}: no such file", "name a pin, a config file or a model's folder")
    if _is_hub_id(source):
        return _snapshot_of(source, revision, ["config.json"]) / "config.json"
    raise BiaslineError(f"{source}: no pin, folder, config file or hub id (OWNER/NAME)", "name one of these")


def inventory_of(config_path: Path, labels: int = 0) -> "Inventory":
    """The biases of a model from its config alone: it is built on the meta device, without weights.

    Args:
        config_path: its config.json.
        labels: with a new classification head for so many labels; 0 for the model that the config names.

    Raises:
        BiaslineError: for a config that Transformers cannot read.
    """
    import torch
    from transformers import AutoConfig

    from biasline.bitfit import inspect_biases

    try:
        config = AutoConfig.from_pretrained(str(config_path))
        if labels:
            config.num_labels = labels
        with torch.device("meta"):
            model = _model_class(config, labels).from_config(config)
    except Exception as error:  # a config drives code of many hands, which fails in many ways
        told = " ".join(str(error).split()) or type(error).__name__
        raise BiaslineError(f"{shown(config_path)}: no model comes of it: {told[:300]}", "look at its values") from None
    return inspect_biases(model)


class _Named:
    """A model class of Transformers, built as the automatic ones are."""

    def __init__(self, model_class: Any) -> None:
        self._model_class = model_class

    def from_config(self, config: Any) -> Any:
        return self._model_class._from_config(config)


def _model_class(config: Any, labels: int) -> Any:
    """The class of the model that a config names; what builds it from a config is called `from_config`.

    Encoders count without the head of their pretraining, which no task uses.
    """
    import transformers

    if labels:
        return transformers.AutoModelForSequenceClassification
    causal, masked = (
        type(config) in mapping._model_mapping
        for mapping in (transformers.AutoModelForCausalLM, transformers.AutoModelForMaskedLM)
    )
    named = (config.architectures or [""])[0]
    if not named:
        return transformers.AutoModelForCausalLM if causal and not masked else transformers.AutoModel
    found = getattr(transformers, named, None)
    if found is None or "MaskedLM" in named or "PreTraining" in named:
        return transformers.AutoModel
    return _Named(found)
