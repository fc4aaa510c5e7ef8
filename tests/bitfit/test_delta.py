import gc
import hashlib
import json
import weakref

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from biasline.bitfit import BiasDelta, tune_biases
from biasline.errors import BiaslineError
from tests.bitfit.test_tuning import one_step
from tests.bitfit.test_zoo import one_step as one_zoo_step
from tests.bitfit.zoo import build, ids, logits

IDS = torch.arange(4, 40).view(3, 12)


@pytest.fixture
def trained(bloom, tmp_path):
    """Path of a delta, the trained model's logits, and the base's own state and logits; `bloom` is the base again."""
    with torch.no_grad():
        plain = bloom(IDS).logits
    tuning = tune_biases(bloom, "query+mlp_in+norm")
    one_step(bloom, tuning)
    path = tmp_path / "delta.safetensors"
    delta = BiasDelta.of(tuning, base={"name": "tiny"})
    delta.save(path)
    with torch.no_grad():
        tuned = bloom(IDS).logits
    delta.revert(bloom)
    return path, tuned, plain


@torch.no_grad()
def test_apply_gives_the_trained_model_and_revert_the_base_bit_for_bit(bloom, trained):
    path, tuned, plain = trained
    delta = BiasDelta.load(path)
    with delta.applied(bloom):
        assert torch.equal(bloom(IDS).logits, tuned)
        assert not torch.equal(tuned, plain)
    assert torch.equal(bloom(IDS).logits, plain)


@torch.no_grad()
def test_revert_happens_when_the_block_fails(bloom, trained):
    with pytest.raises(RuntimeError), BiasDelta.load(trained[0]).applied(bloom):
        raise RuntimeError
    assert torch.equal(bloom(IDS).logits, trained[2])


@torch.no_grad()
def test_merge_is_for_good(bloom, trained):
    delta = BiasDelta.load(trained[0])
    delta.merge(bloom)
    assert torch.equal(bloom(IDS).logits, trained[1])
    with pytest.raises(BiaslineError, match="no delta is applied"):
        delta.revert(bloom)


def test_applying_twice_is_refused(bloom, trained):
    delta = BiasDelta.load(trained[0])
    delta.apply(bloom)
    with pytest.raises(BiaslineError, match="applied to this model already"):
        delta.apply(bloom)


def test_only_the_delta_that_is_applied_takes_itself_off(bloom, trained):
    one, two = BiasDelta.load(trained[0]), BiasDelta.load(trained[0])
    one.apply(bloom)
    with pytest.raises(BiaslineError, match="another delta is applied"):
        two.revert(bloom)
    one.revert(bloom)
    with torch.no_grad():
        assert torch.equal(bloom(IDS).logits, trained[2])


def test_another_base_is_refused_and_left_alone(bloom, trained):
    with torch.no_grad():
        bloom.transformer.h[1].mlp.dense_h_to_4h.bias[3] += 1e-3
    before = {name: value.clone() for name, value in bloom.state_dict().items()}
    with pytest.raises(BiaslineError, match=r"h\.1\.mlp\.dense_h_to_4h\.bias.*not those of the base"):
        BiasDelta.load(trained[0]).apply(bloom)
    assert all(torch.equal(value, before[name]) for name, value in bloom.state_dict().items())


def test_a_model_of_another_shape_is_refused(trained):
    from transformers import BloomConfig, BloomForCausalLM

    small = BloomForCausalLM(BloomConfig(vocab_size=100, hidden_size=16, n_layer=2, n_head=4))
    with pytest.raises(BiaslineError, match=r"tensor .*: shape .*, the model has"):
        BiasDelta.load(trained[0]).apply(small)


def test_a_missing_layer_is_refused(trained):
    from transformers import BloomConfig, BloomForCausalLM

    shallow = BloomForCausalLM(BloomConfig(vocab_size=100, hidden_size=32, n_layer=1, n_head=4))
    with pytest.raises(BiaslineError, match="has no such parameter"):
        BiasDelta.load(trained[0]).apply(shallow)


