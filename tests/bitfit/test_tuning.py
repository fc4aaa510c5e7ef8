import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from biasline.bitfit import BiasDelta, tune_biases
from biasline.bitfit.inventory import Bias
from biasline.bitfit.roles import Fused, Heads
from biasline.errors import BiaslineError


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


def stepped(model, tuning, ids, **more):
    optimizer = tuning.optimizer(lr=1e-2, **more)
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    return optimizer


IDS = torch.randint(4, 100, (4, 9), generator=torch.Generator().manual_seed(1))


def moved(tuning):
    return {key: int((value != tuning.originals[key].float()).sum()) for key, value in tuning.values().items()}


def test_one_base_is_tuned_for_one_task_after_the_other(bloom):
    """What one tuning leaves behind must not hold the next one back."""
    wanted = {name: part.requires_grad for name, part in bloom.named_parameters()}
    for roles in ("value", "query", "all"):
        tuning = tune_biases(bloom, roles)
        stepped(bloom, tuning, IDS)
        counts = moved(tuning)
        assert all(counts.values()), counts
        BiasDelta.of(tuning).revert(bloom)
        assert {name: part.requires_grad for name, part in bloom.named_parameters()} == wanted
    bloom(input_ids=IDS, labels=IDS).loss.backward()
    fused = bloom.transformer.h[0].self_attention.query_key_value.bias.grad.view(4, 3, 8)
    assert fused[:, 0].any() and fused[:, 2].any(), "a gradient is masked though nothing is tuned"


def test_asking_for_an_optimizer_again_takes_the_old_masks_off(bloom):
    tuning = tune_biases(bloom, "value")
    for _ in range(3):
        tuning.optimizer(lr=1e-2)
    assert len(tuning.traces.hooks) == 2


def test_a_tuned_model_is_not_tuned_again_before_it_is_reverted(bloom):
    BiasDelta.of(tune_biases(bloom, "value"))
    with pytest.raises(BiaslineError, match="a delta is applied to this model → revert it first"):
        tune_biases(bloom, "query")


def test_the_optimizer_does_what_a_loop_written_by_hand_does(bloom):
    """Clipping by the model's gradients, accumulation and a schedule, on fused biases that are trained in part."""
    import copy

    other = copy.deepcopy(bloom)
    tuning = tune_biases(bloom, "value+mlp_in")
    optimizer = tuning.optimizer(lr=1e-2)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, 4)
    hand = tune_biases(other, "value+mlp_in")
    plain = torch.optim.AdamW([hand.master], lr=1e-2, weight_decay=0.0)
    rates = torch.optim.lr_scheduler.LinearLR(plain, 1.0, 0.1, 4)
    for step in range(4):
        for part in (IDS[:2], IDS[2:]):
            (bloom(input_ids=part, labels=part).loss / 2 * 50).backward()
            (other(input_ids=part, labels=part).loss / 2 * 50).backward()
        total = torch.nn.utils.clip_grad_norm_([p for p in bloom.parameters() if p.requires_grad], 0.5)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        hand.collect()
        assert total == pytest.approx(float(hand.master.grad.norm()), rel=1e-5), step
        torch.nn.utils.clip_grad_norm_([hand.master], 0.5)
        plain.step()
        hand.write()
        rates.step()
    assert torch.allclose(tuning.master, hand.master, rtol=1e-5, atol=1e-7)


def test_weights_do_not_decay_unless_asked_and_the_head_has_a_rate_of_its_own():
    from tests.bitfit.zoo import build

    tuning = tune_biases(build("bert"), "value", head="train")
    optimizer = tuning.optimizer(lr=1e-2, head_lr=1e-3)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(1e-2, 0.0), (1e-3, 0.0)]
    assert tuning.optimizer(lr=1.0, weight_decay=0.1).param_groups[0]["weight_decay"] == 0.1
    assert "weight_decay" not in tuning.optimizer(torch.optim.Rprop, lr=1.0).param_groups[0]


