"""Trainings of many tenants side by side: each as `fit` makes it alone."""

import copy

import pytest
import torch
from datasets import Dataset

from biasline.bitfit import BiasDelta, tune_biases
from biasline.errors import BiaslineError
from biasline.params import ResolvedTrain
from biasline.training.batches import Plan
from biasline.training.fleet import Tenant, fit_fleet
from biasline.training.loop import Sets, fit
from biasline.training.loss import ResponseTokens
from tests.training.test_loop import token_set

PARAMS = {
    "biases": "attention+mlp",
    "learning_rate": 1e-2,
    "head_learning_rate": 1e-2,
    "batch_size": 4,
    "epochs": 2,
    "min_steps": 6,
    "evaluate_every": 3,
}
ROWS, VALID = token_set(60), token_set(20, seed=1)


def params(**others):
    return ResolvedTrain(**{**PARAMS, **others})


def tenants(count=5):
    """Each of another number of rows."""
    starts = [0, 20, 25, 40, 48, 60]
    return [
        Tenant(f"t{number}", range(starts[number], starts[number + 1]), range(4 * number, 4 * number + 4))
        for number in range(count)
    ]


def delta_of(model, tuning):
    delta = BiasDelta.of(tuning)
    delta.revert(model)
    return delta


@pytest.fixture
def start(bloom):
    """A little trained on all rows."""
    tuning = tune_biases(bloom, "attention+mlp")
    settings = params(epochs=1)
    fit(bloom, tuning, Plan.of(60, settings), Sets(ROWS, VALID, ResponseTokens(), 3), settings, lambda *_: None)
    return delta_of(bloom, tuning)


def alone(bloom, start, tenant, settings):
    model = copy.deepcopy(bloom)
    tuning = tune_biases(model, "attention+mlp")
    for entry in tuning.entries:
        entry.write(model.get_parameter(entry.name), start.tensors[entry.key])
    tuning.read()
    sets = Sets(ROWS.select(tenant.train), VALID.select(tenant.valid), ResponseTokens(), 3)
    history = fit(model, tuning, Plan.of(len(tenant.train), settings), sets, settings, lambda *_: None)
    return history, tuning.values()


def in_one_pass(bloom, start, chosen, settings, slots, sets=None):
    sets = sets or Sets(ROWS, VALID, ResponseTokens(), 3)
    return {found.tenant: found for found in fit_fleet(bloom, start, chosen, sets, settings, slots)}


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_each_tenant_is_trained_as_alone_whoever_shares_its_steps(bloom, start, slots):
    settings = params()
    before = {name: value.clone() for name, value in bloom.state_dict().items()}
    found = in_one_pass(bloom, start, tenants(), settings, slots)
    assert list(found) and set(found) == {tenant.name for tenant in tenants()}
    for tenant in tenants():
        history, values = alone(bloom, start, tenant, settings)
        one = found[tenant.name]
        assert one.steps == history.rows[-1]["step"] and one.kept_step == history.best_step
        assert one.loss == pytest.approx(history.best_loss, abs=1e-5)
        for key, expected in values.items():
            assert torch.allclose(one.delta.tensors[key], expected, atol=1e-5, rtol=2e-5), (tenant.name, key)
            assert not torch.equal(expected, start.tensors[key])
    assert all(torch.equal(value, before[name]) for name, value in bloom.state_dict().items())


def test_the_same_fleet_gives_the_same_bytes(bloom, start, tmp_path):
    files = []
    for name in ("one", "two"):
        found = in_one_pass(bloom, start, tenants(), params(), 2)
        for tenant, one in found.items():
            one.delta.save(tmp_path / f"{name}-{tenant}")
        files.append([(tmp_path / f"{name}-{tenant.name}").read_bytes() for tenant in tenants()])
    assert files[0] == files[1]


def test_a_tenant_ends_early_by_its_own_looks(bloom, start):
    settings = params(epochs=12, patience=2, learning_rate=5e-2)
    found = in_one_pass(bloom, start, tenants(3), settings, 3)
    for tenant in tenants(3):
        history, _ = alone(bloom, start, tenant, settings)
        assert found[tenant.name].steps == history.rows[-1]["step"]
        assert found[tenant.name].kept_step == history.best_step
    assert len({one.steps for one in found.values()}) > 1


def test_how_good_the_shared_delta_was_is_told(bloom, start):
    found = in_one_pass(bloom, start, tenants(2), params(), 2)
    sets = Sets(ROWS, VALID, ResponseTokens(), 3)
    with start.applied(bloom), torch.no_grad():
        for tenant in tenants(2):
            rows = [VALID[place] for place in tenant.valid]
            batch = sets.objective.collate(rows, 3)
            expected = float(sets.objective.losses(bloom, batch).mean())
            assert found[tenant.name].start_loss == pytest.approx(expected, abs=1e-5)
            assert found[tenant.name].loss < expected


