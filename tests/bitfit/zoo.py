"""A tiny random model of each architecture that the table knows, with its biases counted by hand.

Sizes: hidden 16, MLP 24, 2 layers, 4 heads of 4 entries, 2 key/value heads where queries are grouped, 40 tokens.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers as hf

HIDDEN, MLP, HEADS, GROUPS, WIDTH, WORDS = 16, 24, 4, 2, 4, 40
SIZES = {
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "num_hidden_layers": 2,
    "intermediate_size": MLP,
    "vocab_size": WORDS,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPED = {"num_key_value_heads": GROUPS, "head_dim": WIDTH}
GPT = {"n_embd": HIDDEN, "n_head": HEADS, "n_layer": 2, "vocab_size": WORDS, "bos_token_id": 1, "eos_token_id": 2}
SEQ2SEQ = {"d_model": HIDDEN, "vocab_size": WORDS, "decoder_start_token_id": 0}

# Two layers with all biases: query, key, value, attention output, MLP.
FULL = {"query": 32, "key": 32, "value": 32, "attention_output": 32, "mlp_in": 48, "mlp_out": 32}
# Two layers with grouped queries and a gate beside the MLP's first layer, none of them with a bias.
GATED = {"query": 32, "key": 16, "value": 16, "attention_output": 32, "mlp_in": 96, "mlp_out": 32}
NONE: dict[str, int] = {}


@dataclass(frozen=True)
class Animal:
    """A model of the zoo.

    Attributes:
        make: builds it, on whatever device is the default.
        biases: role → entries that it has.
        missing: role → entries that could be injected.
        keys: how many leading entries of each head's key bias act.
        merges: roles whose injected biases a stock model has a place for.
    """

    make: Callable[[], Any]
    biases: dict[str, int]
    missing: dict[str, int] = field(default_factory=dict)
    keys: int = 0
    merges: tuple[str, ...] = ()


def _of(model: str, **config: Any) -> Callable[[], Any]:
    def make() -> Any:
        model_class = getattr(hf, model)
        return model_class(model_class.config_class(**config))

    return make


HEAD = {"head": 2}
DENSE_HEAD = {"head": 16 + 2}
ALL_LINEAR = ("query", "key", "value", "attention_output", "mlp_in", "mlp_out")
LM = {"lm_head": WORDS}
# Norms per model: two in each layer; in pre-norm models one more behind the last layer.
POST, PRE = {"norm": 2 * 2 * 16}, {"norm": 2 * 2 * 16 + 16}
EMBEDDING = {"embedding_norm": 16}

BOTH_SIDES = {"query": 96, "key": 96, "value": 96, "attention_output": 96, "mlp_out": 64}


def _t5(model: str, mlp_in: int, **config: Any) -> Animal:
    sizes = {"d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4}
    norm = 2 * 2 * 16 + 16 + 2 * 3 * 16 + 16
    return Animal(_of(model, **SEQ2SEQ, **sizes, **config), NONE, {**BOTH_SIDES, "mlp_in": mlp_in, "norm": norm, **LM})


def _bart(model: str, norm: int) -> Animal:
    sides = [f"{side}_{what}" for what in ("layers", "attention_heads", "ffn_dim") for side in ("encoder", "decoder")]
    sizes = dict(zip(sides, (2, 2, 4, 4, 24, 24), strict=True))
    make = _of(model, **SEQ2SEQ, **sizes, max_position_embeddings=32)
    return Animal(make, {"embedding_norm": 32, **BOTH_SIDES, "mlp_in": 96, "norm": norm}, LM)


ZOO: dict[str, Animal] = {
    "bert": Animal(_of("BertForSequenceClassification", **SIZES), {**EMBEDDING, **FULL, **POST, "pooler": 16, **HEAD}),
    "bert-mlm": Animal(
        # transform: dense and norm; the decoder's bias, tied to the head's own, once
        _of("BertForMaskedLM", **SIZES),
        {**EMBEDDING, **FULL, **POST, "lm_head": 16 + 16 + 40},
    ),
    "roberta": Animal(_of("RobertaForSequenceClassification", **SIZES), {**EMBEDDING, **FULL, **POST, **DENSE_HEAD}),
    "xlm-roberta": Animal(
        _of("XLMRobertaForSequenceClassification", **SIZES), {**EMBEDDING, **FULL, **POST, **DENSE_HEAD}
    ),
    "camembert": Animal(
        _of("CamembertForSequenceClassification", **SIZES), {**EMBEDDING, **FULL, **POST, **DENSE_HEAD}
    ),
    "bert-decoder": Animal(
        # a second attention in each layer, to what an encoder says
        _of("BertLMHeadModel", **SIZES, is_decoder=True, add_cross_attention=True),
        {
            **EMBEDDING,
            **FULL,
            **{role: 64 for role in ("query", "key", "value", "attention_output")},
            "norm": 96,
            "lm_head": 16 + 16 + 40,
        },
    ),
    "electra": Animal(
        # embeddings of 8, projected to 16
        _of("ElectraForSequenceClassification", **SIZES, embedding_size=8),
        {"embedding_norm": 8, "other": 16, **FULL, **POST, **DENSE_HEAD},
    ),
    "distilbert": Animal(
        _of("DistilBertForSequenceClassification", dim=16, n_heads=4, n_layers=2, hidden_dim=24, vocab_size=40),
        {**EMBEDDING, **FULL, **POST, **DENSE_HEAD},
    ),
    "albert": Animal(
        # one layer, used twice
        _of("AlbertForSequenceClassification", **SIZES, embedding_size=8),
        {
            "embedding_norm": 8,
            "other": 16,
            **{role: count // 2 for role, count in (FULL | POST).items()},
            "pooler": 16,
            **HEAD,
        },
    ),
    "deberta-v2": Animal(
        # positions have queries and keys of their own; a convolution beside the first layer
        _of(
            "DebertaV2ForSequenceClassification",
            **SIZES,
            relative_attention=True,
            pos_att_type=["p2c", "c2p"],
            norm_rel_ebd="layer_norm",
            conv_kernel_size=3,
        ),
        {
            "embedding_norm": 16 + 16,
            **FULL,
            "query": 64,
            "key": 64,
            "norm": 64 + 16,
            "other": 16,
            "pooler": 16,
            **HEAD,
        },
        keys=4,
    ),
    "modernbert": Animal(
        # the first layer has no norm before its attention; the gate doubles mlp_in
        _of("ModernBertForSequenceClassification", **SIZES, cls_token_id=1, sep_token_id=2),
        {**HEAD},
        {**EMBEDDING, **FULL, "mlp_in": 96, "norm": 16 + 2 * 16 + 16, "lm_head": 32},
        keys=4,
        merges=(*ALL_LINEAR, "norm", "embedding_norm"),
    ),
    "bloom": Animal(
        _of("BloomForCausalLM", hidden_size=16, n_layer=2, n_head=4, vocab_size=40, pad_token_id=0),
        {**EMBEDDING, **FULL, "mlp_in": 128, **PRE},
        LM,
    ),
    "gpt2": Animal(_of("GPT2LMHeadModel", **GPT, n_positions=32), {**FULL, "mlp_in": 128, **PRE}, LM),
    "gpt_neox": Animal(
        # half of each head is rotated
        _of("GPTNeoXForCausalLM", **SIZES, rotary_pct=0.5),
        {**FULL, **PRE},
        LM,
        keys=2,
    ),
    "gpt_neox-bare": Animal(
        _of("GPTNeoXForCausalLM", **SIZES, rotary_pct=0.5, attention_bias=False),
        {"mlp_in": 48, "mlp_out": 32, **PRE},
        {"query": 32, "key": 32, "value": 32, "attention_output": 32, **LM},
        keys=2,
        merges=("query", "key", "value", "attention_output"),
    ),
    "gptj": Animal(
        # one norm in each layer
        _of("GPTJForCausalLM", **GPT, rotary_dim=2),
        {"mlp_in": 128, "mlp_out": 32, "norm": 32 + 16, **LM},
        {"query": 32, "key": 32, "value": 32, "attention_output": 32},
        keys=2,
    ),
    "opt": Animal(_of("OPTForCausalLM", **SIZES, ffn_dim=24, word_embed_proj_dim=16), {**FULL, **PRE}, LM),
    "opt-bare": Animal(
        _of("OPTForCausalLM", **SIZES, ffn_dim=24, word_embed_proj_dim=16, enable_bias=False),
        PRE,
        {**FULL, **LM},
        merges=ALL_LINEAR,
    ),
    "falcon": Animal(
        # one key and one value for all queries, attention and MLP side by side behind one norm
        _of("FalconForCausalLM", **SIZES, bias=True, ffn_hidden_size=24),
        {**FULL, "key": 8, "value": 8, "norm": 32 + 16},
        LM,
        keys=4,
    ),
    "falcon-alibi": Animal(
        _of(
            "FalconForCausalLM",
            **SIZES,
            bias=True,
            ffn_hidden_size=24,
            alibi=True,
            multi_query=False,
            parallel_attn=False,
        ),
        {**FULL, **PRE},
        LM,
    ),
    "falcon-new": Animal(
        _of("FalconForCausalLM", **SIZES, ffn_hidden_size=24, new_decoder_architecture=True, num_kv_heads=2),
        PRE,
        {**FULL, "key": 16, "value": 16, **LM},
        keys=4,
        merges=ALL_LINEAR,
    ),
    "phi": Animal(
        # half of each head is rotated; one norm in each layer
        _of("PhiForCausalLM", **SIZES),
        {**FULL, "norm": 32 + 16, **LM},
        keys=2,
    ),
    "phi-qk-norm": Animal(
        _of("PhiForCausalLM", **SIZES, qk_layernorm=True), {**FULL, "norm": 32 + 16 + 2 * 2 * 4, **LM}, keys=4
    ),
    "phi3": Animal(_of("Phi3ForCausalLM", **SIZES, num_key_value_heads=2), NONE, {**GATED, **PRE, **LM}, keys=4),
    "llama": Animal(
        _of("LlamaForCausalLM", **SIZES, **GROUPED), NONE, {**GATED, **PRE, **LM}, keys=4, merges=ALL_LINEAR
    ),
    "mistral": Animal(
        _of("MistralForCausalLM", **SIZES, **GROUPED, sliding_window=None),
        NONE,
        {**GATED, **PRE, **LM},
        keys=4,
        merges=ALL_LINEAR,
    ),
    "qwen2": Animal(
        _of("Qwen2ForCausalLM", **SIZES, num_key_value_heads=2),
        {"query": 32, "key": 16, "value": 16},
        {"attention_output": 32, "mlp_in": 96, "mlp_out": 32, **PRE, **LM},
        keys=4,
        merges=("attention_output", "mlp_in", "mlp_out"),
    ),
    "qwen3": Animal(
        # a norm on each head's queries and keys
        _of("Qwen3ForCausalLM", **SIZES, **GROUPED),
        NONE,
        {**GATED, "norm": 80 + 2 * 2 * 4, **LM},
        keys=4,
        merges=("query", "key", "value", "attention_output"),
    ),
    "gemma": Animal(
        _of("GemmaForCausalLM", **SIZES, **GROUPED),
        NONE,
        {**GATED, **PRE, **LM},
        keys=4,
        merges=("query", "key", "value", "attention_output"),
    ),
    "gemma2": Animal(
        # four norms in each layer
        _of("Gemma2ForCausalLM", **SIZES, **GROUPED),
        NONE,
        {**GATED, "norm": 2 * 4 * 16 + 16, **LM},
        keys=4,
        merges=("query", "key", "value", "attention_output"),
    ),
    "gemma3_text": Animal(
        _of("Gemma3ForCausalLM", **SIZES, **GROUPED),
        NONE,
        {**GATED, "norm": 2 * 4 * 16 + 16 + 2 * 2 * 4, **LM},
        keys=4,
        merges=("query", "key", "value", "attention_output"),
    ),
    "gemma3": Animal(
        # a vision tower beside the language model: 16 + 136 in its layer + 16 + 120 in its pooling head
        _of(
            "Gemma3ForConditionalGeneration",
            text_config={**SIZES, **GROUPED},
            vision_config={
                "hidden_size": 16,
                "num_attention_heads": 4,
                "num_hidden_layers": 1,
                "intermediate_size": 24,
            },
        ),
        {"other": 288},
        {**GATED, "norm": 16 + 2 * 4 * 16 + 16 + 2 * 2 * 4, **LM},
        keys=4,
    ),
    # two layers of encoder, two of decoder, which attend to the encoder too
    "t5": _t5("T5ForConditionalGeneration", mlp_in=96),
    "t5-gated": _t5("T5ForConditionalGeneration", mlp_in=192, feed_forward_proj="gated-gelu"),
    "mt5": _t5("MT5ForConditionalGeneration", mlp_in=192),
    "bart": _bart("BartForConditionalGeneration", norm=2 * 2 * 16 + 2 * 3 * 16),
    # norms before, and one more behind the last layer of each side
    "mbart": _bart("MBartForConditionalGeneration", norm=2 * 2 * 16 + 16 + 2 * 3 * 16 + 16),
}


def build(name: str) -> Any:
    """The model in eval mode, the same each time.

    Every vector has values of its own, so that a slip shows; weights are larger than Transformers makes them, so that
    attention is far from even, and gradients far from fp16's smallest number.
    """
    torch.manual_seed(0)
    model = ZOO[name].make().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape) * 0.2)
            else:
                parameter.mul_(10)
    return model


def ids(rows: int = 3, length: int = 7) -> torch.Tensor:
    return torch.randint(3, WORDS, (rows, length), generator=torch.Generator().manual_seed(1))


def logits(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    more = {"decoder_input_ids": tokens.flip(1)} if model.config.is_encoder_decoder else {}
    if getattr(model.config, "add_cross_attention", False):
        said = torch.randn(
            len(tokens), 1 if tokens.shape[1] == 1 else 5, HIDDEN, generator=torch.Generator().manual_seed(4)
        )
        more["encoder_hidden_states"] = said.to(model.dtype)
    return model(input_ids=tokens, attention_mask=torch.ones_like(tokens), **more).logits
