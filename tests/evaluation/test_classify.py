import numpy as np
import polars as pl
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from biasline.evaluation.classify import class_metrics, predictions, probabilities


def test_metrics_by_hand():
    metrics = class_metrics(["a", "a", "b", "b"], ["a", "b", "b", "b"])
    assert metrics["accuracy"] == 0.75
    assert metrics["f1_macro"] == pytest.approx((2 / 3 + 0.8) / 2, abs=1e-6)
    assert metrics["mcc"] == pytest.approx(1 / 3**0.5, abs=1e-6)
    assert metrics["accuracy_low"] < 0.75 < metrics["accuracy_high"]


def test_the_majority_class_has_no_correlation():
    assert class_metrics(["a", "a", "b"], ["a", "a", "a"])["mcc"] == 0.0


def test_a_batch_gives_what_single_rows_give():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64}
    model = BertForSequenceClassification(BertConfig(**sizes, vocab_size=100, num_labels=3)).eval()
    rows = [{"input_ids": list(range(5, 5 + size)), "token_type_ids": [0] * size} for size in (3, 9, 1, 6)]
    alone = np.concatenate([probabilities(model, [row], 0, 1) for row in rows])
    assert np.allclose(probabilities(model, rows, 0, 2), alone, atol=1e-6)
    assert np.allclose(alone.sum(1), 1)


def test_predictions_name_labels_and_both_models():
    test = pl.DataFrame({"row": [1, 2], "text": ["x", "y"], "label": ["good", "bad"]})
    table = predictions(test, ["bad", "good"], np.array([[0.1, 0.9], [0.3, 0.7]]), "bad")
    assert table.select("base", "tuned", "probability", "base_exact", "tuned_exact").rows() == [
        ("bad", "good", 0.9, False, True),
        ("bad", "good", 0.7, True, False),
    ]
