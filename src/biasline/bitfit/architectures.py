"""The architectures whose biases are known by role: adding one is adding one row to `ARCHITECTURES`."""

from biasline.bitfit.pretrained import Config
from biasline.bitfit.roles import (
    UNKNOWN,
    Architecture,
    Fused,
    Row,
    keys_always,
    keys_never,
    keys_rotated,
)

_BERT: tuple[Row, ...] = (
    ("embeddings.LayerNorm", "embedding_norm"),
    # `*`: attention, and crossattention where there is one.
    ("layer.#.*.self.query", "query"),
    ("layer.#.*.self.key", "key"),
    ("layer.#.*.self.value", "value"),
    ("layer.#.*.output.dense", "attention_output"),
    ("layer.#.*.output.LayerNorm", "norm"),
    ("layer.#.intermediate.dense", "mlp_in"),
    ("layer.#.output.dense", "mlp_out"),
    ("layer.#.output.LayerNorm", "norm"),
    ("cls.seq_relationship", "head"),
    ("cls.predictions", "lm_head"),
    ("cls.predictions.**", "lm_head"),
    ("lm_head.**", "lm_head"),
)

_LLAMA: tuple[Row, ...] = (
    ("layers.#.self_attn.q_proj", "query"),
    ("layers.#.self_attn.k_proj", "key"),
    ("layers.#.self_attn.v_proj", "value"),
    ("layers.#.self_attn.o_proj", "attention_output"),
    ("layers.#.self_attn.*_norm", "norm"),
    ("layers.#.mlp.gate_proj", "mlp_in"),
    ("layers.#.mlp.up_proj", "mlp_in"),
    ("layers.#.mlp.down_proj", "mlp_out"),
    ("layers.#.*_layernorm", "norm"),
    ("norm", "norm"),
)

# OPT and BART: the same names, in BART for encoder and decoder, and for the attention between them.
_OPT: tuple[Row, ...] = (
    ("layernorm_embedding", "embedding_norm"),
    ("layers.#.*.q_proj", "query"),
    ("layers.#.*.k_proj", "key"),
    ("layers.#.*.v_proj", "value"),
    ("layers.#.*.out_proj", "attention_output"),
    ("layers.#.*_layer_norm", "norm"),
    ("layers.#.fc1", "mlp_in"),
    ("layers.#.fc2", "mlp_out"),
    ("final_layer_norm", "norm"),
    ("encoder.layer_norm", "norm"),
    ("decoder.layer_norm", "norm"),
)

_BLOOM_MLP: tuple[Row, ...] = (("#.mlp.dense_h_to_4h", "mlp_in"), ("#.mlp.dense_4h_to_h", "mlp_out"))


def _falcon_keys(config: Config, width: int) -> int:
    return 0 if config.alibi else width


def _falcon_key_heads(config: Config) -> int:
    if config.new_decoder_architecture:
        return int(config.num_kv_heads)
    return 1 if config.multi_query else int(config.num_attention_heads)


def _gptj_keys(config: Config, width: int) -> int:
    return int(config.rotary_dim or width)


def _phi_keys(config: Config, width: int) -> int:
    return width if config.qk_layernorm else keys_rotated(config, width)


_GEMMA = Architecture(_LLAMA, keys_always, flags=("attention_bias",))

_T5 = Architecture(
    (
        ("block.#.layer.*.*.q", "query"),
        ("block.#.layer.*.*.k", "key"),
        ("block.#.layer.*.*.v", "value"),
        ("block.#.layer.*.*.o", "attention_output"),
        ("block.#.layer.*.*.wi", "mlp_in"),
        ("block.#.layer.*.*.wi_*", "mlp_in"),
        ("block.#.layer.*.*.wo", "mlp_out"),
        ("block.#.layer.*.layer_norm", "norm"),
        ("final_layer_norm", "norm"),
    ),
    keys_never,
)

