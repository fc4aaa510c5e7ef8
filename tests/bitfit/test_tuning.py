import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from biasline.bitfit import tune_biases
from biasline.bitfit.inventory import Bias
from biasline.bitfit.roles import Fused, Heads


def one_step(model, tuning, learning_rate=1e-2):
    torch.manual_seed(1)
    ids = torch.randint(4, 100, (4, 9))
    model(input_ids=ids, labels=ids).loss.backward()
    tuning.collect()
    torch.optim.AdamW([tuning.master], lr=learning_rate, weight_decay=0.0).step()
    tuning.write()


@pytest.mark.parametrize("roles", ["all", "query+mlp_in", "value", "key", "norm"])
def test_only_selected_entries_change_and_all_else_is_byte_identical(bloom, roles):
    before = {name: parameter.detach().clone() for name, parameter in bloom.named_parameters()}
    tuning = tune_biases(bloom, roles)
    one_step(bloom, tuning)
    selected: dict[str, torch.Tensor] = {}
    for bias in tuning.selection.biases:
        chosen = selected.setdefault(bias.name, torch.zeros(bias.shape, dtype=torch.bool).flatten())
        chosen[bias.read(torch.arange(chosen.numel()))] = True
    for name, parameter in bloom.named_parameters():
        changed = parameter.detach().flatten() != before[name].flatten()
        if name not in selected:
            assert not changed.any(), name
        else:
            assert not changed[~selected[name]].any(), name
    assert any((parameter != before[name]).any() for name, parameter in bloom.named_parameters())


def test_gradients_are_computed_for_biases_only(bloom):
    tuning = tune_biases(bloom, "query+mlp_in")
    wanting = {name for name, parameter in bloom.named_parameters() if parameter.requires_grad}
    assert wanting == {bias.name for bias in tuning.selection.biases}


def test_masters_keep_updates_that_bf16_would_lose(bloom):
    bloom.to(torch.bfloat16)
    tuning = tune_biases(bloom, "norm")
    tuning.master.data.fill_(1.0)
    for _ in range(100):
        tuning.master.data.add_(1e-3)
        tuning.write()
    assert tuning.master[0].item() == pytest.approx(1.1, abs=1e-4)
    norm = bloom.transformer.ln_f.bias
    assert norm.dtype == torch.bfloat16
    assert norm[0].item() == pytest.approx(1.1, abs=5e-3)


def test_a_bias_without_a_part_in_the_loss_counts_as_zero(bloom):
    tuning = tune_biases(bloom, "all")
    tuning.master.grad.fill_(7.0)
    tuning.collect()
    assert tuning.master.grad.abs().sum() == 0


def test_gradient_norms_by_role_add_up(bloom):
    tuning = tune_biases(bloom, "all")
    tuning.master.grad.normal_()
    total = sum(norm**2 for norm in tuning.gradient_norms().values()) ** 0.5
    assert total == pytest.approx(tuning.master.grad.norm().item(), rel=1e-5)


def test_a_new_head_is_trained_whole_and_counted_apart():
    from transformers import BertConfig, BertForSequenceClassification

    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1, "intermediate_size": 64}
    model = BertForSequenceClassification(BertConfig(**sizes, vocab_size=100, num_labels=3))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    tuning = tune_biases(model, "value", head=("classifier.weight", "classifier.bias"))
    assert tuning.head_count == 3 * 32 + 3
    assert tuning.selection.count == 32
    ids = torch.randint(4, 100, (4, 9))
    model(input_ids=ids, labels=torch.tensor([0, 1, 2, 0])).loss.backward()
    tuning.collect()
    torch.optim.AdamW(tuning.masters, lr=1e-2, weight_decay=0.0).step()
    tuning.write()
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {"classifier.weight", "classifier.bias", "bert.encoder.layer.0.attention.self.value.bias"}


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.data())
def test_writing_a_part_leaves_the_rest(heads, width, data):
    length = 3 * heads * width
    part = data.draw(st.sampled_from(["query", "key", "value"]))
    layout = data.draw(st.sampled_from(["interleaved", "concatenated"]))
    bias = Bias("b", part, 0, (length,), Fused(layout).cuts(length, Heads(heads, heads))[part])
    parameter = torch.randn(length)
    before, values = parameter.clone(), torch.randn(bias.count)
    bias.write(parameter, values)
    assert torch.equal(bias.read(parameter), values)
    rest = torch.ones(length, dtype=torch.bool)
    rest[bias.read(torch.arange(length))] = False
    assert torch.equal(parameter[rest], before[rest])
