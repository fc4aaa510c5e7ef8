"""The pin: a lock file for a model. Says where the base comes from and the sha256 of each of its files."""

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from biasline.bases.gguf import unpacked, unpacked_before
from biasline.bases.tokenizer import Tokenizer, open_tokenizer, overrides
from biasline.errors import BiaslineError, shown
from biasline.jsonfile import load_json

PIN_VERSION = 1

# What a tokenizer reads; a change in any of these changes the tokens.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "source.spm",
    "target.spm",
    "target_vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "chat_template.jinja",
)
# How a sentence encoder was trained to be read.
POOLING_FILE = "1_Pooling/config.json"
# Transformers reads the first of these that is there, the second with the files that it names, and no others beside.
WEIGHTS, WEIGHTS_INDEX = "model.safetensors", "model.safetensors.index.json"
MODEL_FILES = ("config.json", "generation_config.json", WEIGHTS_INDEX, POOLING_FILE)
# With PEFT installed, Transformers goes on from this file to whatever base it names.
_ADAPTER = "adapter_config.json"
_CHANGED = "restore the file, or accept the new base with `biasline pin`; models of the old one do not fit it"
BIN_FILES = ("pytorch_model.bin", "pytorch_model.bin.index.json")


class PinnedSource(BaseModel):
    """Where a base comes from.

    `folder`: `path`, relative to the pin's own folder. `hub`: `repo` at the commit `revision`. `package`: `path` inside
    the installed Python distribution `package` of `version`. Of a GGUF file, `gguf` is its name there: it is unpacked
    once, and the pinned files are those that come of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["folder", "hub", "package"]
    path: str = ""
    repo: str = ""
    revision: str = ""
    package: str = ""
    version: str = ""
    gguf: str = ""
    gguf_sha256: str = ""


class Pin(BaseModel):
    """A base, named by content."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pin_version: int = PIN_VERSION
    name: str
    source: PinnedSource
    files: dict[str, str]  # file → sha256
    tokenizer_sha256: str
    inventory: dict[str, Any]  # bias counts per role, see Inventory.summary
    tokenizer_class: str = ""  # of Transformers; empty where tokenizer.json alone says it all

    @property
    def digest(self) -> str:
        """sha256 over the names and hashes of the files: equal for equal bases, wherever they come from."""
        return hashlib.sha256(json.dumps(sorted(self.files.items())).encode()).hexdigest()

    @property
    def has_bin(self) -> bool:
        """Whether the weights are pickled."""
        return not any(name.endswith(".safetensors") for name in self.files)

    def dumps(self) -> str:
        """The text of the pin's file; what only newer pins say is left out where it says nothing."""
        unsaid: dict[str, Any] = {} if self.tokenizer_class else {"tokenizer_class": True}
        unsaid |= {} if self.source.gguf else {"source": {"gguf", "gguf_sha256"}}
        return json.dumps(self.model_dump(exclude=unsaid), indent=2, ensure_ascii=False) + "\n"


def read_pin(path: Path) -> Pin:
    """Read a pin; `BiaslineError` where it is missing or not one."""
    if not path.is_file():
        raise BiaslineError(f"{shown(path)}: no such pin", f"write it: `biasline pin SOURCE --out {shown(path)}`")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BiaslineError(
            f"{shown(path)}: no pin: {error}", "`base` names a pin (JSON), written by `biasline pin`"
        ) from None
    try:
        pin = Pin.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise BiaslineError(
            f"{shown(path)}: no pin: {where}: {first['msg']}", "write it anew: `biasline pin`"
        ) from None
    if pin.pin_version != PIN_VERSION:
        raise BiaslineError(f"{shown(path)}: pin version {pin.pin_version}; this Biasline reads {PIN_VERSION}")
    return pin


