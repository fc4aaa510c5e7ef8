"""Metrics of tags: entities as seqeval and conlleval count them, words, and the same over any rows quickly."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biasline.metrics.metric import Predictions
from biasline.metrics.spans import Entity, entities, mended
from biasline.metrics.table import deciding, find_metric, main_metric
from biasline.metrics.tags import by_type

TAGS = ("O", "B-A", "I-A", "B-B", "I-B")
PLAIN = ("NOUN", "VERB", "DET")


def rows_of(tags):
    row = st.lists(st.tuples(st.sampled_from(tags), st.sampled_from(tags)), min_size=1, max_size=8)
    return st.lists(row, min_size=1, max_size=8)


def predictions(rows):
    reference, predicted = (
        np.array([" ".join(pair[side] for pair in row) for row in rows], dtype=object) for side in (0, 1)
    )
    return Predictions(reference, predicted, {"exact": reference == predicted})


def metric(name):
    return find_metric("tagging", name)


def test_f1_of_entities_decides():
    assert main_metric("tagging").name == "f1"
    assert deciding("tagging") == ("f1", "precision", "recall", "accuracy", "exact_match")


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("B-A I-A O B-A", [("A", 0, 2), ("A", 3, 4)]),
        ("B-A B-A", [("A", 0, 1), ("A", 1, 2)]),
        ("I-A I-A I-B", [("A", 0, 2), ("B", 2, 3)]),  # as conlleval has it
        ("O I-A O", [("A", 1, 2)]),
        ("B-A I-B", [("A", 0, 1), ("B", 1, 2)]),
        ("DET NOUN O", [("DET", 0, 1), ("NOUN", 1, 2)]),
        ("B- I-", [("B-", 0, 1), ("I-", 1, 2)]),
    ],
)
def test_the_entities_that_tags_mark(tags, found):
    assert entities(tags.split()) == [Entity(*one) for one in found]


def test_golden_values():
    """The example of conlleval: a wrong end, a wrong type, one that is missed, one that is right."""
    rows = [
        [("B-A", "B-A"), ("I-A", "O"), ("O", "O")],
        [("B-B", "B-A"), ("O", "O"), ("B-A", "O"), ("B-B", "I-B"), ("I-B", "I-B")],
    ]
    found = predictions(rows)
    # Held: A, B, A, B; given: A, A, B; right: the last B.
    assert metric("precision").value(found) == pytest.approx(1 / 3)
    assert metric("recall").value(found) == pytest.approx(1 / 4)
    assert metric("f1").value(found) == pytest.approx(2 / 7)
    assert metric("accuracy").value(found) == pytest.approx(4 / 8)
    assert metric("exact_match").value(found) == 0.0
    kinds = by_type(found.reference, found.predicted)
    assert [(name, one.correct, one.possible, one.actual) for name, one in kinds.items()] == [
        ("A", 0, 2, 2),
        ("B", 1, 2, 1),
    ]


@given(rows_of(TAGS), st.data())
def test_counts_come_to_what_the_library_says_over_any_rows(rows, data):
    chosen = np.array(data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1, max_size=12)))
    found = predictions(rows)
    for name in ("f1", "precision", "recall", "accuracy"):
        one = metric(name)
        assert one.of_rows(found)(slice(None)) == pytest.approx(one.value(found), abs=1e-12)
        assert one.of_rows(found)(chosen) == pytest.approx(one.value(found.take(chosen)), abs=1e-12)


@given(rows_of(PLAIN))
def test_of_plain_tags_f1_is_the_share_of_right_words(rows):
    found = predictions(rows)
    right = np.mean([one == other for row in rows for one, other in row])
    for name in ("f1", "precision", "recall", "accuracy"):
        assert metric(name).value(found) == pytest.approx(right)


@given(st.lists(st.sampled_from(TAGS), min_size=1))
def test_mended_tags_mark_the_same_entities(tags):
    assert entities(list(mended(tags))) == entities(tags)
