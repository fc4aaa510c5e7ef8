"""Many trainings in one pass are those trainings."""

import pytest
import torch
from torch.nn import functional

from biasline.bitfit import Bank, BankTuning, BiasDelta, tune_biases
from biasline.errors import BiaslineError
from tests.bitfit.test_bank import moved
from tests.bitfit.zoo import build, ids

RATES = {"tuned": 5e-3, "scales": 2e-3, "head": 1e-2}
CHOICE = {"roles": "attention+mlp+scale+norm_scale", "head": "train"}
MAX_NORM = 0.05
STEPS = 4


def starts(model, count):
    """A start of its own for each, some of another choice of biases."""
    choices = [CHOICE, {**CHOICE, "roles": "query+mlp_in"}]
    return [moved(model, seed, **choices[seed % 3 == 2]) for seed in range(count)]


def rows(tenant, step):
    """Some rows of a tenant, their number its own, and labels."""
    generator = torch.Generator().manual_seed(1_000 * tenant + step)
    count = 1 + (tenant + step) % 3
    tokens = torch.randint(3, 40, (count, 7), generator=generator)
    return tokens, torch.randint(0, 2, (count,), generator=generator)


def rates(tenant, step):
    return {name: rate * (1 + tenant % 4) / (1 + step) for name, rate in RATES.items()}


def alone(start, tenant, steps=STEPS):
    """As the training loop does it: masters, torch's own AdamW and clipping."""
    model = build("bert")
    roles = start.manifest.selection["roles"]
    tuning = tune_biases(model, roles, head="train")
    start_values = start.tensors
    with torch.no_grad():
        for entry in tuning.entries:
            entry.write(model.get_parameter(entry.name), start_values[entry.key])
    tuning.read()
    names = [name for name, masters in tuning.groups.items() if masters]
    optimizer = torch.optim.AdamW([{"params": tuning.groups[name], "name": name} for name in names], weight_decay=0.0)
    norms = []
    for step in range(steps):
        tokens, labels = rows(tenant, step)
        functional.cross_entropy(model(input_ids=tokens).logits, labels).backward()
        tuning.collect()
        norms.append(float(torch.nn.utils.clip_grad_norm_(tuning.masters, MAX_NORM)))
        for group in optimizer.param_groups:
            group["lr"] = rates(tenant, step)[group["name"]]
        optimizer.step()
        tuning.write()
    return tuning.values(), norms


def one_step(bank, tuning, of):
    """A step of some tenants; `of` is slot → (tenant, step)."""
    batches = {slot: rows(*which) for slot, which in of.items()}
    slots = [slot for slot, (tokens, _) in batches.items() for _ in tokens]
    with bank.rows(slots):
        logits = bank.model(input_ids=torch.cat([tokens for tokens, _ in batches.values()])).logits
    losses = functional.cross_entropy(logits, torch.cat([labels for _, labels in batches.values()]), reduction="none")
    shares = torch.tensor([1 / len(batches[slot][0]) for slot in slots])
    (losses * shares).sum().backward()
    return tuning.step({slot: rates(*which) for slot, which in of.items()})