def file_sha256(path: Path) -> str:
    """sha256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tokenizer_sha256(files: dict[str, str], class_name: str = "") -> str:
    """Hash over the hashes of the files that a tokenizer reads, and over its class where a pin names one."""
    relevant = sorted((name, digest) for name, digest in files.items() if name in TOKENIZER_FILES)
    named = [("tokenizer_class", class_name)] if class_name else []
    return hashlib.sha256(json.dumps([*relevant, *named]).encode()).hexdigest()


def chosen_files(folder: Path) -> list[str]:
    """The files of a model folder that make the base: config, tokenizer and weights, safetensors before pickles.

    Of several sets of weights, as in repositories that hold another program's too, the one that Transformers reads.
    """
    weights = safetensors_of(folder)
    if not weights:
        names = {path.name for path in folder.iterdir() if path.is_file()}
        weights = sorted(name for name in names if name in BIN_FILES or name.startswith("pytorch_model-"))
    return sorted(name for name in {*TOKENIZER_FILES, *MODEL_FILES} if (folder / name).is_file()) + weights


def safetensors_of(folder: Path) -> list[str]:
    """The safetensors that Transformers reads in a model's folder, whether they are all there or not."""
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    if not (folder / WEIGHTS_INDEX).is_file():
        return []
    shards = load_json(folder / WEIGHTS_INDEX, "fetch it anew").get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise BiaslineError(f"{shown(folder / WEIGHTS_INDEX)}: no weight_map in it", "fetch it anew")
    return sorted(set(shards.values()))


def locate(pin: Pin, pin_path: Path | None) -> Path:
    """The folder that holds the base's files.

    Looked for in a folder called as the pin below `BIASLINE_BASES`, then at the pin's own place, then in the hub cache
    (and on the hub, unless offline).

    Args:
        pin: the base's pin.
        pin_path: where the pin was read; None for a pin that travelled with a packaged model.

    Raises:
        BiaslineError: naming every place that was tried.
    """
    tried: list[str] = []
    if bases := os.environ.get("BIASLINE_BASES"):
        folder = Path(bases) / pin.name
        if all((folder / name).is_file() for name in (pin.files if pin.source.gguf else ("config.json",))):
            return folder
        tried.append(str(folder))
    if pin.source.gguf:
        sha256 = pin.source.gguf_sha256
        return unpacked_before(sha256) or unpacked(gguf_file(pin, pin_path), sha256)
    own = _own_place(pin, pin_path)
    if own is not None:
        if (own / "config.json").is_file():
            return own
        tried.append(shown(own))
    if pin.source.kind == "hub":
        return _from_hub(pin, tried)
    raise BiaslineError(
        f"base {pin.name}: not found; looked in {', '.join(tried) or 'no place: the pin is away from its folder'}",
        "set BIASLINE_BASES to the folder that holds it, or pin it anew with `biasline pin`",
    )


def verify(pin: Pin, folder: Path) -> None:
    """Hold every pinned file in `folder` against its hash; `BiaslineError` names the first that differs.

    A file that Transformers would read and that was not there when the base was pinned is refused too.
    """
    weights = () if pin.has_bin else (WEIGHTS,)
    for name in (*TOKENIZER_FILES, *MODEL_FILES, *weights, _ADAPTER):
        if name not in pin.files and (folder / name).is_file():
            raise BiaslineError(
                f"base {pin.name}: {shown(folder / name)} was not there when the base was pinned",
                "take it away, or pin the base anew with `biasline pin`",
            )
    for name, expected in pin.files.items():
        path = folder / name
        if not path.is_file():
            raise BiaslineError(f"base {pin.name}: {shown(path)} is missing", "restore the base's files")
        if file_sha256(path) != expected:
            raise BiaslineError(
                f"base {pin.name}: {shown(path)} has changed since it was pinned",
                f"delete {folder}: it is unpacked again from {pin.source.gguf}" if pin.source.gguf else _CHANGED,
            )


def verified_folder(pin_path: Path) -> tuple[Pin, Path]:
    """Read a pin, find its base and check it."""
    pin = read_pin(pin_path)
    folder = locate(pin, pin_path)
    verify(pin, folder)
    return pin, folder


