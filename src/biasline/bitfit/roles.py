"""What a bias does in its Transformer, told by the structure of the model and never by a substring of its name.

Adding an architecture is adding one row to `ARCHITECTURES`: patterns of module paths and the role of the bias there.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

ROLES = (
    "query",
    "key",
    "value",
    "attention_output",
    "mlp_in",
    "mlp_out",
    "norm",
    "embedding_norm",
    "pooler",
    "lm_head",
    "head",
    "other",
)
FUSED_PARTS = ("query", "key", "value")


@dataclass(frozen=True)
class Fused:
    """One bias that holds the query, key and value biases of a layer.

    `interleaved`: per head q, k, v in turn (BLOOM, GPT-NeoX); `concatenated`: all of q, then k, then v (GPT-2).
    """

    layout: Literal["interleaved", "concatenated"]

    def ranges(self, part: str, length: int, heads: int) -> tuple[tuple[int, int], ...]:
        """Half-open index ranges of `part` inside the fused bias.

        Args:
            part: one of `FUSED_PARTS`.
            length: entries of the fused bias, 3 × hidden size.
            heads: attention heads; equal numbers of query and key heads.
        """
        position = FUSED_PARTS.index(part)
        if self.layout == "concatenated":
            third = length // 3
            return ((position * third, (position + 1) * third),)
        width = length // (3 * heads)
        starts = (head * 3 * width + position * width for head in range(heads))
        return tuple((start, start + width) for start in starts)


@dataclass(frozen=True)
class Architecture:
    """Roles of one family of models.

    Args:
        rows: (pattern, role or `Fused`); a pattern is matched against the end of a module's path, at a dot, and
            `#` in it stands for the layer's number.
        key_acts: whether a key bias can change the output. Where keys act by content alone (learned absolute
            positions, ALiBi) it adds the same amount to every score of a query, which softmax ignores; with
            rotary positions or a norm on the keys it does act.
    """

    rows: tuple[tuple[str, "str | Fused"], ...]
    key_acts: bool

    @cached_property
    def _compiled(self) -> tuple[tuple[re.Pattern[str], "str | Fused"], ...]:
        def compiled(pattern: str) -> re.Pattern[str]:
            body = re.escape(pattern).replace(r"\#", "#").replace("#", r"(?P<layer>\d+)")
            return re.compile(rf"(?:.*\.)?{body}")

        return tuple((compiled(pattern), role) for pattern, role in self.rows + _HEADS)

    def role_of(self, path: str) -> tuple["str | Fused", int | None]:
        """Role and layer of the bias in the module at `path`; `other` where no row matches."""
        for pattern, role in self._compiled:
            if match := pattern.fullmatch(path):
                layer = match.groupdict().get("layer")
                return role, int(layer) if layer is not None else None
        return "other", None


# Heads that stock Transformers put on top of any base; matched last.
_HEADS: tuple[tuple[str, "str | Fused"], ...] = (
    ("score", "head"),
    ("classifier", "head"),
    ("classifier.dense", "head"),
    ("classifier.out_proj", "head"),
    ("pre_classifier", "head"),
    ("qa_outputs", "head"),
    ("pooler.dense", "pooler"),
    ("lm_head", "lm_head"),
)

_BERT_LAYER: tuple[tuple[str, "str | Fused"], ...] = (
    ("embeddings.LayerNorm", "embedding_norm"),
    ("layer.#.attention.self.query", "query"),
    ("layer.#.attention.self.key", "key"),
    ("layer.#.attention.self.value", "value"),
    ("layer.#.attention.output.dense", "attention_output"),
    ("layer.#.attention.output.LayerNorm", "norm"),
    ("layer.#.intermediate.dense", "mlp_in"),
    ("layer.#.output.dense", "mlp_out"),
    ("layer.#.output.LayerNorm", "norm"),
)

_LLAMA_LAYER: tuple[tuple[str, "str | Fused"], ...] = (
    ("layers.#.self_attn.q_proj", "query"),
    ("layers.#.self_attn.k_proj", "key"),
    ("layers.#.self_attn.v_proj", "value"),
    ("layers.#.self_attn.o_proj", "attention_output"),
    ("layers.#.mlp.gate_proj", "mlp_in"),
    ("layers.#.mlp.up_proj", "mlp_in"),
    ("layers.#.mlp.down_proj", "mlp_out"),
    ("layers.#.input_layernorm", "norm"),
    ("layers.#.post_attention_layernorm", "norm"),
    ("norm", "norm"),
)

_LLAMA = Architecture(_LLAMA_LAYER, key_acts=True)

# By `model_type` of the Transformers config.
ARCHITECTURES: dict[str, Architecture] = {
    "bloom": Architecture(
        (
            ("word_embeddings_layernorm", "embedding_norm"),
            ("h.#.input_layernorm", "norm"),
            ("h.#.self_attention.query_key_value", Fused("interleaved")),
            ("h.#.self_attention.dense", "attention_output"),
            ("h.#.post_attention_layernorm", "norm"),
            ("h.#.mlp.dense_h_to_4h", "mlp_in"),
            ("h.#.mlp.dense_4h_to_h", "mlp_out"),
            ("ln_f", "norm"),
        ),
        key_acts=False,
    ),
    "bert": Architecture(
        (
            *_BERT_LAYER,
            ("cls.predictions.transform.dense", "lm_head"),
            ("cls.predictions.transform.LayerNorm", "lm_head"),
            ("cls.predictions", "lm_head"),
            ("cls.predictions.decoder", "lm_head"),
            ("cls.seq_relationship", "head"),
        ),
        key_acts=False,
    ),
    "roberta": Architecture(
        (*_BERT_LAYER, ("lm_head.dense", "lm_head"), ("lm_head.layer_norm", "lm_head"), ("lm_head.decoder", "lm_head")),
        key_acts=False,
    ),
    "gpt2": Architecture(
        (
            ("h.#.ln_1", "norm"),
            ("h.#.attn.c_attn", Fused("concatenated")),
            ("h.#.attn.c_proj", "attention_output"),
            ("h.#.ln_2", "norm"),
            ("h.#.mlp.c_fc", "mlp_in"),
            ("h.#.mlp.c_proj", "mlp_out"),
            ("ln_f", "norm"),
        ),
        key_acts=False,
    ),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
}

# A model that is not in the table: every bias is found, its role is `other`, and no key bias is left out.
UNKNOWN = Architecture((), key_acts=True)
