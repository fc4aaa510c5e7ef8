"""How sure a classifier is made to be."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy.special import softmax
from transformers import BertConfig, BertForSequenceClassification

from biasline.params import Train
from biasline.training.temperature import best_temperature, calibrate


def test_outputs_that_are_too_sure_get_the_temperature_that_they_were_made_with():
    generator = np.random.default_rng(0)
    outputs = generator.normal(size=(20_000, 4)) * 2
    labels = np.array([generator.choice(4, p=chances) for chances in softmax(outputs, axis=1)])
    for factor in (0.5, 1.0, 3.0):
        assert best_temperature(outputs * factor, labels) == pytest.approx(factor, rel=0.05)


def test_labels_that_are_always_right_leave_a_doubt():
    """A model that is right on thirty rows is made as sure as thirty rows can show it to be, and no surer."""
    outputs, labels = np.eye(3)[[0, 1, 2] * 10], np.array([0, 1, 2] * 10)
    for factor in (1.0, 5.0, 40.0):
        sure = softmax(factor * outputs / best_temperature(factor * outputs, labels), axis=1).max(1)
        assert sure == pytest.approx(1 - 2 / 3 / 32, abs=1e-3)
    assert best_temperature(outputs, np.array([1, 2, 0] * 10)) == pytest.approx(10.0, rel=1e-3)


def classifier(trained=True):
    torch.manual_seed(0)
    config = BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=50, num_labels=3
    )
    model = BertForSequenceClassification(config).eval()
    model.config.pad_token_id = 0
    model.requires_grad_(False)
    model.classifier.requires_grad_(trained)
    with torch.no_grad():
        model.classifier.weight.mul_(300)
    return model


def rows(count):
    generator = np.random.default_rng(1)
    ids = [generator.integers(1, 50, size=5).tolist() for _ in range(count)]
    return Dataset.from_dict(
        {"row": list(range(count)), "input_ids": ids, "labels": generator.integers(0, 3, size=count).tolist()}
    )


def test_the_last_layer_is_divided_and_no_label_changes():
    model, valid = classifier(), rows(60)
    ids = torch.tensor(valid["input_ids"])
    with torch.no_grad():
        before = model(input_ids=ids).logits
    told, notes = calibrate(model, valid, Train())
    with torch.no_grad():
        after = model(input_ids=ids).logits
    temperature = float(told["temperature"])
    assert temperature > 1 and not notes
    assert torch.allclose(after, before / temperature, rtol=1e-4, atol=1e-6)
    assert torch.equal(after.argmax(-1), before.argmax(-1))
    labels = torch.tensor(valid["labels"])
    cross_entropy = torch.nn.functional.cross_entropy
    assert cross_entropy(after, labels) < cross_entropy(before, labels)
    # What is divided already stays: there is nothing left to mend.
    assert float(calibrate(model, valid, Train())[0]["temperature"]) == pytest.approx(1.0, rel=1e-3)


def test_a_layer_that_only_looks_like_the_heads_stays_as_it_is():
    """A matrix of LoRA's may have as many outputs as there are labels."""
    model = classifier(trained=False)
    model.bert.encoder.layer[0].attention.self.query = layer = torch.nn.Sequential(
        torch.nn.Linear(16, 3), torch.nn.Linear(3, 16)
    )
    before = layer[0].weight.clone()
    assert calibrate(model, rows(60), Train()) == ({}, [])
    assert torch.equal(layer[0].weight, before)
    model.classifier.requires_grad_(True)
    assert "temperature" in calibrate(model, rows(60), Train())[0]
    assert torch.equal(layer[0].weight, before)


def test_a_decoders_head_is_found(bloom):
    from transformers import BloomForSequenceClassification

    config = bloom.config
    config.num_labels = 3
    model = BloomForSequenceClassification(config).eval()
    model.requires_grad_(False)
    model.score.requires_grad_(True)
    before = model.score.weight.clone()
    temperature = float(calibrate(model, rows(60), Train())[0]["temperature"])
    assert torch.allclose(model.score.weight, before / temperature)


def test_a_frozen_head_and_too_few_rows_leave_it_as_it_is():
    frozen = classifier(trained=False)
    before = frozen.classifier.weight.clone()
    assert calibrate(frozen, rows(60), Train()) == ({}, [])
    assert torch.equal(frozen.classifier.weight, before)
    model = classifier()
    told, [note] = calibrate(model, rows(19), Train())
    assert told == {} and note == "19 validation rows are too few to tell how sure the model should be"
    assert calibrate(classifier(), rows(0), Train())[0] == {}
