import warnings

import polars as pl
import pytest

from biasline.bitfit import inspect_biases
from biasline.evaluation.classify import calibration
from biasline.evaluation.scoring import slice_table
from biasline.figures import biases, comparison, run
from biasline.metrics.table import find_metric


def test_figures_are_drawn_from_the_outs(tmp_path):
    history = pl.DataFrame({"step": [10, 20], "loss": [2.0, 1.0], "valid_loss": [None, 1.1]})
    predictions = pl.DataFrame({"skill": ["a", "b"], "base_exact": [False, False], "tuned_exact": [True, False]})
    change = pl.DataFrame({"layer": [-1, 0, 0], "role": ["norm", "query", "mlp_in"], "change": [0.1, 0.2, 0.3]})
    exact = find_metric("instruction", "exact_match")
    drawn = {
        "loss": run.loss_curve(history),
        "slices": run.metric_by_slice(
            slice_table(predictions, ("skill",), exact, "instruction"), {"tuned": {"exact_match": 0.5}}, exact
        ),
        "change": biases.bias_change(change),
    }
    for name, figure in drawn.items():
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 5000
    assert [text.get_text() for text in drawn["change"].axes[0].get_xticklabels()] == ["query", "mlp_in", "norm"]
    assert "a  (1)" in [text.get_text() for text in drawn["slices"].axes[0].get_yticklabels()]


def test_a_model_without_biases_is_drawn_as_what_could_be_injected(bloom):
    from tests.bitfit.zoo import build

    drawn = biases.bias_counts(inspect_biases(build("llama")))
    written = [text.get_text() for text in drawn.axes[0].texts]
    assert "(8)" in written and "(48)" in written  # key and value; gate and up
    drawn = biases.bias_counts(inspect_biases(bloom))
    assert "32" in [text.get_text() for text in drawn.axes[0].texts]
    assert drawn.axes[0].get_title().startswith("Biases of bloom: ")


def test_confusion_and_calibration_are_drawn(tmp_path):
    from tests.evaluation.test_classify import ANSWERS

    drawn = run.confusion(ANSWERS.select(actual="label", predicted="tuned"))
    assert [text.get_text() for text in drawn.axes[0].texts] == ["1", "1", "0", "0", "2", "0", "1", "0", "0"]
    drawn.savefig(tmp_path / "confusion.png")
    run.reliability(calibration(ANSWERS)).savefig(tmp_path / "calibration.png")
    assert all(path.stat().st_size > 5000 for path in tmp_path.iterdir())


def test_chinese_labels_are_drawn(tmp_path):
    """A letter that no font has is a warning, and a box in the picture."""
    pairs = pl.DataFrame({"actual": ["好评", "差评"], "predicted": ["好评", "好评"]})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run.confusion(pairs).savefig(tmp_path / "chinese.png")
    with pytest.warns(UserWarning, match="Glyph"):  # so a missing one would be seen
        run.confusion(pairs.with_columns(actual=pl.Series(["\U00012000", "差评"]))).savefig(tmp_path / "no.png")


def test_lengths_are_drawn_per_split(tmp_path):
    table = pl.DataFrame({"tokens": [8, 16], "train": [0.5, 0.5], "valid": [1.0, 0.0], "test": [0.0, 1.0]})
    drawn = run.lengths(table)
    drawn.savefig(tmp_path / "lengths.png")
    assert [text.get_text() for text in drawn.axes[0].get_legend().get_texts()] == ["train", "valid", "test"]


def test_methods_stand_by_size_and_quality(tmp_path):
    rows = [
        {"name": "bitfit", "bytes": 36_000, "value": 0.9, "low": 0.85, "high": 0.95},
        {"name": "full", "bytes": 6_000_000, "value": 0.92, "low": None, "high": None},
    ]
    drawn = comparison.methods(rows, "exact match")
    drawn.savefig(tmp_path / "methods.png")
    assert drawn.axes[0].get_xscale() == "log" and drawn.axes[0].get_ylabel() == "exact match"
