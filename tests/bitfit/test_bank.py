"""Many deltas on one model at once: each row of a batch as if its delta alone were applied."""

import threading

import pytest
import torch

from biasline.bitfit import Bank, BiasDelta, inspect_biases, tune_biases
from biasline.errors import BiaslineError
from tests.bitfit.zoo import ALL_LINEAR, ZOO, build, ids, logits

CAUSAL = [name for name in ZOO if not inspect_biases(build(name)).head and not name.startswith("bert-")]
SLOTS = [2, 0, 1, 3, 1]


def bare(animal):
    return bool(set(ZOO[animal].missing) & set(ALL_LINEAR))


def moved(model, seed, **asked):
    """A delta of random values, taken off again."""
    tuning = tune_biases(model, **asked)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for master in tuning.masters:
            master.add_(torch.randn(master.shape, generator=generator) * 0.3)
    tuning.write()
    delta = BiasDelta.of(tuning)
    delta.revert(model)
    return delta


def deltas(animal, model):
    """Of three choices, so that sites are shared by some slots and not by others."""
    inject = "all" if bare(animal) else ""
    more = {"roles": "norm", "inject": "norm"} if "norm" in ZOO[animal].missing else {"roles": "value+mlp_out"}
    if "inject" not in more and bare(animal):
        more["inject"] = "value+mlp_out"
    head = "train" if inspect_biases(model).head else "keep"
    return [
        moved(model, 1, roles="all+norm_scale+scale", inject=inject, head=head),
        moved(model, 2, roles="query+mlp_in", inject="query+mlp_in" if bare(animal) else "", layers="0", head="keep"),
        moved(model, 3, **more, head=head),
    ]


def banked(animal):
    """In float64, so that what is compared is the computation, not the rounding of products of other sizes."""
    model = build(animal).double()
    made = deltas(animal, model)
    bank = Bank(model, slots=4)
    for number, delta in enumerate(made):
        bank.put(number + 1, delta)
    return model, made, bank


@pytest.fixture(scope="module", params=ZOO)
def full(request):
    """A bank of three deltas for each architecture; tests that change it make one of their own."""
    return request.param, *banked(request.param)


@torch.no_grad()
def alone(model, made, slot, tokens):
    if slot == 0:
        return logits(model, tokens)
    with made[slot - 1].applied(model):
        return logits(model, tokens)


def rows_of(animal, model, number):
    """Inputs that are the same whatever else is in the batch."""
    tokens = ids(rows=len(SLOTS))
    return tokens if number is None else tokens[number : number + 1]


@torch.no_grad()
def test_each_row_of_a_mixed_batch_is_as_its_delta_alone_makes_it(full):
    animal, model, made, bank = full
    if animal == "bert-decoder":  # what it attends to is drawn for the whole batch
        expected = [alone(model, made, slot, ids(len(SLOTS)))[number] for number, slot in enumerate(SLOTS)]
    else:
        expected = [alone(model, made, slot, rows_of(animal, model, n))[0] for n, slot in enumerate(SLOTS)]
    plain = logits(model, ids(len(SLOTS)))
    with bank.rows(SLOTS):
        found = logits(model, ids(len(SLOTS)))
    for row, one in zip(found, expected, strict=True):
        assert torch.allclose(row, one, atol=1e-6, rtol=1e-6)
        assert torch.equal(row.argmax(-1), one.argmax(-1))
    assert torch.equal(logits(model, ids(len(SLOTS))), plain), "the bank left something on the model"
    if animal != "bert-decoder":  # of few rows, whose number divides much
        with bank.rows([1, 2]):
            found = logits(model, ids(2))
        expected = [alone(model, made, slot, ids(2)[slot - 1 : slot])[0] for slot in (1, 2)]
        assert torch.allclose(found, torch.stack(expected), atol=1e-6, rtol=1e-6)
    with bank.rows([3] * len(SLOTS)):
        found = logits(model, ids(len(SLOTS)))
    assert torch.allclose(found, alone(model, made, 3, ids(len(SLOTS))), atol=1e-5, rtol=1e-5)


