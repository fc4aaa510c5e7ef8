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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stderr
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from biasline.errors import BiaslineError, first_line, full_disk_is_told, shown

SUFFIX = ".gguf"
_CONFIG = "config.json"
# What these say depends on who writes them, and no model on them.
_UNSAID = ("transformers_version", "quantization_config")
_NAMED = 3
_SPACE = "▁"
# Ways to split texts that give what GPT-2's gives: SmolLM's digits stand alone in its vocabulary anyway.
_AS_GPT2 = ("gpt-2", "smollm")
# GGUF's name of a special token's id → the tokenizer's.
_SPECIAL = {"bos": "bos_token_id", "eos": "eos_token_id", "padding": "pad_token_id"}


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
        _check_places(file, said, [tensor.name for tensor in reader.tensors], model)
        _check_numbers(file, said, model.config.get_text_config())
        model.save_pretrained(folder, max_shard_size="1000GB")
        tokenizer = _tokenizer(file, alone)
        _check_tokens(file, said, tokenizer)
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
        raise BiaslineError(f"{shown(file)}: no weights for {_listed(missing)}", "fetch the whole model")
    # It is a plain model from now on.
    model.config.__dict__.pop("quantization_config", None)
    model.hf_quantizer, model.is_quantized = None, False
    return model


def _check_places(file: Path, said: Mapping[str, Any], names: Sequence[str], model: Any) -> None:
    """Refuse a file with tensors that the model has no place for."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    architecture = next(key for key, name in MODEL_ARCH_NAMES.items() if name == said["general.architecture"])
    known = get_tensor_name_map(architecture, model.config.get_text_config().num_hidden_layers)
    placed = set(_transformers_names(said["general.architecture"], model))
    for name in model.state_dict():
        path, dot, suffix = name.rpartition(".")
        placed.add(f"{known.get_name(path)}{dot}{suffix}")
    if lost := [name for name in names if name not in placed]:
        biases = " (Transformers builds this architecture without them)" * any(one.endswith(".bias") for one in lost)
        raise BiaslineError(
            f"{shown(file)}: {type(model).__name__} has no place for {_listed(lost)}{biases}, so it would not be the "
            "model that the file is",
            "take the model's own files, or a file of the model as it was published",
        )


def _transformers_names(architecture: str, model: Any) -> Iterable[str]:
    """GGUF's names of a model's tensors as Transformers finds them, which knows more of them than gguf does."""
    from transformers import modeling_gguf_pytorch_utils as reading

    processor = reading.TENSOR_PROCESSORS.get(architecture, reading.TensorProcessor)
    try:
        found: Mapping[str, str] = reading.get_gguf_hf_weights_map(model, processor(config=model.config.to_dict()))
    except NotImplementedError:  # an architecture that another part of Transformers reads
        return ()
    return found


def _check_numbers(file: Path, said: Mapping[str, Any], config: Any) -> None:
    """Refuse a file of which a number that decides what the model computes is another in Transformers, or not there."""
    begin = f"{said['general.architecture']}."
    for key, value in said.items():
        name = key.removeprefix(begin)
        if not key.startswith(begin) or name in _IN_SHAPES or value in _NEUTRAL.get(name, ()):
            continue
        if name not in _NUMBERS:
            raise BiaslineError(
                f"{shown(file)}: {key} is {value!r} in it, which Transformers does not read",
                "take the model's own files",
            )
        given = [found for found in (read(config) for read in _NUMBERS[name]) if found is not None]
        if not any(one == value or abs(one - value) <= 1e-6 * abs(value) for one in given):
            built = f"{given[0]!r}" if given else "nothing"
            raise BiaslineError(
                f"{shown(file)}: {key} is {value!r} in it, and {built} as Transformers builds the model",
                "take the model's own files",
            )


def _rope(config: Any) -> Mapping[str, Any]:
    """The numbers of a model's rotary positions; where layers differ, those of full attention."""
    found: Mapping[str, Any] = getattr(config, "rope_parameters", None) or {}
    return found.get("full_attention", found)


def _head_dim(config: Any) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def _turned(config: Any) -> float:
    """Entries of a head that positions turn."""
    share = getattr(config, "partial_rotary_factor", None) or _rope(config).get("partial_rotary_factor") or 1.0
    return _head_dim(config) * float(share)