def test_the_file_is_small_fp32_and_the_same_each_time(bloom, trained, tmp_path):
    path = trained[0]
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    entries = sum(tensor.numel() for tensor in tensors.values())
    assert path.stat().st_size <= 4 * entries + 16 * 1024
    again = tmp_path / "again.safetensors"
    BiasDelta.load(path).save(again)
    assert again.read_bytes() == path.read_bytes()


def test_one_flipped_bit_is_found(trained):
    path = trained[0]
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)
    with pytest.raises(BiaslineError, match=r"tensor .*: its values are not those that were saved"):
        BiasDelta.load(path)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_file_is_told(trained, keep):
    path = trained[0]
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BiaslineError, match="damaged"):
        BiasDelta.load(path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(BiaslineError, match="no delta there.*dvc repro"):
        BiasDelta.load(tmp_path / "delta.safetensors")


def rewrite(path, change, seal=True):
    """Change a delta's file; with `seal` its manifest's hash is made right again."""
    with safe_open(path, framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        header = json.loads(file.metadata()["biasline"])
    change(tensors, header)
    if seal:
        text = json.dumps(header["manifest"], sort_keys=True)
        header["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    save_file(tensors, path, {"biasline": json.dumps(header)})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensors, _: tensors.pop(sorted(tensors)[0]), "missing"),
        (lambda tensors, _: tensors.update(extra=torch.zeros(1)), "extra: not in the manifest"),
        (lambda _, header: header.update(format_version=99), "format version 99"),
        (lambda _, header: header["manifest"].pop("model_type"), "bad manifest: model_type"),
        (lambda _, header: header["manifest"].update(surprise=1), "bad manifest: surprise"),
        (lambda tensors, _: tensors.update({min(tensors): tensors[min(tensors)][:-1]}), "shape .*its manifest says"),
        (
            lambda tensors, _: tensors.update({min(tensors): tensors[min(tensors)].double()}),
            "not those that were saved",
        ),
    ],
)
def test_a_file_that_does_not_match_its_manifest_is_refused(trained, change, told):
    rewrite(trained[0], change)
    with pytest.raises(BiaslineError, match=told):
        BiasDelta.load(trained[0])


def test_a_changed_manifest_is_found(trained):
    rewrite(trained[0], lambda _, header: header["manifest"].update(model_type="gpt2"), seal=False)
    with pytest.raises(BiaslineError, match="the manifest is not the one that was saved"):
        BiasDelta.load(trained[0])


def test_other_safetensors_are_no_delta(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(BiaslineError, match="no manifest"):
        BiasDelta.load(tmp_path / "x.safetensors")


@torch.no_grad()
def test_a_bf16_base_gets_the_same_values_as_training_left(bloom):
    bloom.to(torch.bfloat16)
    tuning = tune_biases(bloom, "norm")
    tuning.master.add_(0.0123)
    delta = BiasDelta.of(tuning)
    trained_logits = bloom(IDS).logits
    delta.revert(bloom)
    with delta.applied(bloom):
        assert torch.equal(bloom(IDS).logits, trained_logits)


def injected_delta(name="llama"):
    model = build(name)
    tuning = tune_biases(model, "value+mlp_out", inject="all")
    one_zoo_step(model, tuning)
    return BiasDelta.of(tuning), model


def test_an_injected_delta_knows_its_base_though_that_has_no_bias():
    """Where all was zero before training, the frozen parameters tell one base from another."""
    delta, _ = injected_delta()
    other = build("llama")
    with torch.no_grad():
        other.model.layers[1].mlp.gate_proj.weight[0, 0] += 1e-3
    before = list(other.state_dict())
    with pytest.raises(
        BiaslineError, match=r"tensor model\.layers\.1\.mlp\.gate_proj\.weight: .*not those of the base"
    ):
        delta.apply(other)
    assert list(other.state_dict()) == before


def test_a_base_in_another_dtype_is_told_with_the_way_out():
    delta, _ = injected_delta()
    with pytest.raises(
        BiaslineError, match=r"trained in float32, this model is bfloat16: load it so, apply or merge, then cast"
    ):
        delta.apply(build("llama").to(torch.bfloat16))
    model = build("llama")
    delta.apply(model)
    model.to(torch.bfloat16)
    delta.revert(model)
    cast = build("llama").to(torch.bfloat16).state_dict()
    assert all(torch.equal(value, cast[key]) for key, value in model.state_dict().items())


def test_a_trained_model_has_its_delta_applied():
    delta, model = injected_delta()
    with pytest.raises(BiaslineError, match="applied to this model already"):
        delta.merge(model)
    delta.revert(model)
    assert all(torch.equal(value, build("llama").state_dict()[key]) for key, value in model.state_dict().items())
    assert delta.merge(model).config.attention_bias is True


def test_a_model_is_freed_though_a_delta_was_applied():
    delta, model = injected_delta()
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None
    assert delta.tensors


def test_diff_tells_how_far_two_deltas_are_apart():
    one, model = injected_delta()
    one.revert(model)
    assert all(found.distance == 0.0 for found in one.diff(one))
    tuning = tune_biases(model, "value", inject="value")
    two = BiasDelta.of(tuning)  # not trained: zeros
    told = {found.key: found for found in one.diff(two)}
    assert set(told) == set(one.tensors)
    value = told["model.layers.0.self_attn.v_proj.bias"]
    assert (value.role, value.layer) == ("value", 0)
    assert value.distance == pytest.approx(float(one.tensors[value.key].norm()))
    assert value.norms == (value.distance, 0.0)
    assert {found.key: found.distance for found in two.diff(one)} == pytest.approx(
        {key: found.distance for key, found in told.items()}
    )


def test_deltas_of_different_bases_are_not_compared(trained):
    with pytest.raises(BiaslineError, match="deltas of different bases: tiny and llama"):
        BiasDelta.load(trained[0]).diff(injected_delta()[0])


def test_a_head_that_is_new_has_no_base_values(bloom):
    from transformers import BloomForSequenceClassification

    model = BloomForSequenceClassification(bloom.config)
    tuning = tune_biases(model, "value", head=["score.weight"])
    delta = BiasDelta.of(tuning, labels=["no", "yes"])
    assert delta.manifest.labels == ["no", "yes"]
    assert delta.manifest.tensors["score.weight"].base == ""
    assert delta.tensors["score.weight"].shape == (2, 32)
    delta.revert(model)
    with torch.no_grad():
        model.score.weight.add_(1.0)  # another random head
    with delta.applied(model):
        assert torch.equal(model.score.weight, delta.tensors["score.weight"])


def test_no_pickle_is_read_or_written(root):
    for path in (root / "src" / "biasline" / "bitfit").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "pickle" not in text and "torch.load" not in text and "torch.save" not in text, path


def test_a_base_that_differs_deep_inside_its_weights_is_refused(bloom, trained):
    with torch.no_grad():
        bloom.transformer.word_embeddings.weight.view(-1)[1600:].normal_()
    with pytest.raises(BiaslineError, match=r"word_embeddings\.weight: .*not those of the base"):
        BiasDelta.load(trained[0]).apply(bloom)


def test_a_model_with_fewer_parameters_is_another_base(bloom, trained):
    rewrite(trained[0], lambda _, header: header["manifest"].update(frozen=header["manifest"]["frozen"] + "0" * 8))
    with pytest.raises(BiaslineError, match="one that this model lacks"):
        BiasDelta.load(trained[0]).apply(bloom)


@pytest.mark.parametrize("cut", [[0, 8, 24, 5], [-1, 8, 24, 4], [0, 8, 4, 4], [0, 0, 24, 4]])
def test_a_cut_outside_of_its_bias_is_refused(trained, cut):
    def change(tensors, header):
        key = next(key for key in header["manifest"]["tensors"] if key.endswith("#query"))
        header["manifest"]["tensors"][key]["cut"] = cut

    rewrite(trained[0], change)
    with pytest.raises(BiaslineError, match="#query: its cut lies outside"):
        BiasDelta.load(trained[0])


def test_a_key_that_is_not_its_entrys_is_refused(trained):
    def change(tensors, header):
        entries = header["manifest"]["tensors"]
        old = next(key for key in entries if key.endswith("#query"))
        for mapping in (entries, tensors):
            mapping[old.replace("#query", "#value")] = mapping.pop(old)

    rewrite(trained[0], change)
    with pytest.raises(BiaslineError, match="#value: shape"):
        BiasDelta.load(trained[0])


def test_values_that_are_not_finite_are_neither_written_nor_read(bloom, trained, tmp_path):
    delta = BiasDelta.load(trained[0])
    key = min(delta.tensors)
    delta.tensors[key] = delta.tensors[key] * float("nan")
    with pytest.raises(BiaslineError, match=f"tensor {key}: values that are not finite"):
        delta.save(tmp_path / "nan.safetensors")
    with pytest.raises(BiaslineError, match="cannot be written"):
        BiasDelta.load(trained[0]).save(tmp_path / "no" / "folder.safetensors")


def test_apply_that_fails_halfway_leaves_the_model_as_it_was(bloom, trained, monkeypatch):
    from biasline.bitfit.inventory import Bias

    before = {name: value.clone() for name, value in bloom.state_dict().items()}
    delta, write, calls = BiasDelta.load(trained[0]), Bias.write, []

    def failing(self, parameter, values):
        calls.append(self.key)
        if len(calls) == 5:
            raise RuntimeError("no")
        write(self, parameter, values)

    monkeypatch.setattr(Bias, "write", failing)
    with pytest.raises(RuntimeError):
        delta.apply(bloom)
    assert all(torch.equal(value, before[name]) for name, value in bloom.state_dict().items())
    delta.apply(bloom)


def test_applied_under_inference_mode_and_reverted_outside():
    delta, model = injected_delta()
    delta.revert(model)
    with torch.inference_mode():
        delta.apply(model)
    delta.revert(model)
    with torch.inference_mode():
        delta.apply(model)
        delta.revert(model)
    delta.apply(model)


@pytest.mark.parametrize("roles", ["mlp_in", "mlp_out", "attention_output", "mlp"])
def test_another_layout_has_a_place_for_what_the_base_has_already(roles):
    model = build("qwen2")
    tuning = tune_biases(model, roles, inject=roles)
    one_zoo_step(model, tuning)
    with torch.no_grad():
        tuned = logits(model, ids())
    delta = BiasDelta.of(tuning)
    delta.revert(model)
    merged = delta.merge(model)
    assert type(merged).__name__ == "LlamaForCausalLM"
    with torch.no_grad():
        assert torch.allclose(logits(merged, ids()), tuned, rtol=1e-6, atol=1e-6)


def test_a_merge_that_fails_leaves_the_model_as_it_was(monkeypatch):
    model = build("qwen2")
    tuning = tune_biases(model, "mlp", inject="mlp")
    one_zoo_step(model, tuning)
    delta = BiasDelta.of(tuning)
    delta.revert(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    monkeypatch.setattr(torch, "allclose", lambda *_, **__: False)
    with pytest.raises(BiaslineError, match="Qwen2ForCausalLM as LlamaForCausalLM: they give other outputs"):
        delta.merge(model)
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    delta.apply(model)


def test_heads_of_different_sizes_are_told_apart(bloom):
    from transformers import BloomForSequenceClassification

    deltas = []
    for labels in (2, 3):
        bloom.config.num_labels = labels
        torch.manual_seed(0)
        model = BloomForSequenceClassification(bloom.config)
        model.transformer = bloom.transformer
        tuning = tune_biases(model, "value", head="train")
        deltas.append(BiasDelta.of(tuning))
        deltas[-1].revert(model)
    heads = [found for found in deltas[0].diff(deltas[1]) if found.role == "head"]
    assert [found.norms[1] == 0.0 for found in heads] == [True, False]
    assert all(found.distance > 0 for found in heads)
