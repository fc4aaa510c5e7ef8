import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from biasline.bases.create import create_pin
from biasline.bases.load import load_causal_lm
from biasline.errors import BiaslineError
from biasline.params import Load


def pinned(folder, model):
    model.save_pretrained(folder)
    return create_pin(str(folder), folder.with_suffix(".json"))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_dtype_is_the_one_asked_for_and_all_is_frozen(tmp_path, bloom, dtype):
    model = load_causal_lm(pinned(tmp_path / "m", bloom), tmp_path / "m", Load(dtype=dtype))
    assert {parameter.dtype for parameter in model.parameters()} == {getattr(torch, dtype)}
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not model.training


def test_damaged_weights_are_told(tmp_path, bloom):
    pin = pinned(tmp_path / "m", bloom)
    path = tmp_path / "m" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BiaslineError, match="does not load"):
        load_causal_lm(pin, tmp_path / "m", Load())


def test_weights_that_are_not_there_are_not_made_up(tmp_path):
    config = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    pin = pinned(tmp_path / "m", BertForSequenceClassification(BertConfig(vocab_size=50, **config)))
    with pytest.raises(BiaslineError, match="no weights for cls.predictions"):
        load_causal_lm(pin, tmp_path / "m", Load())
