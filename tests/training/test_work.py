"""Only the work that bias gradients need: nothing is computed or kept for weights that are frozen."""

import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers import BloomConfig, BloomForCausalLM

from biasline.bitfit import tune_biases
from biasline.params import Run
from biasline.training import devices
from biasline.training import loss as losses
from biasline.training.loss import ResponseTokens, plain_logits, target_losses
from biasline.training.prepare import prepare
from tests.training.test_loop import token_set


@pytest.fixture
def batch():
    return ResponseTokens().collate(token_set(6).to_list(), 3)


def prepared(model, run=None, **choice):
    from accelerate import Accelerator

    tuning = tune_biases(model, **choice)
    prepare(model, tuning.masters, run or Run(), Accelerator())
    return tuning


def kept(model, work):
    """What autograd keeps for the backward pass, by address; and inputs of linear layers, by address → name."""
    saved, inputs, hooks = {}, {}, []
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):

            def note(_, args, name=name):
                inputs[args[0].data_ptr()] = (name, args[0])  # held, so that no other tensor gets its address

            hooks.append(module.register_forward_pre_hook(note))

    def pack(tensor):
        saved[tensor.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        work().sum().backward()
    for hook in hooks:
        hook.remove()
    return saved, inputs


def test_no_weight_gets_a_gradient_and_no_input_of_a_linear_layer_is_kept(bloom, batch):
    prepared(bloom)
    saved, inputs = kept(bloom, lambda: ResponseTokens().losses(bloom, batch))
    assert {name for name, _ in inputs.values()} >= {"transformer.h.0.mlp.dense_4h_to_h", "lm_head"}
    assert not {inputs[place][0] for place in saved.keys() & inputs.keys()}
    for name, part in bloom.named_parameters():
        assert part.grad is None or name.endswith("bias"), name


def test_full_tuning_keeps_them(bloom, batch):
    """What the test above would find."""
    bloom.requires_grad_(True)
    saved, inputs = kept(bloom, lambda: ResponseTokens().losses(bloom, batch))
    assert len(saved.keys() & inputs.keys()) >= 8


@pytest.mark.parametrize("recompute", [False, True])
def test_nothing_goes_back_below_the_lowest_layer_that_is_trained(bloom, batch, recompute):
    prepared(bloom, Run(recompute=recompute), layers="1")
    bloom.train(recompute)
    outputs = []
    for layer in bloom.transformer.h:
        layer.register_forward_hook(lambda _, args, output: outputs.append(output[0]))
    saved, _ = kept(bloom, lambda: ResponseTokens().losses(bloom, batch))
    lower, upper = outputs
    assert not lower.requires_grad and lower.grad_fn is None and upper.requires_grad
    if not recompute:
        tune_biases(bloom)
        every, _ = kept(bloom, lambda: ResponseTokens().losses(bloom, batch))
        assert len(saved) < 0.6 * len(every)


def plain(model, batch):
    return target_losses(*plain_logits(model, batch))


@pytest.mark.parametrize("entries", [1, 700, 2**21])
def test_losses_and_gradients_are_the_plain_ones_whatever_the_chunks(bloom, batch, monkeypatch, entries):
    monkeypatch.setattr(devices, "_CPU", replace(devices._CPU, logits=entries))
    monkeypatch.setattr(losses, "_LEAST", 1)
    tuning = tune_biases(bloom)
    found = []
    for way in (plain, losses.chunked_losses):
        given = way(bloom, batch)
        # Targets that count differently, as with weights.
        (given * torch.linspace(0.5, 2, len(given))).sum().backward()
        tuning.collect()
        found.append((given.detach(), tuning.master.grad.clone()))
    for short, whole in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(short, whole, rtol=1e-5, atol=1e-6)


def test_logits_of_all_targets_never_exist_together(bloom, batch, monkeypatch):
    monkeypatch.setattr(devices, "_CPU", replace(devices._CPU, logits=400))
    monkeypatch.setattr(losses, "_LEAST", 1)
    tune_biases(bloom)
    sizes = []
    bloom.lm_head.register_forward_hook(lambda _, args, output: sizes.append(output.numel()))
    losses.chunked_losses(bloom, batch).sum().backward()
    assert max(sizes) == 400 and sum(sizes) == (18 + 1) * 100


def test_a_trained_output_embedding_gets_its_gradient(bloom, batch):
    bloom.requires_grad_(True)
    gradients = []
    for way in (plain, ResponseTokens().losses):
        args = (bloom, batch)
        way(*args).sum().backward()
        gradients.append(bloom.lm_head.weight.grad.clone())
        bloom.zero_grad()
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-6)


def test_a_model_that_scales_its_logits_is_noticed(bloom, batch):
    """It gets logits of supervised tokens through its own forward pass: the chunks would leave the scale out."""
    forward = bloom.forward

    def scaled(**inputs):
        output = forward(**inputs)
        output.logits = output.logits * 3
        return output

    bloom.forward = scaled
    tune_biases(bloom)
    objective = ResponseTokens()
    assert objective.check(bloom, batch) == ""
    assert torch.allclose(objective.losses(bloom, batch), plain(bloom, batch), atol=1e-6)


def test_recomputed_activations_give_the_same_gradients(bloom, batch):
    found = []
    for run in (Run(), Run(recompute=True)):
        tuning = prepared(bloom, run)
        bloom.train()
        saved, _ = kept(bloom, lambda: ResponseTokens().losses(bloom, batch))
        tuning.collect()
        found.append((tuning.master.grad.clone(), len(saved)))
    assert torch.equal(found[0][0], found[1][0])
    assert found[1][1] < found[0][1]


def test_one_process_has_nothing_to_spread_a_base_over(bloom):
    from biasline.errors import BiaslineError

    with pytest.raises(BiaslineError, match="run.shard: there is one process"):
        prepared(bloom, Run(shard=True))


@pytest.mark.slow
def test_compiled_layers_give_the_same_gradients(bloom, batch):
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        pytest.skip("no C++ compiler")
    found = []
    for run in (Run(), Run(compile=True)):
        tuning = prepared(bloom, run)
        ResponseTokens().losses(bloom, batch).sum().backward()
        tuning.collect()
        found.append(tuning.master.grad.clone())
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-6)
    assert all(layer._compiled_call_impl for layer in bloom.transformer.h)


@pytest.mark.slow
def test_layers_that_differ_in_what_needs_gradients_are_all_compiled(batch):
    """In training and in evaluation, with gradients and without: more kinds than torch.compile allows by itself."""
    if not any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        pytest.skip("no C++ compiler")
    torch.manual_seed(0)
    model = BloomForCausalLM(BloomConfig(vocab_size=100, hidden_size=32, n_layer=4, n_head=4, pad_token_id=3))
    prepared(model, Run(compile=True), layers="2-")
    objective = ResponseTokens()
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
        for training in (True, False, True):
            model.train(training)
            for rows in (batch, batch.part(slice(1)), batch.part(slice(3))):
                with torch.set_grad_enabled(training):
                    found = objective.losses(model, rows).sum()
                if training:
                    found.backward()