@pytest.mark.parametrize("count", [1, 3, 64])
def test_tenants_in_one_pass_are_each_trained_as_alone(count):
    model = build("bert")
    deltas = starts(model, count)
    bank = Bank(model, slots=count)
    for tenant, delta in enumerate(deltas):
        bank.put(tenant + 1, delta)
    tuning = BankTuning(bank, max_norm=MAX_NORM)
    for tenant in range(count):
        tuning.begin(tenant + 1)
    norms = [one_step(bank, tuning, {tenant + 1: (tenant, step) for tenant in range(count)}) for step in range(STEPS)]
    clipped = 0
    for tenant in range(0, count, max(1, count // 8)):
        expected, told = alone(deltas[tenant], tenant)
        found = bank.take(tenant + 1)
        assert found.tensors.keys() == expected.keys()
        for key, values in expected.items():
            assert torch.allclose(found.tensors[key], values, atol=1e-5, rtol=2e-5), (tenant, key)
            assert not torch.equal(values, deltas[tenant].tensors[key])
        assert [step[tenant + 1] for step in norms] == pytest.approx(told, rel=1e-3)
        clipped += max(told) > MAX_NORM
    assert clipped


def test_slots_go_on_at_different_steps_and_a_checkpoint_brings_one_back():
    model = build("bert")
    deltas = starts(model, 2)
    bank = Bank(model, slots=3)
    tuning = BankTuning(bank, max_norm=MAX_NORM)
    bank.put(1, deltas[0])
    tuning.begin(1)
    one_step(bank, tuning, {1: (0, 0)})
    bank.put(2, deltas[1])
    tuning.begin(2)
    one_step(bank, tuning, {1: (0, 1), 2: (1, 0)})
    one_step(bank, tuning, {2: (1, 1)})
    kept, state = bank.take(1), tuning.state(1)
    assert state.steps == 2
    bank.clear(1)
    bank.put(3, kept)
    tuning.begin(3, state)
    one_step(bank, tuning, {3: (0, 2), 2: (1, 2)})
    one_step(bank, tuning, {3: (0, 3), 2: (1, 3)})
    for slot, tenant in ((3, 0), (2, 1)):
        expected, _ = alone(deltas[tenant], tenant)
        for key, values in bank.take(slot).tensors.items():
            assert torch.allclose(values, expected[key], atol=1e-5, rtol=0), (slot, key)


def test_a_wider_delta_may_come_while_others_are_trained():
    """What Adam remembers of the others stays theirs, in another bank as well."""
    model = build("bert")
    narrow, wide = moved(model, 2, roles="query", head="keep"), moved(model, 1, **CHOICE)
    banks = [Bank(model, slots=2) for _ in range(3)]
    tunings = [BankTuning(bank, max_norm=MAX_NORM) for bank in banks]
    early, late, moved_on = banks
    early.put(1, wide)
    for bank, tuning in zip(banks[:2], tunings[:2], strict=True):
        bank.put(2, narrow)
        tuning.begin(2)
        one_step(bank, tuning, {2: (5, 0)})
    late.put(1, wide)
    tunings[0].begin(1)
    tunings[1].begin(1)
    kept, state = late.take(2), tunings[1].state(2)
    for bank, tuning in zip(banks[:2], tunings[:2], strict=True):
        one_step(bank, tuning, {1: (1, 0), 2: (5, 1)})
    moved_on.put(1, kept)  # alone there
    tunings[2].begin(1, state)
    one_step(moved_on, tunings[2], {1: (5, 1)})
    for slot, other, place in ((1, late, 1), (2, late, 2), (2, moved_on, 1)):
        for key, values in early.take(slot).tensors.items():
            assert torch.allclose(other.take(place).tensors[key], values, atol=1e-6), key
    assert not torch.equal(late.take(2).tensors[key], kept.tensors[key])
    assert tunings[1].state(2).steps == 2


def test_the_next_tenant_of_a_slot_gets_no_gradient_of_the_last_one():
    model = build("bert")
    deltas = starts(model, 2)
    norms = []
    for before in (False, True):
        bank = Bank(model, slots=1)
        bank.put(1, deltas[0])
        tuning = BankTuning(bank)
        tuning.begin(1)
        if before:
            with bank.rows([1]):
                model(input_ids=ids(1)).logits.square().sum().backward()
        bank.clear(1)
        bank.put(1, deltas[1])
        tuning.begin(1)
        norms.append(one_step(bank, tuning, {1: (1, 0)})[1])
    assert norms[0] == pytest.approx(norms[1], rel=1e-6)


def test_what_was_not_begun_is_not_stepped():
    bank = Bank(build("bert"), slots=1)
    bank.put(1, moved(bank.model, 1, roles="value", head="keep"))
    tuning = BankTuning(bank)
    assert tuning.step({}) == {}
    with pytest.raises(BiaslineError, match="slot 1: nothing of it is trained"):
        tuning.step({1: RATES})


def test_a_slot_whose_gradient_is_not_finite_stays_as_it_was_and_the_rest_go_on():
    model = build("bert")
    deltas = starts(model, 2)
    bank = Bank(model, slots=2)
    for slot, delta in enumerate(deltas, 1):
        bank.put(slot, delta)
    tuning = BankTuning(bank, max_norm=MAX_NORM)
    for slot in (1, 2):
        tuning.begin(slot)
    with bank.rows([1, 2]):
        logits = model(input_ids=ids(2)).logits
    (logits.sum(1) * torch.tensor([float("nan"), 1.0])).sum().backward()
    norms = tuning.step({slot: RATES for slot in (1, 2)})
    assert norms[1] != norms[1] and norms[2] > 0
    assert all(torch.equal(values, deltas[0].tensors[key]) for key, values in bank.take(1).tensors.items())
    assert any(not torch.equal(values, deltas[1].tensors[key]) for key, values in bank.take(2).tensors.items())
    assert tuning.state(1).steps == 0 and not any(part.any() for part in tuning.state(1).mean.values())


def test_what_is_not_of_the_delta_or_not_asked_does_not_move():
    model = build("bert")
    value, wide = moved(model, 1, roles="value", head="keep"), moved(model, 2, **CHOICE)
    bank = Bank(model, slots=3)
    for slot, delta in ((1, value), (2, wide), (3, wide)):
        bank.put(slot, delta)
    tuning = BankTuning(bank)
    for slot in (1, 2, 3):
        tuning.begin(slot)
    before = bank.table.detach().clone()
    with bank.rows([1, 2, 3, 0]):
        model(input_ids=ids(4)).logits.square().sum().backward()
    tuning.step({1: RATES, 2: RATES})
    moves = bank.table.detach() != before
    own = torch.cat([numbers for _, numbers in bank.columns(1).values()])
    assert moves[1, own].all() and int(moves[1].sum()) == len(own)
    assert moves[2].any() and not moves[3].any() and not moves[0].any()
    tuning.end()
    assert not bank.table.requires_grad and bank.table.grad is None
    with pytest.raises(BiaslineError, match="slot 3"):
        bank.clear(3)
        tuning.begin(3)
    assert isinstance(bank.take(1), BiasDelta)
