import numpy as np
import polars as pl
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from biasline.evaluation.classify import (
    calibration,
    class_metrics,
    class_sections,
    class_table,
    mistakes,
    positive_of,
    predictions,
    probabilities,
    probed,
)
from biasline.kinds.learning import columns_of


def test_metrics_by_hand():
    metrics = class_metrics("classification", ["a", "a", "b", "b"], ["a", "b", "b", "b"], ["a", "b"])
    assert metrics["accuracy"] == 0.75
    assert metrics["f1_macro"] == pytest.approx((2 / 3 + 0.8) / 2, abs=1e-6)
    assert metrics["mcc"] == pytest.approx(1 / 3**0.5, abs=1e-6)
    assert metrics["f1"] == pytest.approx(0.8)
    assert "f1" not in class_metrics("classification", ["a", "b", "c"], ["a", "b", "c"], ["a", "b", "c"])
    assert metrics["accuracy_low"] < 0.75 < metrics["accuracy_high"]


def test_one_label_alone_is_no_news(recwarn):
    assert class_metrics("classification", ["a", "a"], ["a", "a"], ["a", "b"])["mcc"] == 0.0
    assert not recwarn.list


def test_the_majority_class_has_no_correlation():
    assert class_metrics("classification", ["a", "a", "b"], ["a", "a", "a"], ["a", "b"])["mcc"] == 0.0


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


ANSWERS = pl.DataFrame(
    {
        "row": [1, 2, 3, 4, 5],
        "label": ["a", "a", "b", "b", "c"],
        "tuned": ["a", "b", "b", "b", "a"],
        "probability": [0.95, 0.55, 0.92, 0.58, 0.97],
        "tuned_exact": [True, False, True, True, False],
    }
)


def test_calibration_by_hand():
    table = calibration(ANSWERS)
    assert table["rows"].to_list() == [2, 3]
    assert table["above"].to_list() == pytest.approx([0.5, 0.9]) and table["to"].to_list() == pytest.approx([0.6, 1.0])
    assert table["accuracy"].to_list() == pytest.approx([1 / 2, 2 / 3])
    expected = (2 * abs(0.565 - 1 / 2) + 3 * abs((0.95 + 0.92 + 0.97) / 3 - 2 / 3)) / 5
    answers = ANSWERS.select("label", "tuned", "probability").to_dict(as_series=False)
    found = class_metrics("classification", answers["label"], answers["tuned"], ["a", "b", "c"], answers["probability"])
    assert found["calibration_error"] == pytest.approx(expected, abs=1e-6)


def test_the_edges_of_ranges_hold_every_probability():
    edges = ANSWERS.with_columns(pl.Series("probability", [0.0, 0.1, 0.5, 1.0, 1.0]))
    assert calibration(edges)["rows"].sum() == 5


def test_labels_one_by_one():
    rows = {row["label"]: row for row in class_table(ANSWERS, ["a", "b", "c"]).iter_rows(named=True)}
    assert (rows["a"]["rows"], rows["a"]["given"], rows["a"]["recall"], rows["a"]["precision"]) == (2, 2, 0.5, 0.5)
    assert rows["b"]["precision"] == pytest.approx(2 / 3) and rows["b"]["recall"] == 1.0
    assert rows["c"]["f1"] == 0.0


def test_the_surest_mistakes_come_first():
    assert mistakes(ANSWERS, 5)["row"].to_list() == [5, 2]
    assert mistakes(ANSWERS, 1)["row"].to_list() == [5]


def test_one_label_is_measured_where_there_are_two():
    assert positive_of(["no", "yes"]) == "yes"
    assert positive_of(["a", "b", "c"]) == positive_of(["a"]) == ""


def test_the_card_tells_labels_calibration_and_mistakes():
    answers = ANSWERS.with_columns(pl.lit("some\ntext").alias("text"), pl.lit("").alias("text_pair"))
    lines = class_sections(answers, ["a", "b", "c", "d|e"], columns_of("classification"))
    assert "| a | 2 | 2 | 0.500 | 0.500 | 0.500 |" in lines
    assert "No test row has the label d\\|e: no number here says anything about it." in lines
    assert lines[-2:] == ["| 5 | some text | c | a | 0.970 |", "| 2 | some text | a | b | 0.550 |"]
    right = answers.with_columns(pl.col("label").alias("tuned"), tuned_exact=True)
    assert class_sections(right, ["a", "b", "c"], columns_of("classification"))[-1] == "None."


def test_a_head_on_the_frozen_base_is_fitted_on_training_rows():
    """Embeddings of the tokens tell the classes apart by themselves; a probe must see that, and change nothing."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "num_hidden_layers": 1, "intermediate_size": 64}
    model = BertForSequenceClassification(BertConfig(**sizes, vocab_size=100)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    rows = [{"input_ids": [5 + n % 7, 20 + 30 * (n % 2)], "labels": n % 2} for n in range(60)]
    assert (probed(model, rows[:40], rows[40:], 0, 8) == [row["labels"] for row in rows[40:]]).mean() > 0.9
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert set(probed(model, rows[0:40:2], rows[40:], 0, 8)) == {0}  # one class only: nothing to fit


def test_the_probe_of_an_encoder_decoder_reads_the_encoder():
    from transformers import T5Config, T5ForSequenceClassification

    torch.manual_seed(0)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "vocab_size": 50}
    model = T5ForSequenceClassification(T5Config(**sizes, num_labels=2)).eval()
    rows = [{"input_ids": [5 + n % 3, 10 + 20 * (n % 2), 1], "labels": n % 2} for n in range(20)]
    assert (probed(model, rows[:14], rows[14:], 0, 4) == [row["labels"] for row in rows[14:]]).all()