def test_gradients_go_to_the_chosen_rows_and_are_those_of_each_delta_alone(full):
    animal, model, made, bank = full
    tokens = ids(len(SLOTS))
    bank.table.requires_grad_(True)
    weights = torch.randn(logits(model, tokens).shape, generator=torch.Generator().manual_seed(9))
    with bank.rows(SLOTS):
        (logits(model, tokens).float() * weights).sum().backward()
    assert set(bank.table.grad.coalesce().indices().flatten().tolist()) == set(SLOTS)
    mixed = bank.table.grad.to_dense()
    bank.table.grad = None
    for slot in (1, 2, 3):
        chosen = [number for number, one in enumerate(SLOTS) if one == slot]
        with bank.rows(SLOTS if animal == "bert-decoder" else [slot] * len(chosen)):
            if animal == "bert-decoder":
                (logits(model, tokens).float() * weights)[chosen].sum().backward()
            else:
                (logits(model, tokens[chosen]).float() * weights[chosen]).sum().backward()
        mine = torch.cat([numbers for _, numbers in bank.columns(slot).values()])
        expected = bank.table.grad.to_dense()[slot][mine]
        scale = expected.abs().max()
        assert scale > 0
        assert torch.allclose(mixed[slot][mine], expected, atol=float(1e-5 * scale))
        bank.table.grad = None
    bank.table.requires_grad_(False)


def test_what_is_taken_is_what_was_put_byte_for_byte(full, tmp_path):
    _, _, made, bank = full
    for number, delta in enumerate(made):
        delta.save(tmp_path / "put")
        bank.take(number + 1).save(tmp_path / "taken")
        assert (tmp_path / "put").read_bytes() == (tmp_path / "taken").read_bytes()


@pytest.mark.parametrize(("animal", "beams"), [*((name, 1) for name in CAUSAL), ("bloom", 2), ("t5", 2)])
def test_generation_with_a_cache_takes_one_slot_a_sequence(animal, beams):
    model, made, bank = banked(animal)
    tokens = ids(len(SLOTS), length=5)
    asked = {"max_new_tokens": 6, "do_sample": False, "num_beams": beams, "eos_token_id": -1, "pad_token_id": 0}

    def told(tokens):
        return model.generate(tokens, attention_mask=torch.ones_like(tokens), **asked)

    with bank.rows(SLOTS):
        found = told(tokens)
    for number, slot in enumerate(SLOTS):
        one = tokens[number : number + 1]
        if slot:
            with made[slot - 1].applied(model):
                expected = told(one)
        else:
            expected = told(one)
        assert torch.equal(found[number], expected[0])


def test_drawn_generation_of_one_slot_is_that_of_its_delta():
    model, made, bank = banked("llama")
    tokens = ids(3, length=5)
    asked = {"max_new_tokens": 8, "do_sample": True, "num_return_sequences": 2, "eos_token_id": -1, "pad_token_id": 0}

    def told():
        torch.manual_seed(3)
        return model.generate(tokens, attention_mask=torch.ones_like(tokens), **asked)

    with bank.rows([1, 1, 1]):
        found = told()
    with made[0].applied(model):
        assert torch.equal(found, told())


@torch.no_grad()
def test_rows_packed_in_one_line():
    model, made, bank = banked("llama")
    tokens, lengths, slots = ids(3, length=7), [7, 4, 6], [1, 0, 3]
    parts = [row[:length] for row, length in zip(tokens, lengths, strict=True)]
    places = torch.cat([torch.arange(length) for length in lengths])
    owner = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths))
    sees = (owner[:, None] == owner) & (places[:, None] >= places)
    mask = torch.where(sees, 0.0, -1e9)[None, None].to(model.dtype)
    with bank.rows(slots, lengths):
        found = model(input_ids=torch.cat(parts)[None], attention_mask=mask, position_ids=places[None]).logits[0]
    for part, slot, row in zip(parts, slots, found.split(lengths), strict=True):
        assert torch.allclose(row, alone(model, made, slot, part[None])[0], atol=1e-5)
    with pytest.raises(BiaslineError, match="packed rows have 17 tokens"), bank.rows(slots, lengths):
        model(input_ids=tokens)


