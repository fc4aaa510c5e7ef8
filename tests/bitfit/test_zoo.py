"""Every architecture of the table: its inventory, and what the table says held against what the model does."""

import pytest
import torch

from biasline.bitfit import BiasDelta, by_role, inspect_biases, select_biases, tune_biases
from biasline.bitfit.architectures import ARCHITECTURES
from biasline.bitfit.injection import Injection
from biasline.errors import BiaslineError
from tests.bitfit.zoo import ALL_LINEAR, WIDTH, ZOO, build, ids, logits


@pytest.fixture(params=ZOO)
def animal(request):
    return request.param


@pytest.fixture
def model(animal):
    return build(animal)


def bare(animal):
    """Injecting `all` into linear layers adds something."""
    return bool(set(ZOO[animal].missing) & set(ALL_LINEAR))


def test_every_row_of_the_table_is_in_the_zoo():
    assert {build(name).config.model_type for name in ZOO} == set(ARCHITECTURES)


def test_the_inventory_is_the_one_counted_by_hand(animal, model):
    found, expected = inspect_biases(model), ZOO[animal]
    assert found.known
    assert by_role(found.biases) == expected.biases
    assert by_role(found.missing) == expected.missing
    assert found.key_entries == expected.keys
    assert found.total == sum(parameter.numel() for parameter in model.parameters())
    with torch.device("meta"):
        assert inspect_biases(ZOO[animal].make()) == found


def with_all_linear_biases(model):
    missing = [bias for bias in inspect_biases(model).missing if bias.role in ALL_LINEAR]
    injection = Injection(model, {bias.name: bias.shape[0] for bias in missing})
    with torch.no_grad():
        for name in injection.names:
            parameter = model.get_parameter(name)
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.2)
    return [bias for bias in inspect_biases(model).biases if bias.layer is not None]


@torch.no_grad()
def moved(model, parts, tokens):
    """Largest change of the logits when these entries move, relative to the largest logit."""
    before = logits(model, tokens)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    kept = [(part, part.read(parameters[part.name])) for part in parts]
    for part, values in kept:
        noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(3))
        part.write(parameters[part.name], values + noise)
    after = logits(model, tokens)
    for part, values in kept:
        part.write(parameters[part.name], values)
    return float((after - before).abs().max() / before.abs().max())


def test_key_biases_act_where_the_table_says_so_and_nowhere_else(animal, model):
    acting = ZOO[animal].keys
    keys = [bias for bias in with_all_linear_biases(model) if bias.role == "key"]
    assert keys
    if acting:
        assert moved(model, [bias.leading(acting, WIDTH) for bias in keys], ids()) > 1e-3
    if acting < WIDTH:
        idle = [bias.leading(WIDTH, WIDTH) for bias in keys]
        # the entries behind the acting ones, head by head
        idle = [type(bias)(bias.name, "key", bias.layer, bias.shape, behind(bias.cut, acting)) for bias in idle]
        assert moved(model, idle, ids()) < 1e-4


def behind(cut, acting):
    return type(cut)(cut.start + acting, cut.width - acting, cut.stride, cut.repeats)


def test_with_one_token_values_act_and_queries_and_keys_do_not(animal, model):
    """One token attends to itself whatever its score: so a slice that is called value is one, a query none."""
    biases, one = with_all_linear_biases(model), ids(length=1)
    if animal.startswith("deberta"):  # its convolution and position queries look at the padding around the token too
        biases = [bias for bias in biases if "pos_" not in bias.name]
    assert moved(model, [bias for bias in biases if bias.role in ("query", "key")], one) < 1e-4
    assert moved(model, [bias for bias in biases if bias.role == "value"], one) > 1e-3


def test_queries_act_with_more_tokens(animal, model):
    queries = [bias for bias in with_all_linear_biases(model) if bias.role == "query"]
    assert moved(model, queries, ids()) > 1e-3


def one_step(model, tuning, tokens=None):
    tokens = ids() if tokens is None else tokens
    optimizer = tuning.optimizer(lr=1e-2)
    logits(model, tokens).float().square().mean().backward()
    optimizer.step()


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict(keep_vars=False).items()}