def test_a_skipped_step_leaves_nothing_behind(bloom):
    tuning = tune_biases(bloom, "norm")
    optimizer = tuning.optimizer(torch.optim.SGD, lr=1.0)
    (bloom(input_ids=IDS, labels=IDS).loss * 1e6).backward()
    optimizer.zero_grad()
    optimizer.step()
    assert not any(moved(tuning).values())


def test_a_closure_and_a_gradient_scaler_are_refused(bloom):
    tuning = tune_biases(bloom, "norm")
    optimizer = tuning.optimizer(lr=1e-2)
    with pytest.raises(BiaslineError, match="takes no closure"):
        optimizer.step(lambda: bloom(input_ids=IDS, labels=IDS).loss)
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(bloom(input_ids=IDS, labels=IDS).loss).backward()
    with pytest.raises(AssertionError, match="No inf checks"):
        scaler.step(optimizer)


def test_values_loaded_from_a_checkpoint_are_what_training_goes_on_from(bloom):
    tuning = tune_biases(bloom, "value+norm")
    optimizer = stepped(bloom, tuning, IDS)
    saved = {name: value.clone() for name, value in bloom.state_dict().items()}
    kept = tuning.values()
    for _ in range(3):
        bloom(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()
    assert any(not torch.equal(kept[key], value) for key, value in tuning.values().items())
    bloom.load_state_dict(saved)
    best = BiasDelta.of(tuning)
    assert all(torch.equal(best.tensors[key], value) for key, value in kept.items())


def test_parameters_that_share_memory_have_one_gradient_together():
    class Twice(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
            self.b.bias = torch.nn.Parameter(self.a.bias.data)

        def forward(self, x):
            return self.a(x) + 2 * self.b(x)

    model = Twice()
    tuning = tune_biases(model)
    model(torch.zeros(1, 2)).sum().backward()
    tuning.collect()
    assert tuning.master.grad.tolist() == [3.0, 3.0, 3.0]


@pytest.mark.parametrize("wrap", [torch.nn.DataParallel, torch.compile])
def test_a_wrapper_is_looked_through(bloom, wrap):
    tuning = tune_biases(wrap(bloom), "value")
    assert {bias.name.split(".")[0] for bias in tuning.selection.biases} == {"transformer"}
    delta = BiasDelta.of(tuning)
    delta.revert(wrap(bloom))
    delta.apply(bloom)


@pytest.mark.parametrize("head", ["Train", "new", "classifier.weight"])
def test_a_misspelled_head_is_told(bloom, head):
    with pytest.raises(BiaslineError, match="expected auto, train, keep"):
        tune_biases(bloom, head=head)


def test_a_head_that_is_not_there_is_told_and_nothing_is_injected():
    from tests.bitfit.zoo import build

    model = build("llama")
    before = list(model.state_dict())
    with pytest.raises(BiaslineError, match=r"head: the model has no parameter nope\.weight"):
        tune_biases(model, inject="all", head=["nope.weight"])
    assert list(model.state_dict()) == before


def test_what_keep_says_holds_for_the_heads_biases_too():
    from tests.bitfit.zoo import build

    with pytest.raises(BiaslineError, match="nothing but the head"):
        tune_biases(build("bert"), "head", head="keep")


def test_a_model_without_values_is_told(bloom):
    with torch.device("meta"):
        empty = type(bloom)(bloom.config)
    with pytest.raises(BiaslineError, match="meta device"):
        tune_biases(empty)
    with pytest.raises(BiaslineError, match=r"0\.weight has no shape as yet"):
        tune_biases(torch.nn.Sequential(torch.nn.LazyLinear(3)))


def test_a_cast_after_training_began_is_told(bloom):
    tuning = tune_biases(bloom, "value")
    bloom.to(torch.bfloat16)
    with pytest.raises(BiaslineError, match="cast after training began"):
        BiasDelta.of(tuning)