def _named(*names: str) -> "tuple[Callable[[Any], Any], ...]":
    return tuple(partial(lambda config, name: getattr(config, name, None), name=name) for name in names)


# Numbers that a tensor of another shape would tell.
_IN_SHAPES = {"block_count", "embedding_length", "feed_forward_length", "vocab_size", "attention.head_count_kv"}
# Values that change nothing.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "rope.scaling.type": ("none",),
    "rope.scaling.factor": (1.0,),
    "attention.causal": (True,),
    "tensor_data_layout": ("Meta AI original pth", ""),
    "use_parallel_residual": (True, False),
}
# Name in a file, without the architecture → where Transformers' config may have it.
_NUMBERS: "Mapping[str, tuple[Callable[[Any], Any], ...]]" = {
    "context_length": _named("max_position_embeddings", "n_positions", "seq_length"),
    "attention.head_count": _named("num_attention_heads"),
    "attention.layer_norm_rms_epsilon": _named("rms_norm_eps", "norm_eps"),
    "attention.layer_norm_epsilon": _named("layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps"),
    "attention.key_length": (_head_dim,),
    "attention.value_length": (_head_dim,),
    "attention.sliding_window": _named("sliding_window"),
    "attn_logit_softcapping": _named("attn_logit_softcapping"),
    "final_logit_softcapping": _named("final_logit_softcapping"),
    "rope.freq_base": (lambda config: _rope(config).get("rope_theta"), *_named("rope_theta")),
    "rope.dimension_count": (_turned,),
}


def _tokenizer(file: Path, alone: Path) -> Any:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(str(alone.parent), gguf_file=str(alone), local_files_only=True)
    except Exception as error:
        raise BiaslineError(
            f"{shown(file)}: no tokenizer comes of it: {first_line(error)}",
            "take a file that has its tokenizer in it, or the model's own files",
        ) from None


def _check_tokens(file: Path, said: Mapping[str, Any], tokenizer: Any) -> None:
    """Refuse a tokenizer that is not the file's: another token by some id, other special tokens, another template."""
    tokens = said.get("tokenizer.ggml.tokens") or []
    given = tokenizer.convert_ids_to_tokens(range(len(tokens)))
    for number, (own, read) in enumerate(zip(tokens, given, strict=True)):
        if own != read and own.replace(" ", _SPACE) != read:  # spaces that users defined are respelled
            raise BiaslineError(
                f"{shown(file)}: token {number} is {own!r} in it, and {read!r} as Transformers reads it",
                "take the model's own files",
            )
    for own, name in _SPECIAL.items():
        asked = said.get(f"tokenizer.ggml.{own}_token_id")
        if asked is not None and getattr(tokenizer, name) != asked:
            raise BiaslineError(
                f"{shown(file)}: its {own} token is {asked}, and {getattr(tokenizer, name)} as Transformers reads it",
                "take the model's own files",
            )
    _check_splits(file, said, tokenizer)
    template = said.get("tokenizer.chat_template")
    if template is not None and tokenizer.chat_template != template:
        raise BiaslineError(f"{shown(file)}: its chat template is lost as Transformers reads it", "take its own files")


def _check_splits(file: Path, said: Mapping[str, Any], tokenizer: Any) -> None:
    """Refuse a file whose texts Transformers would split otherwise than the file says."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    kind, way = said.get("tokenizer.ggml.model"), said.get("tokenizer.ggml.pre")
    if kind == "gpt2" and way is not None and way not in _AS_GPT2 and way not in GGUF_PRE_TOKENIZER_SPLITS:
        raise BiaslineError(
            f"{shown(file)}: its texts are split as {way!r} (tokenizer.ggml.pre), which Transformers does not know",
            "take the model's own files",
        )
    if kind == "llama":
        begins = tokenizer.convert_ids_to_tokens(tokenizer("x", add_special_tokens=False)["input_ids"])[0]
        if begins.startswith(_SPACE) is not bool(said.get("tokenizer.ggml.add_space_prefix", True)):
            raise BiaslineError(
                f"{shown(file)}: Transformers reads {'x'!r} as {begins!r}, against tokenizer.ggml.add_space_prefix",
                "take the model's own files",
            )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


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
