"""Bases in llama.cpp's file format, GGUF: unpacked once into the files that Transformers reads from then on.

Quantized weights are unpacked to fp32, which holds them exactly. What a file says and Transformers' model of it lacks
is an error, be it a tensor, a number or how texts are split: Transformers itself passes over it without a word.
"""

import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from importlib.metadata import version
from pathlib import Path
from typing import Any

from biasline.bases.gguf_checks import check_numbers, check_places, check_tokens
from biasline.errors import BiaslineError, first_few, first_line, full_disk_is_told, shown

SUFFIX = ".gguf"
_CONFIG = "config.json"
# What these say depends on who writes them, and no model on them.
_UNSAID = ("transformers_version", "quantization_config")


def cache_folder() -> Path:
    """Where unpacked bases lie: `biasline/bases` in the user's cache (`XDG_CACHE_HOME`, else `~/.cache`)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "biasline" / "bases"


def unpacked_before(sha256: str) -> Path | None:
    """The folder of a base that was unpacked before from the file with this hash; None where there is none."""
    folder = _folder(sha256)
    return folder if (folder / _CONFIG).is_file() else None


def unpacked(file: Path, sha256: str, anew: bool = False) -> Path:
    """The folder of a file's unpacked base, made where it is not there yet.

    Args:
        file: the GGUF file.
        sha256: of the file.
        anew: whatever is there already.

    Raises:
        BiaslineError: for a file that is no whole GGUF, of an architecture that Transformers does not read, or that
            says something which Transformers' model of it does not have.
    """
    if not anew and (before := unpacked_before(sha256)) is not None:
        return before
    folder = _folder(sha256)
    from filelock import FileLock

    with full_disk_is_told(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f"{folder.name}.lock")):
            if anew or not (folder / _CONFIG).is_file():
                draft = folder.with_name(f"{folder.name}.draft")
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir()
                print(f"{shown(file)}: unpacked once, to {folder}", file=sys.stderr)
                unpack(file, draft)
                shutil.rmtree(folder, ignore_errors=True)
                draft.rename(folder)
    return folder


def _folder(sha256: str) -> Path:
    # Another Transformers may unpack otherwise: what is there is never taken for what it would give.
    return cache_folder() / f"{sha256[:32]}-{version('transformers')}"


def unpack(file: Path, folder: Path) -> None:
    """Write a GGUF file's config, weights (fp32), tokenizer and chat template as Transformers reads them.

    Args:
        file: the GGUF file.
        folder: an empty one.

    Raises:
        BiaslineError: as `unpacked`.
    """
    reader = _opened(file)
    said = {name: field.contents() for name, field in reader.fields.items()}
    if int(said.get("split.count") or 1) > 1:
        raise BiaslineError(
            f"{shown(file)}: one of {said['split.count']} parts of a split file",
            "put them together: `llama-gguf-split --merge FIRST WHOLE.gguf`",
        )
    with _quiet(), tempfile.TemporaryDirectory() as scratch:
        # By itself: Transformers looks for files of such names beside it, and in the current folder.
        alone = Path(scratch) / f"model{SUFFIX}"
        alone.symlink_to(file.resolve())
        model = _model(file, alone)
        check_places(file, said, [tensor.name for tensor in reader.tensors], model)
        check_numbers(file, said, model.config.get_text_config())
        model.save_pretrained(folder, max_shard_size="1000GB")
        tokenizer = _tokenizer(file, alone)
        check_tokens(file, said, tokenizer)
        tokenizer.save_pretrained(folder)
    for name in (_CONFIG, "generation_config.json"):
        path = folder / name
        if path.is_file():
            told = json.loads(path.read_text(encoding="utf-8"))
            kept = {key: value for key, value in told.items() if key not in _UNSAID and not key.startswith("_")}
            path.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _opened(file: Path) -> Any:
    from gguf import GGUFReader

    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise BiaslineError(f"{shown(file)}: no GGUF file: it does not begin so", "fetch it anew")
    try:
        return GGUFReader(file)
    except Exception as error:  # a broken file is told by whatever it breaks
        raise BiaslineError(
            f"{shown(file)}: damaged, or not whole: {first_line(error)}", "fetch it anew, or hold it against its sha256"
        ) from None


def _model(file: Path, alone: Path) -> Any:
    """The model of a file, in fp32; `alone` is the same file in a folder of its own."""
    import torch
    from transformers import AutoModelForCausalLM

    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            str(alone.parent),
            gguf_file=str(alone),
            dtype=torch.float32,
            output_loading_info=True,
            local_files_only=True,
        )
    except Exception as error:  # code of many hands, which fails in many ways
        raise BiaslineError(
            f"{shown(file)}: Transformers {version('transformers')} does not read it: {first_line(error)}",
            "take the model's own files (config.json and safetensors) instead",
        ) from None
    if packed := [name for name, part in model.named_parameters() if not part.is_floating_point()]:
        raise BiaslineError(
            f"{shown(file)}: {packed[0]} stays quantized, of a type that is not unpacked", "take the model's own files"
        )
    if missing := sorted(info["missing_keys"]):
        raise BiaslineError(f"{shown(file)}: no weights for {first_few(missing)}", "fetch the whole model")
    # It is a plain model from now on.
    model.config.__dict__.pop("quantization_config", None)
    model.hf_quantizer, model.is_quantized = None, False
    return model


def _tokenizer(file: Path, alone: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(alone.parent), gguf_file=str(alone), local_files_only=True)
    except Exception as error:
        raise BiaslineError(
            f"{shown(file)}: no tokenizer comes of it: {first_line(error)}",
            "take a file that has its tokenizer in it, or the model's own files",
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Transformers' warnings, of which what matters is an error here, and without its bars in a log."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with nullcontext() if sys.stderr.isatty() else redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(before)
