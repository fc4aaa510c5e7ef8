"""What stands beside the labels given, and how they are told."""

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import classification_report

from biasline.errors import BiaslineError
from biasline.evaluation.label_sets import answered, label_table, most_have, names_of, thresholds_of

LABELS = ["a", "b", "never"]


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ([["a"], ["a", "b"], ["a"]], ["a"]),
        ([["a", "b"], ["a", "b"], []], ["a", "b"]),
        ([["a"], ["b"], ["b"], []], ["b"]),  # half is not more than half, and one label there must be
        ([["a"], ["b"]], ["a"]),
    ],
)
def test_what_an_untrained_head_is_held_against(train, expected):
    assert most_have(train, LABELS) == expected


def test_thresholds_are_in_the_order_of_the_labels_and_none_may_lack():
    told = {"thresholds": '{"b": 0.4, "a": 0.3, "never": 0.5}'}
    assert thresholds_of(told, LABELS, "the delta").tolist() == [0.3, 0.4, 0.5]
    with pytest.raises(BiaslineError, match="the delta: no threshold for the label 'c' → train it again"):
        thresholds_of(told, [*LABELS, "c"], "the delta")


def test_the_table_of_labels_is_scikit_learns():
    held, given = (np.random.default_rng(seed).random((40, 3)) < (0.5, 0.2, 0.0) for seed in (1, 2))
    frame = pl.DataFrame({"row": range(40), "labels": names_of(held, LABELS)})
    frame = answered(frame, "tuned", names_of(given, LABELS), LABELS)
    assert frame["tuned_hamming_loss"].mean() == pytest.approx((held ^ given).mean(), abs=1e-6)
    assert frame["tuned_exact"].to_list() == (held == given).all(1).tolist()
    expected = classification_report(held, given, target_names=LABELS, output_dict=True, zero_division=0.0)
    for row in label_table(frame, LABELS).iter_rows(named=True):
        of_label = expected[row["label"]]
        found = [row["precision"], row["recall"], row["f1"], row["rows"]]
        assert found == pytest.approx([of_label[name] for name in ("precision", "recall", "f1-score", "support")])