# By `model_type` of the Transformers config.
ARCHITECTURES: dict[str, Architecture] = {
    "bert": Architecture(_BERT, keys_never),
    "roberta": Architecture(_BERT, keys_never),
    "xlm-roberta": Architecture(_BERT, keys_never),
    "camembert": Architecture(_BERT, keys_never),
    "electra": Architecture(
        (
            *_BERT,
            ("generator_predictions.*", "lm_head"),
            ("generator_lm_head", "lm_head"),
            ("discriminator_predictions.*", "head"),
        ),
        keys_never,
    ),
    "distilbert": Architecture(
        (
            ("embeddings.LayerNorm", "embedding_norm"),
            ("layer.#.attention.q_lin", "query"),
            ("layer.#.attention.k_lin", "key"),
            ("layer.#.attention.v_lin", "value"),
            ("layer.#.attention.out_lin", "attention_output"),
            ("layer.#.*_layer_norm", "norm"),
            ("layer.#.ffn.lin1", "mlp_in"),
            ("layer.#.ffn.lin2", "mlp_out"),
            ("vocab_*", "lm_head"),
        ),
        keys_never,
    ),
    # One layer, used again and again: its biases are there once.
    "albert": Architecture(
        (
            ("embeddings.LayerNorm", "embedding_norm"),
            ("albert_layer_groups.#.*.*.attention.query", "query"),
            ("albert_layer_groups.#.*.*.attention.key", "key"),
            ("albert_layer_groups.#.*.*.attention.value", "value"),
            ("albert_layer_groups.#.*.*.attention.dense", "attention_output"),
            ("albert_layer_groups.#.*.*.attention.LayerNorm", "norm"),
            ("albert_layer_groups.#.*.*.full_layer_layer_norm", "norm"),
            ("albert_layer_groups.#.*.*.ffn", "mlp_in"),
            ("albert_layer_groups.#.*.*.ffn_output", "mlp_out"),
            ("pooler", "pooler"),
            ("predictions", "lm_head"),
            ("predictions.*", "lm_head"),
            ("sop_classifier.classifier", "head"),
        ),
        keys_never,
    ),
    # Disentangled attention: a key meets positions too, so its bias acts.
    "deberta-v2": Architecture(
        (
            ("layer.#.attention.self.query_proj", "query"),
            ("layer.#.attention.self.pos_query_proj", "query"),
            ("layer.#.attention.self.key_proj", "key"),
            ("layer.#.attention.self.pos_key_proj", "key"),
            ("layer.#.attention.self.value_proj", "value"),
            ("encoder.LayerNorm", "embedding_norm"),
            ("encoder.conv.LayerNorm", "norm"),
            *_BERT,
        ),
        keys_always,
    ),
    "modernbert": Architecture(
        (
            ("embeddings.norm", "embedding_norm"),
            ("layers.#.attn.Wqkv", Fused("concatenated")),
            ("layers.#.attn.Wo", "attention_output"),
            ("layers.#.mlp.Wi", "mlp_in"),
            ("layers.#.mlp.Wo", "mlp_out"),
            ("layers.#.*_norm", "norm"),
            ("final_norm", "norm"),
            ("head.*", "lm_head"),
            ("decoder", "lm_head"),
        ),
        keys_always,
        flags=("attention_bias", "mlp_bias", "norm_bias"),
    ),
    "bloom": Architecture(
        (
            ("word_embeddings_layernorm", "embedding_norm"),
            ("h.#.self_attention.query_key_value", Fused("interleaved")),
            ("h.#.self_attention.dense", "attention_output"),
            ("h.#.*_layernorm", "norm"),
            ("ln_f", "norm"),
            *_BLOOM_MLP,
        ),
        keys_never,
    ),
    "gpt2": Architecture(
        (
            ("h.#.attn.c_attn", Fused("concatenated")),
            ("h.#.attn.c_proj", "attention_output"),
            ("h.#.crossattention.q_attn", "query"),
            ("h.#.crossattention.c_proj", "attention_output"),
            ("h.#.mlp.c_fc", "mlp_in"),
            ("h.#.mlp.c_proj", "mlp_out"),
            ("h.#.ln_*", "norm"),
            ("ln_f", "norm"),
        ),
        keys_never,
    ),
    "gpt_neox": Architecture(
        (
            ("layers.#.attention.query_key_value", Fused("interleaved")),
            ("layers.#.attention.dense", "attention_output"),
            ("layers.#.*_layernorm", "norm"),
            ("final_layer_norm", "norm"),
            *_BLOOM_MLP,
        ),
        keys_rotated,
        flags=("attention_bias",),
    ),
    "gptj": Architecture(
        (
            ("h.#.attn.q_proj", "query"),
            ("h.#.attn.k_proj", "key"),
            ("h.#.attn.v_proj", "value"),
            ("h.#.attn.out_proj", "attention_output"),
            ("h.#.mlp.fc_in", "mlp_in"),
            ("h.#.mlp.fc_out", "mlp_out"),
            ("h.#.ln_1", "norm"),
            ("ln_f", "norm"),
        ),
        _gptj_keys,
    ),
    "opt": Architecture(_OPT, keys_never, flags=("enable_bias",)),
    "bart": Architecture(_OPT, keys_never),
    "mbart": Architecture(_OPT, keys_never),
    "falcon": Architecture(
        (
            ("h.#.self_attention.query_key_value", Fused("interleaved")),
            ("h.#.self_attention.dense", "attention_output"),
            ("h.#.*_layernorm", "norm"),
            ("h.#.ln_*", "norm"),
            ("ln_f", "norm"),
            *_BLOOM_MLP,
        ),
        _falcon_keys,
        _falcon_key_heads,
        flags=("bias",),
    ),
    "phi": Architecture(
        (
            ("layers.#.self_attn.dense", "attention_output"),
            ("layers.#.self_attn.*_layernorm", "norm"),
            ("layers.#.mlp.fc1", "mlp_in"),
            ("layers.#.mlp.fc2", "mlp_out"),
            ("final_layernorm", "norm"),
            *_LLAMA,
        ),
        _phi_keys,
    ),
    "phi3": Architecture(
        (
            ("layers.#.self_attn.qkv_proj", Fused("concatenated")),
            ("layers.#.mlp.gate_up_proj", "mlp_in"),
            *_LLAMA,
        ),
        keys_rotated,
    ),
    "llama": Architecture(_LLAMA, keys_always, flags=("attention_bias", "mlp_bias")),
    "mistral": Architecture(_LLAMA, keys_always, layout="llama"),
    "qwen2": Architecture(_LLAMA, keys_always, layout="llama"),
    "qwen3": Architecture(_LLAMA, keys_always, flags=("attention_bias",)),
    "gemma": _GEMMA,
    "gemma2": _GEMMA,
    "gemma3_text": _GEMMA,
    # The vision tower's biases count as `other`.
    "gemma3": Architecture(
        (("vision_tower.**", "other"), ("multi_modal_projector.**", "other"), *_LLAMA),
        keys_always,
    ),
    "t5": _T5,
    "mt5": _T5,
}


def architecture_of(model_type: str) -> Architecture:
    """The row of a Transformers model type, or `UNKNOWN`."""
    return ARCHITECTURES.get(model_type, UNKNOWN)
