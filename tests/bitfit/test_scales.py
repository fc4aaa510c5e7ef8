"""Scales of linear layers' outputs: what they compute, at which precision, and how they go into weights."""

import pytest
import torch

from biasline.bitfit import BiasDelta, by_role, inspect_biases, select_biases, tune_biases
from biasline.bitfit.injection import Injection
from biasline.errors import BiaslineError
from tests.bitfit.zoo import build, ids, logits


@pytest.fixture
def bert():
    return build("bert")


def scaled(model, roles, seed=0):
    """A delta of `roles` with values of its own, taken off again; and the logits with it."""
    tuning = tune_biases(model, roles, head="keep")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for master in tuning.masters:
            master.add_(torch.randn(master.shape, generator=generator) * 0.1)
    tuning.write()
    with torch.no_grad():
        found = logits(model, ids())
    delta = BiasDelta.of(tuning)
    delta.revert(model)
    return delta, found


def test_a_scale_multiplies_what_the_layer_gives_bias_and_all():
    layer = torch.nn.Sequential(torch.nn.Linear(3, 2))
    inputs = torch.randn(4, 3)
    plain = layer(inputs)
    injection = Injection(layer, {"0.scale": 2})
    assert torch.equal(layer(inputs), plain)
    with torch.no_grad():
        layer[0].scale.copy_(torch.tensor([2.0, -0.5]))
    assert torch.allclose(layer(inputs), plain * torch.tensor([2.0, -0.5]))
    injection.remove(layer)
    assert torch.equal(layer(inputs), plain) and list(layer.state_dict()) == ["0.weight", "0.bias"]


def test_a_scale_near_one_counts_in_bf16_too():
    layer = torch.nn.Sequential(torch.nn.Linear(8, 1, dtype=torch.bfloat16))
    Injection(layer, {"0.scale": 1})
    inputs = torch.randn(4_000, 8, dtype=torch.bfloat16)
    with torch.no_grad():
        plain = layer(inputs).double()
        layer[0].scale.fill_(1.003)  # which is 1 in bf16
        assert layer[0].scale.dtype == torch.float32
        # What a layer gives is bf16 too: each value stays as it is or moves to the next.
        assert float((layer(inputs).double() / plain - 1).mean()) == pytest.approx(0.003, rel=0.5)


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ("value+value_scale", {"value": 32, "value_scale": 32}),
        ("query+mlp_scale", {"query": 32, "mlp_in_scale": 48, "mlp_out_scale": 32}),
        ("attention_scale", {f"{name}_scale": 32 for name in ("query", "key", "value", "attention_output")}),
        ("norm_scale", {"norm_scale": 80}),
    ],
)
def test_scales_are_chosen_by_role_and_group(bert, roles, expected):
    chosen = select_biases(inspect_biases(bert), roles)
    assert by_role(chosen.biases) == expected
    assert "no longer BitFit proper" in chosen.notes[-1]
    assert set(chosen.inject) == {bias.name for bias in chosen.biases if bias.name.endswith(".scale")}


def test_all_has_no_scale_and_scale_has_no_bias(bert):
    inventory = inspect_biases(bert)
    assert not select_biases(inventory, "all").scales
    chosen = select_biases(inventory, "scale", layers="1")
    assert chosen.count == 0 and chosen.scales == {"scale": 4 * 16 + 24 + 16}
    assert {bias.layer for bias in chosen.biases} == {1}


def test_scales_have_a_master_and_a_rate_of_their_own(bert):
    tuning = tune_biases(bert, "value+scale", head="train")
    assert [len(group) for group in tuning.groups.values()] == [1, 1, 1]
    optimizer = tuning.optimizer(lr=1e-3, scale_lr=2e-3, head_lr=3e-3)
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 2e-3, 3e-3]
    logits(bert, ids()).square().mean().backward()
    optimizer.step()
    moved = (tuning.scale_master - 1).abs()
    assert float(moved.max()) == pytest.approx(2e-3, rel=1e-2)


@pytest.mark.parametrize("kind", ["bert", "bloom", "gpt2", "llama"])
def test_a_fused_layer_is_scaled_in_part(kind, tmp_path):
    model = build(kind)
    delta, tuned = scaled(model, "value_scale")
    delta.save(tmp_path / "delta.safetensors")
    loaded, fresh = BiasDelta.load(tmp_path / "delta.safetensors"), build(kind)
    with loaded.applied(fresh), torch.no_grad():
        assert torch.equal(logits(fresh, ids()), tuned)
    merged = loaded.merge(fresh)
    with torch.no_grad():
        assert torch.allclose(logits(merged, ids()), tuned, rtol=1e-5, atol=2e-6)
    assert [name for name, _ in merged.named_parameters()] == [name for name, _ in model.named_parameters()]


def test_what_changed_is_told_from_one(bert):
    delta, _ = scaled(bert, "value+value_scale")
    change = {place.key: part for place, part in delta.change(bert)}
    key = next(key for key in change if key.endswith(".scale"))
    assert torch.allclose(change[key], delta.tensors[key] - 1)
    other, _ = scaled(bert, "value")
    [difference] = [one for one in delta.diff(other) if one.key == key]
    assert difference.distance == pytest.approx(float((delta.tensors[key] - 1).norm()))


def test_a_weight_that_two_layers_share_takes_no_scale(bert):
    first, second = (bert.bert.encoder.layer[number].attention.self.value for number in (0, 1))
    second.weight = first.weight
    delta, tuned = scaled(bert, "value_scale")
    before = {name: part.clone() for name, part in bert.state_dict().items()}
    with pytest.raises(BiaslineError, match=r"value\.scale: the layer's weight is shared with another layer"):
        delta.merge(bert)
    assert before.keys() == bert.state_dict().keys()
    assert all(torch.equal(part, before[name]) for name, part in bert.state_dict().items())
    with delta.applied(bert), torch.no_grad():
        assert torch.equal(logits(bert, ids()), tuned)


@pytest.mark.parametrize(
    ("names", "told"),
    [
        ({"bert.embeddings.LayerNorm.scale": 16}, "no scale can be put there"),
        ({"bert.encoder.layer.0.attention.self.value.scale": 3}, "3 entries, the layer has 16"),
        ({"bert.nothing.scale": 16}, "no layer bert.nothing"),
    ],
)
def test_a_scale_that_cannot_be_put_there_is_told_and_nothing_stays(bert, names, told):
    good = "bert.encoder.layer.0.attention.self.query.scale"
    with pytest.raises(BiaslineError, match=told):
        Injection(bert, {good: 16, **names})
    assert good not in bert.state_dict()