def load_tokenizer(pin: Pin, folder: Path) -> Tokenizer:
    """The base's fast tokenizer; imports no torch. Its end of sequence may be missing.

    A base that was pinned before pins named a tokenizer's class goes on to be read by its tokenizer.json; a warning
    says where its other files ask for something else.

    Raises:
        BiaslineError: where there is none, or Transformers cannot read it.
    """
    if not (folder / "tokenizer.json").is_file():
        raise BiaslineError(
            f"base {pin.name}: {shown(folder / 'tokenizer.json')} is missing: only fast tokenizers are supported",
            "save the base's tokenizer with AutoTokenizer.from_pretrained(…).save_pretrained(…), then pin it",
        )
    if not pin.tokenizer_class and (odd := overrides(folder)):
        print(
            f"warning: base {pin.name}: tokenizer_config.json's {', '.join(odd)} is not heeded: its pin is of before "
            "→ pin the base anew with `biasline pin`",
            file=sys.stderr,
        )
    return open_tokenizer(folder, pin.tokenizer_class)


def wants_token_types(folder: Path) -> bool:
    """Whether the base tells the two texts of a pair apart by token types (BERT does, RoBERTa does not)."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return int(config.get("type_vocab_size") or 0) > 1


def _own_place(pin: Pin, pin_path: Path | None) -> Path | None:
    source = pin.source
    if source.kind == "folder" and pin_path is not None:
        return (pin_path.parent / source.path).resolve()
    if source.kind == "folder" and Path(source.path).is_absolute():
        return Path(source.path)
    if source.kind == "package":
        return package_folder(source.package, source.path)
    return None


def package_folder(package: str, inner: str) -> Path | None:
    """A folder inside an installed package, found without importing it; None where the package is absent."""
    from importlib.util import find_spec

    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / inner


def gguf_file(pin: Pin, pin_path: Path | None) -> Path:
    """The GGUF file that a base is unpacked from, held against its hash; arguments as `locate`.

    Raises:
        BiaslineError: naming every place that was tried, or the file that has changed.
    """
    source, own = pin.source, _own_place(pin, pin_path)
    bases = os.environ.get("BIASLINE_BASES")
    places = [*([Path(bases) / pin.name] if bases else []), *([own] if own is not None else [])]
    if source.kind == "hub" and not any((place / source.gguf).is_file() for place in places):
        places.append(_from_hub(pin, [shown(place) for place in places], [source.gguf]))
    for place in places:
        file = place / source.gguf
        if file.is_file():
            if file_sha256(file) != source.gguf_sha256:
                raise BiaslineError(
                    f"base {pin.name}: {shown(file)} has changed since it was pinned",
                    _CHANGED,
                )
            return file
    raise BiaslineError(
        f"base {pin.name}: {source.gguf} not found; looked in "
        f"{', '.join(map(shown, places)) or 'no place: the pin is away from its folder'}",
        "set BIASLINE_BASES to a folder with a folder of the pin's name that holds it",
    )


def _from_hub(pin: Pin, tried: list[str], files: Sequence[str] = ()) -> Path:
    from huggingface_hub import snapshot_download

    source = pin.source
    wanted: dict[str, Any] = {
        "repo_id": source.repo,
        "revision": source.revision,
        "allow_patterns": list(files or pin.files),
    }
    try:
        found = Path(snapshot_download(**wanted, local_files_only=True))
        if all((found / name).is_file() for name in files):  # of a commit some files may be there, and these not
            return found
    except Exception:
        pass  # not in the cache, for whichever reason: the hub itself is next
    try:
        return Path(snapshot_download(**wanted))
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise BiaslineError(
            f"base {pin.name}: {source.repo} at {source.revision[:12]} is neither in "
            f"{', '.join([*tried, 'the hub cache'])} nor to be had from the hub: {reason}",
            "connect once, or set BIASLINE_BASES to a folder that holds it",
        ) from None