def choices(animal):
    yield {"roles": "all+norm_scale+scale", "inject": "all" if bare(animal) else ""}
    yield {"roles": "query+mlp_in", "inject": "query+mlp_in" if bare(animal) else "", "layers": "0"}
    yield {"roles": "value", "inject": "value" if "value" in ZOO[animal].missing else ""}
    if "norm" in ZOO[animal].missing:
        yield {"roles": "norm", "inject": "norm"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_train_save_apply_revert(animal, dtype, tmp_path):
    """One step changes the chosen entries and nothing else; a delta brings it back, and takes it off, bit by bit."""
    tokens = ids()
    # What a choice does is held in fp32; what half precision does, by the widest choice.
    for asked in list(choices(animal))[: None if dtype == torch.float32 else 1]:
        model = build(animal).to(dtype)
        before = snapshot(model)
        with torch.no_grad():
            plain = logits(model, tokens)
        tuning = tune_biases(model, **asked, head="train")
        with torch.no_grad():
            assert torch.equal(logits(model, tokens), plain), "injected zeros changed the outputs"
        one_step(model, tuning)
        with torch.no_grad():
            tuned = logits(model, tokens)
        assert not torch.equal(tuned, plain)

        changed = snapshot(model)
        chosen = {name: torch.zeros(value.shape, dtype=torch.bool) for name, value in changed.items()}
        for entry in tuning.entries:
            entry.write(chosen[entry.name], torch.ones(entry.count, dtype=torch.bool))
        tied = {}  # parameters tied by storage go together
        for name, parameter in model.named_parameters(remove_duplicate=False):
            tied.setdefault(parameter.data_ptr(), []).append(name)
        for names in tied.values():
            mask = torch.stack([chosen[name] for name in names]).any(0)
            for name in names:
                base = before.get(name, put_in(name, changed[name]))
                assert torch.equal(changed[name][~mask], base[~mask]), f"{name} changed where it was not chosen"
        for entry in tuning.entries:
            if "vision_tower" in entry.name or "multi_modal" in entry.name:
                continue  # the vision tower sees no picture here
            base = before.get(entry.name, put_in(entry.name, changed[entry.name]))
            assert not torch.equal(entry.read(changed[entry.name]), entry.read(base)), f"{entry.key} did not move"

        delta = BiasDelta.of(tuning)
        delta.save(tmp_path / "delta.safetensors")
        delta.revert(model)
        assert_same(snapshot(model), before)
        assert same_logits(model, tokens, plain)

        fresh, loaded = build(animal).to(dtype), BiasDelta.load(tmp_path / "delta.safetensors")
        with loaded.applied(fresh):
            assert same_logits(fresh, tokens, tuned)
        assert_same(snapshot(fresh), before)
        assert same_logits(fresh, tokens, plain)


def put_in(name, like):
    """What is put in where a base has nothing."""
    return torch.full_like(like, float(name.endswith(".scale")))


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@torch.no_grad()
def same_logits(model, tokens, expected):
    return torch.equal(logits(model, tokens), expected)


def test_a_merged_model_reloads_in_stock_transformers(animal, model, tmp_path):
    merges = ZOO[animal].merges
    if not merges and not ZOO[animal].biases.keys() - {"other"}:
        pytest.skip("no bias in the language model, and none that could be merged")
    inject = "+".join(merges)
    tuning = tune_biases(model, "all+scale", inject=inject, head="train")
    one_step(model, tuning)
    with torch.no_grad():
        tuned = logits(model, ids())
    delta = BiasDelta.of(tuning)
    delta.revert(model)

    merged = delta.merge(model)
    assert not [name for name, _ in merged.named_parameters() if name.endswith(".scale")]
    merged.save_pretrained(tmp_path / "merged")
    again, info = type(merged).from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        assert torch.allclose(logits(again.eval(), ids()), tuned, rtol=1e-5, atol=2e-6)


def test_every_output_scale_acts(animal, model):
    """Every scale that can be put somewhere moves the outputs: no layer is used around its forward pass."""
    scales = [scale for scale in inspect_biases(model).outputs if "vision_tower" not in scale.name]
    scales = [scale for scale in scales if "multi_modal" not in scale.name]
    assert {scale.role for scale in scales} == {f"{role}_scale" for role in ALL_LINEAR}
    Injection(model, {scale.name: scale.shape[0] for scale in scales})
    for scale in scales:
        assert moved(model, [scale], ids()) > 1e-6, scale.key


def test_a_bias_that_no_stock_model_has_a_place_for_stays_a_delta(animal, model):
    homeless = sorted(set(ZOO[animal].missing) - set(ZOO[animal].merges) - {"embedding_norm"})
    if not homeless:
        pytest.skip("every bias that can be injected has a place")
    for role in homeless:
        tuning = tune_biases(model, "all", inject=role, head="train")
        one_step(model, tuning)
        delta = BiasDelta.of(tuning)
        delta.revert(model)
        before = snapshot(model)
        with pytest.raises(BiaslineError, match=r"tensor .*\.bias: stock .* has no place.*keep the delta form"):
            delta.merge(model)
        assert_same(snapshot(model), before)


def test_only_the_rotated_part_of_a_key_bias_is_chosen():
    selection = select_biases(inspect_biases(build("phi")), "attention")
    assert sum(bias.count for bias in selection.biases if bias.role == "key") == 16
    assert "16 key biases left out: outside the 2 rotated of 4 entries per head" in selection.notes[0]
    everything = select_biases(inspect_biases(build("phi")), "key")
    assert everything.count == 32 and not everything.notes
