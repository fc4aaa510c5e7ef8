import pytest
import torch
from torch import nn
from transformers.activations import ClippedGELUActivation, NewGELUActivation, QuickGELUActivation

from biasline.training.kernels import Fused, fuse_activations


def test_blooms_gelu_is_fused_with_the_same_values_and_gradients(bloom):
    plain = [layer.mlp.gelu_impl for layer in bloom.transformer.h]
    assert fuse_activations(bloom) == len(plain)
    points = torch.linspace(-8, 8, 2001, dtype=torch.float64)  # in fp32 both round, each in its way
    for layer, before in zip(bloom.transformer.h, plain, strict=True):
        assert isinstance(layer.mlp.gelu_impl, Fused)
        found = []
        for activation in (layer.mlp.gelu_impl, before.train()):
            inputs = points.clone().requires_grad_(True)
            values = activation(inputs)
            values.sum().backward()
            found.append((values.detach(), inputs.grad))
        for mine, its in zip(*found, strict=True):
            torch.testing.assert_close(mine, its, rtol=1e-6, atol=1e-6)
    assert fuse_activations(bloom) == 0


class NearlyGelu(nn.Module):
    def forward(self, values):
        return nn.functional.gelu(values) + 3e-6


class GeluOfTwo(nn.Module):
    def forward(self, values, gates):
        return nn.functional.gelu(values) * gates


class WrongBackwardGelu(nn.Module):
    def forward(self, values):
        return nn.functional.gelu(values.detach()) + 0 * values


@pytest.mark.parametrize(
    "activation",
    [NearlyGelu(), GeluOfTwo(), WrongBackwardGelu(), QuickGELUActivation(), ClippedGELUActivation(-1, 1), nn.GELU()],
)
def test_what_is_not_equal_stays(activation):
    model = nn.Sequential(nn.Linear(2, 2), activation)
    assert fuse_activations(model) == 0 and model[1] is activation


def test_an_activation_that_is_looked_at_stays():
    activation = NewGELUActivation()
    activation.register_forward_hook(lambda *_: None)
    assert fuse_activations(nn.Sequential(activation)) == 0
    assert fuse_activations(nn.Sequential(NewGELUActivation())) == 1


class ScaledGelu(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.scale = scale

    def forward(self, values):
        return nn.functional.gelu(values * self.scale)


def test_two_of_a_class_are_judged_each_by_itself():
    model = nn.Sequential(ScaledGelu(1.0), ScaledGelu(2.0))
    assert fuse_activations(model) == 1
    assert isinstance(model[0], Fused) and isinstance(model[1], ScaledGelu)
