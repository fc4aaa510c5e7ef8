"""From which probability on a label is given."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from biasline.training.thresholds import best_threshold


@pytest.mark.parametrize(
    ("given_", "held", "threshold"),
    [
        ([0.2, 0.3, 0.6, 0.9], [0, 0, 1, 1], 0.5),  # any between 0.3 and 0.6 parts them
        ([0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], 0.25),
        ([0.8, 0.9], [1, 1], 0.5),
        ([0.1, 0.3], [1, 1], 0.05),
        ([0.7, 0.7, 0.7], [1, 0, 0], 0.5),
        ([0.4, 0.6], [0, 0], 0.5),
        ([0.1, 0.55, 0.9], [0, 0, 1], 0.725),
    ],
)
def test_the_highest_f1_the_nearest_to_even(given_, held, threshold):
    assert best_threshold(np.array(given_), np.array(held, bool)) == pytest.approx(threshold)


def test_of_two_as_near_the_lower_is_taken():
    # One of the two rows that have the label lies far above even, the other as far below.
    given_, held = np.array([0.2, 0.4, 0.4, 0.6, 0.6, 0.8]), np.array([1, 0, 0, 0, 0, 1], bool)
    low = f1_score(held, given_ >= 0.1)
    assert best_threshold(given_, held) == 0.7 and f1_score(held, given_ >= 0.7) > low
    # Equal at 0.3 and at 0.7: 2 of 3 right either way.
    given_, held = np.array([0.2, 0.4, 0.4, 0.6, 0.6, 0.8, 0.8]), np.array([0, 1, 0, 0, 1, 1, 1], bool)
    tried = {value: f1_score(held, given_ >= value) for value in (0.1, 0.3, 0.5, 0.7)}
    best = max(tried.values())
    assert best_threshold(given_, held) == min(
        (value for value, found in tried.items() if found == best),
        key=lambda value: (round(abs(value - 0.5), 6), value),
    )


@given(st.lists(st.tuples(st.integers(1, 99), st.booleans()), min_size=1, max_size=30))
def test_no_threshold_at_all_would_be_better(rows):
    probabilities, held = np.array([row[0] / 100 for row in rows]), np.array([row[1] for row in rows])
    found = best_threshold(probabilities, held)
    if not held.any():
        assert found == 0.5
        return
    score = f1_score(held, probabilities >= found)
    said = probabilities >= np.arange(0.005, 1.0, 0.005)[:, None]
    every = 2 * (said & held).sum(1) / (said.sum(1) + held.sum())
    assert score == pytest.approx(every.max())
    assert found == best_threshold(probabilities[::-1], held[::-1])
