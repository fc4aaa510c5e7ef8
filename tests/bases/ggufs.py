"""Small GGUF files, written as llama.cpp's own converter writes them."""

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter, TokenType, get_tensor_name_map
from gguf.constants import MODEL_ARCH_NAMES
from gguf.quants import quantize
from transformers import LlamaConfig, LlamaForCausalLM

TEMPLATE = "{% for message in messages %}<|start|>{{ message['content'] }}<|end|>{% endfor %}"
SPECIAL = ["<|unk|>", "<|start|>", "<|end|>"]


def byte_tokens():
    """The 256 characters that GPT-2's tokenizer writes bytes as."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names, further = {byte: chr(byte) for byte in plain}, 0
    for byte in range(256):
        if byte not in names:
            names[byte] = chr(256 + further)
            further += 1
    return [names[byte] for byte in range(256)]


def small_llama(**more):
    """A model that a file is written of."""
    return small(LlamaForCausalLM, LlamaConfig, **more)


def small(model_class, config_class, **more):
    """A small model of a class that is built as LLaMA's are."""
    torch.manual_seed(0)
    tokens = len(SPECIAL) + 256 + 2
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, **more}
    model = model_class(
        config_class(
            vocab_size=tokens,
            num_key_value_heads=2,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            **sizes,
        )
    ).eval()
    for name, part in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(part)
    return model


def write_gguf(path, model, quantized=False, tokenizer=True, further=None, architecture="llama", says=None):
    """A model as a file.

    Args:
        path: of the file.
        model: of `small`.
        quantized: matrices are Q8_0.
        tokenizer: whether there is one in it.
        further: name → array of tensors beside the model's.
        architecture: what it calls itself.
        says: key → value of further fields.
    """
    config = model.config
    writer = GGUFWriter(path, architecture)
    writer.add_name("small")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    says = dict(says or {})
    for name in [name for name in says if not name.startswith("tokenizer.")]:
        value = says[name]
        add = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint16}[type(value)]
        add(name, value)
    if tokenizer:
        tokens = [*SPECIAL, *byte_tokens(), "th", "the"]
        kinds = [TokenType.CONTROL] * len(SPECIAL) + [TokenType.NORMAL] * (len(tokens) - len(SPECIAL))
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(says.get("tokenizer.ggml.pre", "gpt-2"))
        writer.add_token_list(tokens)
        writer.add_token_types(kinds)
        writer.add_token_merges(["t h", "th e"])
        writer.add_unk_token_id(0)
        writer.add_bos_token_id(1)
        writer.add_eos_token_id(2)
        writer.add_pad_token_id(2)
        writer.add_chat_template(TEMPLATE)
    known = {name: key for key, name in MODEL_ARCH_NAMES.items()}
    names = get_tensor_name_map(known[config.model_type], config.num_hidden_layers)
    for name, part in model.state_dict().items():
        if name == "lm_head.weight":
            continue  # tied
        values = part.float().numpy()
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        if heads and architecture == "llama":  # llama.cpp turns pairs of a head's entries, Transformers its halves
            values = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:]).swapaxes(1, 2)
            values = np.ascontiguousarray(values.reshape(part.shape))
        stem, _, suffix = name.rpartition(".")
        own = f"{names.get_name(stem)}.{suffix}"
        if quantized and values.ndim == 2:
            packed = quantize(values, GGMLQuantizationType.Q8_0)
            writer.add_tensor(own, packed, raw_dtype=GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(own, values)
    for name, values in (further or {}).items():
        writer.add_tensor(name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
