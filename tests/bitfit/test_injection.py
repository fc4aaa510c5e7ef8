import copy

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from biasline.bitfit.injection import Injection
from biasline.errors import BiaslineError
from tests.bitfit.zoo import build, ids


@pytest.fixture
def llama():
    return build("llama")


def test_a_norm_that_adds_no_bias_by_itself_gets_one(llama):
    with torch.no_grad():
        plain = llama(ids()).logits
        injection = Injection(llama, {"model.norm.bias": 16})
        assert torch.equal(llama(ids()).logits, plain)
        llama.model.norm.bias.add_(1.0)
        moved = llama(ids()).logits
        # The last norm's output goes straight into the vocabulary.
        assert torch.allclose(moved - plain, llama.lm_head.weight.sum(1).expand_as(plain), atol=1e-4)
        injection.remove(llama)
        assert torch.equal(llama(ids()).logits, plain)
    assert "model.norm.bias" not in llama.state_dict()


def test_a_copied_model_keeps_its_injected_biases(llama):
    Injection(llama, {"model.norm.bias": 16, "model.layers.0.mlp.up_proj.bias": 24})
    with torch.no_grad():
        llama.model.norm.bias.add_(1.0)
        assert torch.equal(copy.deepcopy(llama)(ids()).logits, llama(ids()).logits)


def test_removing_leaves_the_keys_as_they_were(llama):
    before = list(llama.state_dict())
    injection = Injection(llama, {"model.layers.0.self_attn.k_proj.bias": 8, "model.norm.bias": 16})
    assert len(llama.state_dict()) == len(before) + 2
    injection.remove(llama)
    assert list(llama.state_dict()) == before


@pytest.mark.parametrize(
    ("lengths", "told"),
    [
        (
            {"model.layers.0.self_attn.q_proj.bias": 16, "model.layers.9.mlp.up_proj.bias": 24},
            "no layer model.layers.9",
        ),
        ({"model.layers.0.self_attn.k_proj.bias": 16}, "16 entries, the layer has room for 8"),
        ({"model.layers.0.mlp.bias": 16}, "no bias can be injected there"),
        ({"model.layers.0.self_attn.q_proj.weight": 16}, "no bias can be injected there"),
    ],
)
def test_what_cannot_be_injected_is_told_and_nothing_stays(llama, lengths, told):
    before = list(llama.state_dict())
    with pytest.raises(BiaslineError, match=told):
        Injection(llama, lengths)
    assert list(llama.state_dict()) == before


def test_a_bias_that_is_there_is_not_replaced():
    module = nn.Sequential(nn.Linear(2, 3))
    with pytest.raises(BiaslineError, match=r"tensor 0\.bias: the layer has a bias already"):
        Injection(module, {"0.bias": 3})


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 7), (33, 64)])
@pytest.mark.parametrize("sizes", [(7, 9), (64, 172), (384, 1536)])
def test_a_zero_bias_changes_no_bit_of_a_linear_layer(shape, sizes):
    torch.manual_seed(0)
    layer = nn.Linear(*sizes, bias=False)
    inputs = torch.randn(*shape, sizes[0])
    plain = layer(inputs)
    Injection(layer, {"bias": sizes[1]})
    assert torch.equal(layer(inputs), plain)


def test_grouped_queries_give_short_key_and_value_biases():
    config = LlamaConfig(
        hidden_size=16, num_attention_heads=8, num_key_value_heads=2, head_dim=4, num_hidden_layers=1, vocab_size=40
    )
    model = LlamaForCausalLM(config)
    parts = {"q_proj": 32, "k_proj": 8, "v_proj": 8, "o_proj": 16}
    Injection(model, {f"model.layers.0.self_attn.{name}.bias": length for name, length in parts.items()})
    model(ids())


def test_a_linear_layer_that_forgets_its_bias_is_helped():
    class Forgetful(nn.Linear):
        def forward(self, inputs):
            return inputs @ self.weight.T

    class Mindful(nn.Linear):
        def forward(self, inputs):
            found = inputs @ self.weight.T
            return found if self.bias is None else found + self.bias

    for kind in (Forgetful, Mindful):
        layer = kind(3, 2, bias=False)
        inputs = torch.randn(4, 3)
        plain = layer(inputs)
        Injection(layer, {"bias": 2})
        assert torch.equal(layer(inputs), plain)
        with torch.no_grad():
            layer.bias.add_(1.0)
        assert torch.allclose(layer(inputs), plain + 1.0)


def test_norms_are_injected_on_unknown_architectures_too():
    from biasline.bitfit import tune_biases

    model = nn.Sequential(nn.Linear(2, 3), nn.RMSNorm(3), nn.LayerNorm(3, bias=False))
    tuning = tune_biases(model, "all", inject="norm")
    assert tuning.injection.names == ["1.bias", "2.bias"]
