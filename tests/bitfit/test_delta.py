import hashlib
import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from biasline.bitfit import BiasDelta, tune_biases
from biasline.errors import BiaslineError
from tests.bitfit.test_tuning import one_step

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
