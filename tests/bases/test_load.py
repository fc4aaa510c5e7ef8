import json
from importlib.util import find_spec

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from biasline.bases.create import create_pin
from biasline.bases.load import load_causal_lm, load_classifier
from biasline.errors import BiaslineError
from biasline.params import Load
from biasline.training.loss import padded


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


@pytest.mark.parametrize(
    ("pad", "eos", "taken"), [(3, 2, 3), (100, 2, 2), (-1, 2, 2), (100, 100, 0), (None, [2, 5], 0), (None, 2, 2)]
)
def test_padding_is_a_token_that_the_base_has_an_embedding_for(tmp_path, bloom, pad, eos, taken):
    bloom.save_pretrained(tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_token_id": pad, "eos_token_id": eos}))
    pin = create_pin(str(tmp_path / "m"), tmp_path / "m.json")
    model = load_causal_lm(pin, tmp_path / "m", Load())
    assert model.config.pad_token_id == taken
    model(**padded([{"input_ids": [5, 6, 7]}, {"input_ids": [5]}], model.config.pad_token_id))


@pytest.mark.parametrize(("method", "package"), [("bitsandbytes", "bitsandbytes"), ("gptq", "optimum")])
def test_quantized_weights_are_told_at_pinning_and_where_their_package_is_missing(
    tmp_path, bloom, capsys, method, package
):
    if find_spec(package):
        pytest.skip(f"{package} is installed")
    bloom.save_pretrained(tmp_path / "m")
    path = tmp_path / "m" / "config.json"
    quantized = {"quantization_config": {"quant_method": method, "bits": 4, "load_in_4bit": method == "bitsandbytes"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | quantized))
    pin = create_pin(str(tmp_path / "m"), tmp_path / "m.json")
    assert f"its weights are quantized ({method}): training needs the package" in capsys.readouterr().err
    with pytest.raises(BiaslineError, match=rf"base m: a package that it needs is missing: .*{package}.*before it was"):
        load_causal_lm(pin, tmp_path / "m", Load())


def test_weights_that_are_not_there_are_not_made_up(tmp_path):
    config = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    pin = pinned(tmp_path / "m", BertForSequenceClassification(BertConfig(vocab_size=50, **config)))
    with pytest.raises(BiaslineError, match="no weights for cls.predictions"):
        load_causal_lm(pin, tmp_path / "m", Load())


SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 50}
HEAD = ["classifier.weight", "classifier.bias"]


@pytest.fixture
def with_head(tmp_path):
    """A BERT that was fine-tuned to tell bad from good."""
    names = {0: "bad", 1: "good"}
    config = BertConfig(**SIZES, id2label=names, label2id={"bad": 0, "good": 1})
    return pinned(tmp_path / "m", BertForSequenceClassification(config)), tmp_path / "m"


def classifier(with_head, labels, head="auto", seed=0):
    return load_classifier(*with_head, Load(), labels, seed, head)


def head_of(model):
    return model.classifier.weight.detach().clone()


def test_an_existing_head_for_the_same_labels_stays_as_it_is(with_head):
    model, trained = classifier(with_head, ["Bad", "Good"])
    assert trained == []
    again, trained = classifier(with_head, ["bad", "good"], "train")
    assert trained == HEAD
    assert torch.equal(head_of(model), head_of(again))


@pytest.mark.parametrize("labels", [["good", "bad"], ["no", "yes"]])
def test_an_existing_head_for_other_labels_is_not_taken_for_the_tasks(with_head, labels):
    with pytest.raises(BiaslineError, match=r"its head is for the labels bad, good.*train\.head: new"):
        classifier(with_head, labels)
    kept, _ = classifier(with_head, ["bad", "good"])
    model, trained = classifier(with_head, labels, "new")
    assert trained == HEAD
    assert not torch.equal(head_of(model), head_of(kept))
    assert torch.equal(head_of(model), head_of(classifier(with_head, labels, "new")[0]))
    assert model.config.id2label == dict(enumerate(labels))


def test_a_head_for_another_number_of_labels_is_replaced(with_head):
    model, trained = classifier(with_head, ["a", "b", "c"])
    assert sorted(trained) == sorted(HEAD)
    assert model.config.num_labels == 3


def test_half_a_head_is_a_new_one(tmp_path):
    from transformers import RobertaConfig, RobertaForSequenceClassification

    base = pinned(tmp_path / "r", RobertaForSequenceClassification(RobertaConfig(**SIZES)))
    _, trained = load_classifier(base, tmp_path / "r", Load(), ["a", "b", "c"], 0)
    assert {name.rpartition(".")[0] for name in trained} == {"classifier.dense", "classifier.out_proj"}
