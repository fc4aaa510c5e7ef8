"""What a base can do at all, from its config alone: ids and positions that it has embeddings for; no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biasline.jsonfile import load_json

_VOCABULARY = ("vocab_size", "n_words", "n_token")
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx", "model_max_length")
# Positions are relative to one another here, whatever number a config holds.
_RELATIVE = {"bloom", "t5", "mt5", "umt5", "longt5", "switch_transformers", "xlnet", "transfo-xl"}
# Positions are counted from behind the padding's id, so that a table of 514 has 512 for tokens.
_BEHIND_PADDING = {
    "camembert",
    "data2vec-text",
    "esm",
    "ibert",
    "layoutlmv3",
    "lilt",
    "longformer",
    "luke",
    "markuplm",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
}
_THEIR_PADDING = 1  # where their config names none


@dataclass(frozen=True)
class Limits:
    """What lies inside a base's embeddings.

    Attributes:
        vocabulary: ids that it has embeddings for, from 0; None where the config does not say.
        positions: the most tokens of one sequence; None where it has no limit (ALiBi, relative positions).
        pad: the config's padding id; None where it has none inside the vocabulary.
    """

    vocabulary: int | None
    positions: int | None
    pad: int | None


def limits_of(folder: Path) -> Limits:
    """The limits of a base; of a model of several modalities, those of its language model.

    Args:
        folder: the base's files.

    Raises:
        BiaslineError: without a config.json that can be read.
    """
    config = load_json(folder / "config.json", "restore the base's files")
    text = config.get("text_config")
    config = {**config, **text} if isinstance(text, dict) else config
    vocabulary = _number(config, _VOCABULARY)
    pad = config.get("pad_token_id")
    inside = isinstance(pad, int) and pad >= 0 and (vocabulary is None or pad < vocabulary)
    return Limits(vocabulary, _positions(config), pad if inside else None)


def quantization_of(folder: Path) -> str:
    """The method that a base's weights were quantized by, as its config names it; empty where they were not."""
    config = load_json(folder / "config.json", "restore the base's files")
    text = config.get("text_config")
    found = config.get("quantization_config") or (text.get("quantization_config") if isinstance(text, dict) else None)
    return str(found.get("quant_method", "a method that it does not name")) if isinstance(found, dict) else ""


def _positions(config: Mapping[str, Any]) -> int | None:
    model_type = config.get("model_type")
    if model_type in _RELATIVE or config.get("alibi") is True:
        return None
    if str(model_type).startswith("deberta") and config.get("position_biased_input") is False:
        return None
    if model_type == "esm" and config.get("position_embedding_type") == "rotary":
        return None
    positions = _number(config, _POSITIONS)
    if positions is None or model_type not in _BEHIND_PADDING:
        return positions
    pad = config.get("pad_token_id")
    # MPNet's padding is written into its code.
    return positions - 1 - (pad if isinstance(pad, int) and model_type != "mpnet" else _THEIR_PADDING)


def _number(config: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    """The first of the names that has a size."""
    found = (config.get(name) for name in names)
    return next((value for value in found if isinstance(value, int) and value > 0), None)
