import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from biasline.bitfit import by_role, inspect_biases
from biasline.bitfit.roles import Cut

SMALL = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64, "vocab_size": 50}


def test_bloom_by_role(bloom):
    assert by_role(inspect_biases(bloom).biases) == {
        "embedding_norm": 32,
        "norm": 2 * 2 * 32 + 32,
        "query": 64,
        "key": 64,
        "value": 64,
        "attention_output": 64,
        "mlp_in": 256,
        "mlp_out": 64,
    }


def test_bert_by_role():
    model = BertForSequenceClassification(BertConfig(**SMALL, num_labels=3))
    inventory = inspect_biases(model)
    assert by_role(inventory.biases) == {
        "embedding_norm": 32,
        "query": 64,
        "key": 64,
        "value": 64,
        "attention_output": 64,
        "norm": 128,
        "mlp_in": 128,
        "mlp_out": 64,
        "pooler": 32,
        "head": 3,
    }
    assert inventory.key_entries == 0
    assert inventory.total == sum(parameter.numel() for parameter in model.parameters())


def test_tied_biases_count_once():
    inventory = inspect_biases(BertForMaskedLM(BertConfig(**SMALL)))
    tied = [bias.name for bias in inventory.biases if bias.shape == (50,)]
    assert len(tied) == 1


def test_gpt2_is_cut_by_thirds():
    model = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=50, n_positions=16))
    parts = {bias.role: bias.cut for bias in inspect_biases(model).biases if bias.cut}
    assert parts == {"query": Cut(0, 32, 32, 1), "key": Cut(32, 32, 32, 1), "value": Cut(64, 32, 32, 1)}


def test_bloom_is_cut_per_head():
    """The ranges are those that the model itself takes apart: view(heads, 3, head size)."""
    model = BloomForCausalLM(BloomConfig(vocab_size=50, hidden_size=12, n_layer=1, n_head=2))
    places = torch.arange(36).view(2, 3, 6)
    parts = {bias.role: bias for bias in inspect_biases(model).biases if bias.cut}
    for position, role in enumerate(("query", "key", "value")):
        assert parts[role].read(torch.arange(36)).tolist() == places[:, position].flatten().tolist()


def test_the_parts_of_a_fused_bias_cover_it_once(bloom):
    for name, parameter in bloom.named_parameters():
        parts = [bias for bias in inspect_biases(bloom).biases if bias.name == name and bias.cut]
        if parts:
            entries = torch.cat([part.read(torch.arange(parameter.numel())) for part in parts])
            assert sorted(entries.tolist()) == list(range(parameter.numel()))


def test_llama_has_none_and_says_where_they_could_be():
    model = LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2))
    inventory = inspect_biases(model)
    assert inventory.biases == ()
    missing = {(place.role, place.count) for place in inventory.missing}
    assert {("query", 32), ("key", 16), ("value", 16), ("mlp_in", 64), ("mlp_out", 32)} <= missing


def test_qwen2_has_query_key_value_only():
    inventory = inspect_biases(Qwen2ForCausalLM(Qwen2Config(**SMALL, num_key_value_heads=2)))
    assert by_role(inventory.biases) == {"query": 64, "key": 32, "value": 32}
    assert inventory.key_entries == inventory.head_width == 8


def test_a_relative_attention_bias_is_an_embedding_not_a_bias():
    config = T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4, vocab_size=50)
    assert inspect_biases(T5ForConditionalGeneration(config)).biases == ()


def test_a_buffer_called_bias_is_none():
    module = nn.Linear(4, 4)
    module.register_buffer("mask_bias", torch.zeros(4))
    assert [bias.name for bias in inspect_biases(module).biases] == ["bias"]


def test_any_module_is_inspected():
    model = nn.Sequential(nn.Conv1d(2, 3, 1), nn.BatchNorm1d(3), nn.Linear(3, 5, bias=False), nn.LSTM(3, 4))
    inventory = inspect_biases(model)
    assert by_role(inventory.biases) == {"other": 3 + 3 + 16 + 16}
    assert not inventory.known
    assert [bias.name for bias in inventory.missing] == ["2.bias"]
    assert [scale.name for scale in inventory.scales] == ["1.weight"]


@pytest.mark.parametrize("kind", [(BloomConfig(vocab_size=50, hidden_size=12, n_layer=3, n_head=2), BloomForCausalLM)])
def test_meta_tensors_give_the_same_inventory(kind):
    config, model = kind
    real = inspect_biases(model(config))
    with torch.device("meta"):
        assert inspect_biases(model(config)) == real


def test_biases_of_several_dimensions_count():
    class Experts(nn.Module):
        def __init__(self):
            super().__init__()
            self.gate_up_proj_bias = nn.Parameter(torch.zeros(4, 6))

    found = inspect_biases(nn.Sequential(Experts(), nn.LayerNorm([3, 4])))
    assert [(bias.name, bias.count) for bias in found.biases] == [("0.gate_up_proj_bias", 24), ("1.bias", 12)]