def with_labels(count):
    model = build("bert")
    if count != 2:
        torch.manual_seed(count)
        model.classifier = torch.nn.Linear(16, count)
        model.num_labels = model.config.num_labels = count
    return model


@torch.no_grad()
def test_heads_of_other_label_sets():
    counts = [2, 5, 3]
    models = [with_labels(count) for count in counts]
    made = [moved(one, seed, roles="attention+mlp", head="train") for seed, one in enumerate(models)]
    bank = Bank(build("bert"), slots=3)
    for slot, delta in enumerate(made):
        bank.put(slot + 1, delta)
    tokens, slots = ids(4), [2, 0, 1, 3]
    with bank.rows(slots):
        found = logits(bank.model, tokens)
    assert found.shape == (4, 5)
    for row, slot, one in zip(found, slots, tokens, strict=True):
        count = counts[slot - 1] if slot else 2
        expected = alone(models[slot - 1 if slot else 0], [made[slot - 1]] * slot, slot, one[None])[0]
        assert torch.allclose(row[:count], expected, atol=1e-5)
        assert (row[count:] == torch.finfo(torch.float32).min).all()
    with bank.rows([1, 1]):
        assert logits(bank.model, tokens[:2])[:, 2:].max() == torch.finfo(torch.float32).min


def test_slots_that_are_empty_or_not_there_are_named():
    model, made, bank = banked("bert")
    for slots, told in (([1, 4], "slot 4: it is empty"), ([9], "slot 9: there is none"), ([-1], "slot -1")):
        with pytest.raises(BiaslineError, match=told), bank.rows(slots):
            pass
    for slot, told in ((0, "slot 0 is the base"), (5, "slot 5: there is none")):
        with pytest.raises(BiaslineError, match=told):
            bank.put(slot, made[0])
    with pytest.raises(BiaslineError, match="slot 4: it is empty"):
        bank.take(4)
    with pytest.raises(BiaslineError, match="slot 4: it is empty"):
        bank.clear(4)
    bank.clear(1)
    assert bank.filled == (2, 3)
    with pytest.raises(BiaslineError, match="slot 1: it is empty"), bank.rows([1]):
        pass
    with pytest.raises(BiaslineError, match="not 2 rows"), bank.rows([2, 3]):
        logits(model, ids(3))


def test_a_delta_of_another_base_or_shape_leaves_the_bank_as_it_was():
    model, made, bank = banked("bert")
    with torch.no_grad():
        expected = bank.table.clone()
    other = build("bert")
    with torch.no_grad():
        other.bert.encoder.layer[0].output.dense.weight[0, 0] += 1
    with pytest.raises(BiaslineError, match=r"output.dense.weight: this model's values are not those of the base"):
        bank.put(1, moved(other, 5, roles="value", head="keep"))
    with pytest.raises(BiaslineError, match="no such parameter"):
        bank.put(1, moved(build("gpt2"), 5, roles="value"))
    with pytest.raises(BiaslineError, match="the model has it already|no layer"):
        bank.put(1, moved(build("llama"), 5, roles="value", inject="value"))
    assert torch.equal(bank.table, expected)
    made[0].apply(model)
    with pytest.raises(BiaslineError, match="a delta is applied"), bank.rows([1]):
        pass
    with pytest.raises(BiaslineError, match="a delta is applied"):
        Bank(model)


