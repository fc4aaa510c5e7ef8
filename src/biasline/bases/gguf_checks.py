"""What a GGUF file says, held against what Transformers made of it: model, numbers, tokens."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from biasline.errors import BiaslineError, first_few, shown

_OTHER_FILES = "take the model's own files"
_SPACE = "▁"
# Ways to split texts that give what GPT-2's gives: SmolLM's digits stand alone in its vocabulary anyway.
_AS_GPT2 = ("gpt-2", "smollm")
# GGUF's name of a special token's id → the tokenizer's.
_SPECIAL = {"bos": "bos_token_id", "eos": "eos_token_id", "padding": "pad_token_id"}


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
    "use_parallel_residual": _named("use_parallel_residual"),
}


def check_places(file: Path, said: Mapping[str, Any], names: Sequence[str], model: Any) -> None:
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
            f"{shown(file)}: {type(model).__name__} has no place for {first_few(lost)}{biases}, so it would not be the "
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


def check_numbers(file: Path, said: Mapping[str, Any], config: Any) -> None:
    """Refuse a file of which a number that decides what the model computes is another in Transformers, or not there."""
    begin = f"{said['general.architecture']}."
    for key, value in said.items():
        name = key.removeprefix(begin)
        if not key.startswith(begin) or name in _IN_SHAPES or value in _NEUTRAL.get(name, ()):
            continue
        if name not in _NUMBERS:
            raise BiaslineError(
                f"{shown(file)}: {key} is {value!r} in it, which Transformers does not read",
                _OTHER_FILES,
            )
        given = [found for found in (read(config) for read in _NUMBERS[name]) if found is not None]
        if not any(_alike(one, value) for one in given):
            built = f"{given[0]!r}" if given else "nothing"
            raise BiaslineError(
                f"{shown(file)}: {key} is {value!r} in it, and {built} as Transformers builds the model",
                _OTHER_FILES,
            )


def _alike(one: Any, other: Any) -> bool:
    """Whether two values are the same, numbers but for how a file rounds them."""
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other) <= 1e-6 * abs(other)
    return bool(one == other)


def check_tokens(file: Path, said: Mapping[str, Any], tokenizer: Any) -> None:
    """Refuse a tokenizer that is not the file's: another token by some id, other special tokens, another template."""
    tokens = said.get("tokenizer.ggml.tokens") or []
    given = tokenizer.convert_ids_to_tokens(range(len(tokens)))
    for number, (own, read) in enumerate(zip(tokens, given, strict=True)):
        if own != read and own.replace(" ", _SPACE) != read:  # spaces that users defined are respelled
            raise BiaslineError(
                f"{shown(file)}: token {number} is {own!r} in it, and {read!r} as Transformers reads it",
                _OTHER_FILES,
            )
    for own, name in _SPECIAL.items():
        asked = said.get(f"tokenizer.ggml.{own}_token_id")
        if asked is not None and getattr(tokenizer, name) != asked:
            raise BiaslineError(
                f"{shown(file)}: its {own} token is {asked}, and {getattr(tokenizer, name)} as Transformers reads it",
                _OTHER_FILES,
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
            _OTHER_FILES,
        )
    if kind == "llama":
        begins = tokenizer.convert_ids_to_tokens(tokenizer("x", add_special_tokens=False)["input_ids"])[0]
        if begins.startswith(_SPACE) is not bool(said.get("tokenizer.ggml.add_space_prefix", True)):
            raise BiaslineError(
                f"{shown(file)}: Transformers reads {'x'!r} as {begins!r}, against tokenizer.ggml.add_space_prefix",
                _OTHER_FILES,
            )
