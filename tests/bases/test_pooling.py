import json

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel, BloomConfig, BloomModel

from biasline.bases.create import create_pin
from biasline.bases.load import load_classifier
from biasline.bases.pin import verify
from biasline.bases.pooling import pools_by_mean
from biasline.bitfit import inspect_biases
from biasline.errors import BiaslineError
from biasline.params import Load

SIZES = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32, "vocab_size": 50}


@pytest.fixture
def base(tmp_path):
    torch.manual_seed(0)
    BertModel(BertConfig(**SIZES)).save_pretrained(tmp_path / "bert")
    return create_pin(str(tmp_path / "bert"), tmp_path / "bert.json"), tmp_path / "bert"


def load(base, **more):
    return load_classifier(*base, Load(), ["a", "b"], 0, **more)


def test_the_mean_leaves_padding_out(base):
    model, trained = load(base, pooling="mean")
    assert pools_by_mean(model.bert) and trained == ["classifier.weight", "classifier.bias"]
    ids = torch.tensor([[5, 6, 7, 0, 0], [8, 9, 10, 11, 12]])
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=mask).logits
        hidden = model.bert(input_ids=ids[:1, :3]).last_hidden_state.mean(1)
        assert torch.allclose(found[:1], model.classifier(hidden), atol=1e-6)
        assert torch.allclose(model(input_ids=ids[1:]).logits, found[1:], atol=1e-6)  # no mask: all tokens count


def test_the_mean_leaves_virtual_tokens_out(base):
    """A prefix has a place in the mask, before the text, and no hidden state."""
    model, _ = load(base, pooling="mean")
    hidden = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    model.bert.pooler.mask = torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1, 1]])
    assert torch.allclose(model.bert.pooler(hidden), torch.stack([hidden[0, :3].mean(0), hidden[1].mean(0)]), atol=1e-6)


def test_auto_takes_the_mean_where_the_files_have_no_pooler(base, tmp_path):
    assert not pools_by_mean(load(base)[0].bert)
    bare = BertModel(BertConfig(**SIZES), add_pooling_layer=False)
    bare.save_pretrained(tmp_path / "bare")
    pin = create_pin(str(tmp_path / "bare"), tmp_path / "bare.json")
    model, trained = load((pin, tmp_path / "bare"))
    assert pools_by_mean(model.bert) and trained == ["classifier.weight", "classifier.bias"]
    own, trained = load((pin, tmp_path / "bare"), pooling="model")
    assert not pools_by_mean(own.bert) and "bert.pooler.dense.weight" in trained


def test_a_replaced_poolers_biases_are_none_to_choose(base):
    model, _ = load(base, pooling="mean")
    assert "pooler" not in {bias.role for bias in inspect_biases(model).biases}
    plain = BertForSequenceClassification(BertConfig(**SIZES))
    assert "pooler" in {bias.role for bias in inspect_biases(plain).biases}


def test_a_model_without_a_pooler_says_so(tmp_path):
    BloomModel(BloomConfig(vocab_size=50, hidden_size=16, n_layer=1, n_head=2)).save_pretrained(tmp_path / "bloom")
    base = create_pin(str(tmp_path / "bloom"), tmp_path / "bloom.json"), tmp_path / "bloom"
    with pytest.raises(BiaslineError, match="train.pooling: mean: BloomForSequenceClassification has no pooler"):
        load(base, pooling="mean")
    assert load(base)[1]  # auto leaves it as it is


def test_a_pooler_that_is_given_one_token_cannot_be_replaced(tmp_path):
    from transformers import AlbertConfig, AlbertModel

    sizes = {
        "embedding_size": 8,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "vocab_size": 50,
    }
    AlbertModel(AlbertConfig(**sizes)).save_pretrained(tmp_path / "albert")
    base = create_pin(str(tmp_path / "albert"), tmp_path / "albert.json"), tmp_path / "albert"
    with pytest.raises(
        BiaslineError, match="AlbertForSequenceClassification has no pooler that a mean could stand for"
    ):
        load(base, pooling="mean")
    AlbertModel(AlbertConfig(**sizes), add_pooling_layer=False).save_pretrained(tmp_path / "bare")
    model, _ = load((create_pin(str(tmp_path / "bare"), tmp_path / "bare.json"), tmp_path / "bare"))
    assert not pools_by_mean(model.albert)


def test_a_head_of_another_pooler_does_not_stay_frozen_on_a_mean(tmp_path):
    names = {"id2label": {0: "a", 1: "b"}, "label2id": {"a": 0, "b": 1}}
    BertForSequenceClassification(BertConfig(**SIZES, **names)).save_pretrained(tmp_path / "headed")
    base = create_pin(str(tmp_path / "headed"), tmp_path / "headed.json"), tmp_path / "headed"
    with pytest.raises(BiaslineError, match="its head was trained on what its own pooler reads"):
        load(base, pooling="mean")
    assert load(base, pooling="mean", head="train")[1] == ["classifier.weight", "classifier.bias"]
    assert load(base)[1] == []


def test_a_sentence_encoders_own_files_say_how_it_is_read(base, tmp_path):
    """`auto` takes the mean where pinned files say so, although there is a pooler; an unpinned file says nothing."""
    pin, folder = base
    assert not pools_by_mean(load(base)[0].base_model)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    assert not pools_by_mean(load(base)[0].base_model)
    pinned = create_pin(str(folder), tmp_path / "again.json")
    assert set(pinned.files) - set(pin.files) == {"1_Pooling/config.json"}
    assert pools_by_mean(load((pinned, folder))[0].base_model)
    assert not pools_by_mean(load((pinned, folder), pooling="model")[0].base_model)
    (folder / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    with pytest.raises(BiaslineError, match="has changed since it was pinned"):
        verify(pinned, folder)
    assert not pools_by_mean(load((create_pin(str(folder), tmp_path / "cls.json"), folder))[0].base_model)