@torch.no_grad()
def test_what_is_put_while_rows_are_under_way_counts_for_later_ones():
    model, made, bank = banked("llama")
    tokens = ids(2)
    expected = alone(model, made, 3, tokens[:1])
    with bank.rows([1, 2]):
        first = logits(model, tokens)
        bank.put(1, made[2])
        bank.clear(2)
        assert torch.equal(logits(model, tokens), first)
    with bank.rows([1, 0]):
        assert torch.allclose(logits(model, tokens)[:1], expected, atol=1e-5)
    with pytest.raises(BiaslineError, match="under way already"), bank.rows([1]), bank.rows([1]):
        pass


def test_threads_wait_for_each_other():
    model, made, bank = banked("bert")
    tokens = ids(2)
    expected = {slot: alone(model, made, slot, tokens) for slot in (1, 2, 3)}
    odd = []

    def ask(slot):
        for _ in range(20):
            with torch.no_grad(), bank.rows([slot, 0]):
                found = logits(model, tokens)
            if not torch.allclose(found[0], expected[slot][0], atol=1e-5):
                odd.append(slot)

    threads = [threading.Thread(target=ask, args=(slot,)) for slot in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not odd


def test_activations_that_are_computed_again_are_with_the_same_rows():
    model, made, bank = banked("llama")
    tokens = ids(len(SLOTS))
    found = []
    bank.table.requires_grad_(True)
    for again in (False, True):
        if again:
            model.activation_checkpointing_enable()
            model.enable_input_require_grads()
        model.train()
        with bank.rows(SLOTS):
            logits(model, tokens).square().mean().backward()
        found.append(bank.table.grad.to_dense())
        bank.table.grad = None
    assert found[0].any() and torch.allclose(found[0], found[1], atol=1e-7)
    with pytest.raises(BiaslineError, match=r"call backward\(\) inside the block"), bank.rows(SLOTS):
        logits(model, tokens)


@torch.no_grad()
def test_a_narrow_delta_put_over_a_wide_one_has_nothing_left_of_it():
    model, made, bank = banked("bert")
    bank.put(1, made[1])
    with bank.rows([1, 3]):
        found = logits(model, ids(2))
    assert torch.allclose(found[:1], alone(model, made, 2, ids(2)[:1]), atol=1e-6)
    assert torch.allclose(found[1:], alone(model, made, 3, ids(2)[1:]), atol=1e-6)
    bank.clear(1)
    assert torch.equal(bank.table[1], bank.table[0])


def test_gradients_that_wait_are_not_lost():
    model = build("bert").double()
    wide = moved(model, 1, roles="attention", head="keep")
    bank = Bank(model, slots=2)
    bank.put(1, moved(model, 2, roles="value", head="keep"))
    bank.table.requires_grad_(True)
    with bank.rows([1]):
        loss = logits(model, ids(1)).square().sum()
    bank.put(2, wide)
    with pytest.raises(BiaslineError, match="further columns since the forward pass"):
        loss.backward()
    with bank.rows([1]):
        logits(model, ids(1)).square().sum().backward()
    with pytest.raises(BiaslineError, match="gradients wait for a step"):
        bank.put(2, moved(model, 3, roles="mlp", head="keep"))
    bank.put(2, wide)  # no further columns


def test_one_row_is_not_answered_under_two_slots():
    for animal in ("gpt2", "deberta-v2"):
        model, made, bank = banked(animal)
        for _ in range(2):
            with pytest.raises(BiaslineError, match=r"called on \(1, 7\)"), bank.rows([1, 2]):
                logits(model, ids(1))
        # What was refused has changed nothing.
        expected = alone(model, made, 2, ids(2)[1:])
        with torch.no_grad(), bank.rows([1, 2]):
            assert torch.allclose(logits(model, ids(2))[1:], expected, atol=1e-6)


@torch.no_grad()
def test_one_block_at_a_time_whosever_it_is():
    model, made, bank = banked("gpt2")
    other, plain, tokens = Bank(model, slots=1), logits(model, ids(2)), ids(2)
    other.put(1, made[1])
    with pytest.raises(BiaslineError, match="under way already"), bank.rows([1, 2]), other.rows([1, 0]):
        pass
    told = []

    def ask():
        try:
            logits(model, tokens)
        except BiaslineError as error:
            told.append(str(error))

    with bank.rows([1, 2]):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        made[2].apply(model)
        with pytest.raises(BiaslineError, match="a delta is applied"):
            logits(model, tokens)
        made[2].revert(model)
    assert "under way in another thread" in told[0]
    assert torch.equal(logits(model, tokens), plain)

    def stream():
        with bank.rows([1, 2]):
            yield logits(model, tokens)

    # As a pool of threads does it that streams: begun in one, ended in another.
    begun = stream()
    thread = threading.Thread(target=lambda: next(begun))
    thread.start()
    thread.join()
    begun.close()
    assert torch.equal(logits(model, tokens), plain)
    with bank.rows([1, 2]):
        assert not torch.equal(logits(model, tokens), plain)


class Nested(torch.nn.Module):
    """A vector of its own around a layer, which no table knows."""

    def __init__(self):
        super().__init__()
        self.dense, self.extra_bias = torch.nn.Linear(4, 4), torch.nn.Parameter(torch.zeros(4))

    def forward(self, values):
        return self.dense(values) + self.extra_bias


class Toy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.nested = torch.nn.Linear(4, 4), Nested()

    def forward(self, values):
        # The last layer sees all rows' entries in one line, in no order of rows.
        return self.nested(self.first(values).transpose(0, 1)).transpose(0, 1)


class Attending(torch.nn.Module):
    """Its attention reads the parameters of a layer inside it, which is never called."""

    def __init__(self):
        super().__init__()
        self.attention = torch.nn.MultiheadAttention(4, 2, batch_first=True)

    def forward(self, values):
        return self.attention(values, values, values)[0]


@torch.no_grad()
@pytest.mark.parametrize("made_of", [Toy, Attending])
def test_a_model_of_ones_own_is_run_slot_by_slot(made_of):
    torch.manual_seed(0)
    model = made_of().double().eval()
    made = [moved(model, seed, roles="all", head="keep") for seed in (1, 2)]
    bank = Bank(model, slots=2)
    for slot, delta in enumerate(made, 1):
        bank.put(slot, delta)
    values = torch.randn(4, 4, 4, dtype=torch.float64)
    with bank.rows([1, 2, 0, 1]):
        found = model(values)
    for row, slot in enumerate([1, 2, 0, 1]):
        one = values[row : row + 1]
        if slot:
            with made[slot - 1].applied(model):
                expected = model(one)[0]
        else:
            expected = model(one)[0]
        assert torch.allclose(found[row], expected)


class Scaled(torch.nn.Linear):
    """A layer whose bias is not what comes last."""

    def forward(self, values):
        return super().forward(values) * 0.5


@torch.no_grad()
def test_a_layer_that_does_something_to_its_bias():
    model = build("bert").double()
    for layer in model.bert.encoder.layer:
        layer.output.dense.__class__ = Scaled
    made = [moved(model, seed, roles="mlp", head="keep") for seed in (1, 2)]
    bank = Bank(model, slots=2)
    for slot, delta in enumerate(made, 1):
        bank.put(slot, delta)
    with bank.rows([1, 2]):
        found = logits(model, ids(2))
    for slot in (1, 2):
        assert torch.allclose(found[slot - 1], alone(model, made, slot, ids(2)[slot - 1 : slot])[0], atol=1e-9)


@torch.no_grad()
def test_a_base_in_half_precision_takes_values_in_its_own():
    model = build("llama").to(torch.bfloat16)
    delta = moved(model, 1, roles="all+scale", inject="all")
    bank = Bank(model, slots=2)
    bank.put(1, delta)
    tokens = ids(2)
    with bank.rows([1, 0]):
        found = logits(model, tokens)
    with delta.applied(model):
        assert torch.allclose(found[:1], logits(model, tokens[:1]), atol=0.05, rtol=0.05)
    assert found.dtype == torch.bfloat16
