"""Metrics of lists of labels: a library's values, and the same over any rows quickly."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, hamming_loss

from biasline.metrics.label_sets import flags
from biasline.metrics.metric import Predictions
from biasline.metrics.table import deciding, find_metric, main_metric

NAMES = ("a", "b", "c")
sets = st.lists(st.tuples(*[st.sets(st.sampled_from(NAMES))] * 2), min_size=1, max_size=12)


def predictions(pairs):
    texts = [[json.dumps(sorted(one)) for one in column] for column in zip(*pairs, strict=True)]
    exact = np.array([one == other for one, other in pairs])
    loss = np.array([len(one ^ other) / len(NAMES) for one, other in pairs])
    reference, predicted = (np.array(column, dtype=object) for column in texts)
    return Predictions(reference, predicted, {"exact": exact, "hamming_loss": loss})


def metric(name):
    return find_metric("multilabel", name)


def test_micro_f1_decides_and_hamming_loss_never():
    assert main_metric("multilabel").name == "f1_micro"
    assert deciding("multilabel") == ("f1_micro", "f1_macro", "exact_match")
    assert not metric("hamming_loss").higher_is_better


def test_golden_values():
    found = predictions([({"a", "b"}, {"a"}), ({"b"}, {"b", "c"}), (set(), set()), ({"a"}, {"b"})])
    # Hits a, b; misses b, c, a, b.
    assert metric("f1_micro").value(found) == pytest.approx(2 * 2 / (2 * 2 + 4))
    assert metric("f1_macro").value(found) == pytest.approx((2 / 3 + 2 / 4 + 0) / 3)
    assert metric("exact_match").value(found) == 0.25
    assert metric("hamming_loss").value(found) == pytest.approx(4 / 12)


@pytest.mark.slow
@given(sets, st.data())
def test_quick_values_are_the_librarys_over_any_rows(pairs, data):
    found = predictions(pairs)
    rows = np.array(data.draw(st.lists(st.integers(0, len(pairs) - 1), min_size=1, max_size=12)))
    for name in ("f1_micro", "f1_macro"):
        assert metric(name).of_rows(found)(rows) == pytest.approx(metric(name).value(found.take(rows)))
        assert metric(name).of_rows(found)(slice(None)) == pytest.approx(metric(name).value(found))


@pytest.mark.slow
@given(sets)
def test_values_are_those_of_scikit_learn(pairs):
    found = predictions(pairs)
    held, given_ = (
        np.array([[name in one for name in NAMES] for one in column]) for column in zip(*pairs, strict=True)
    )
    assert metric("f1_micro").value(found) == pytest.approx(f1_score(held, given_, average="micro", zero_division=0.0))
    assert metric("hamming_loss").value(found) == pytest.approx(hamming_loss(held, given_))
    occurs = [place for place in range(3) if held[:, place].any() or given_[:, place].any()]
    if len(occurs) > 1:
        macro = f1_score(held[:, occurs], given_[:, occurs], average="macro", zero_division=0.0)
        assert metric("f1_macro").value(found) == pytest.approx(macro)


def test_rows_without_any_label_are_no_error():
    found = predictions([(set(), set()), (set(), set())])
    assert flags(found)[0].shape == (2, 0)
    for name in ("f1_micro", "f1_macro"):
        assert metric(name).value(found) == metric(name).of_rows(found)(slice(None)) == 0.0