def test_without_validation_rows_the_last_step_is_kept(bloom, start):
    chosen = [Tenant("a", range(9)), Tenant("b", range(9, 20), range(4))]
    found = in_one_pass(bloom, start, chosen, params(), 2)
    assert found["a"].kept_step == found["a"].steps == 6 and found["a"].loss is found["a"].start_loss is None
    assert found["b"].loss is not None


class Endless(ResponseTokens):
    """One row's loss is infinite, and its gradient nothing out of the way."""

    def losses(self, model, batch):
        losses = super().losses(model, batch)
        odd = torch.tensor([row == 50 for row in batch.rows]).repeat_interleave((batch.labels[:, 1:] >= 0).sum(1))
        return losses + torch.where(odd, float("inf"), 0.0)


def test_a_loss_that_is_not_finite_fails_whatever_its_gradient(bloom, start):
    found = in_one_pass(bloom, start, tenants(5), params(epochs=1), 5, Sets(ROWS, VALID, Endless(), 3))
    assert "not finite on the rows" in found["t4"].failed and "50" in found["t4"].failed
    assert all(found[f"t{number}"].delta is not None for number in range(4))


def test_no_dropout_and_the_model_is_left_as_it_was(bloom, start):
    expected = in_one_pass(bloom, start, tenants(2), params(epochs=1), 2)
    for module in bloom.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    for layer in bloom.transformer.h:
        layer.hidden_dropout = layer.self_attention.hidden_dropout = layer.mlp.hidden_dropout = 0.5
    bloom.train()
    wanted = [part.requires_grad for part in bloom.parameters()]
    found = in_one_pass(bloom, start, tenants(2), params(epochs=1), 2)
    for name, one in expected.items():
        for key, values in one.delta.tensors.items():
            assert torch.equal(found[name].delta.tensors[key], values)
    assert bloom.training and [part.requires_grad for part in bloom.parameters()] == wanted


class Broken(ResponseTokens):
    """Rows of one tenant have no finite loss from some step on."""

    def losses(self, model, batch):
        losses = super().losses(model, batch)
        odd = torch.tensor([row > 45 for row in batch.rows]).repeat_interleave((batch.labels[:, 1:] >= 0).sum(1))
        return losses * torch.where(odd, float("nan"), 1.0)


def test_one_tenant_fails_and_the_rest_go_on(bloom, start):
    chosen = tenants(5)
    expected = in_one_pass(bloom, start, chosen, params(), 5)
    found = in_one_pass(bloom, start, chosen, params(), 5, Sets(ROWS, VALID, Broken(), 3))
    assert found["t4"].delta is None and found["t4"].failed.startswith(
        "step 1: loss or gradient not finite on the rows 4"
    )
    assert found["t3"].delta is None
    for name in ("t0", "t1", "t2"):
        for key, values in expected[name].delta.tensors.items():
            assert torch.allclose(found[name].delta.tensors[key], values, atol=1e-5, rtol=2e-5)


def test_a_tenant_without_rows_is_refused(bloom, start):
    with pytest.raises(BiaslineError, match="tenant 'x': no row to train on"):
        list(fit_fleet(bloom, start, [Tenant("x", [])], Sets(ROWS, VALID, ResponseTokens(), 3), params(), 1))


@pytest.mark.parametrize(("animal", "inject"), [("phi", ""), ("gemma2", "lm_head+value"), ("llama", "lm_head+value")])
def test_biases_of_the_output_embedding_are_each_tenants_own(animal, inject):
    """Logits of supervised tokens alone would be made from rows that are no longer told apart."""
    from tests.bitfit.zoo import build

    model, choice = build(animal), {"roles": "lm_head+value", "inject": inject}
    tuning = tune_biases(model, **choice)
    with torch.no_grad():
        tuning.master.add_(0.1)
    tuning.write()
    start = delta_of(model, tuning)
    words = [[3 + (number * place) % 30 for place in range(1, 6 + number % 3)] for number in range(12)]
    few = Dataset.from_dict({"row": list(range(12)), "input_ids": words, "labels": words})
    settings = params(biases="lm_head+value", inject=inject, batch_size=2, epochs=1, min_steps=3)
    sets = Sets(few, few.select([]), ResponseTokens(), 0)
    chosen = [Tenant("a", range(6)), Tenant("b", range(6, 12))]
    found = in_one_pass(model, start, chosen, settings, 2, sets)
    for tenant in chosen:
        own = copy.deepcopy(model)
        tuning = tune_biases(own, **choice)
        for entry in tuning.entries:
            entry.write(own.get_parameter(entry.name), start.tensors[entry.key])
        tuning.read()
        part = Sets(few.select(tenant.train), few.select([]), ResponseTokens(), 0)
        fit(own.train(), tuning, Plan.of(6, settings), part, settings, lambda *_: None)
        for key, values in tuning.values().items():
            assert torch.allclose(found[tenant.name].delta.tensors[key], values, atol=2e-5, rtol=1e-4), key
