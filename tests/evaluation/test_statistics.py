import numpy as np
import pytest

from biasline.evaluation.statistics import paired_interval, wilson_interval


@pytest.mark.parametrize(
    ("hits", "rows", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (15, 148, 0.0624, 0.1605), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_against_published_values(hits, rows, low, high):
    """15/148 and 1/29 are examples of Newcombe (1998), Statistics in Medicine 17, table I."""
    assert wilson_interval(hits, rows) == pytest.approx((low, high), abs=5e-4)


def test_a_paired_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    hits = 0
    for _ in range(40):
        one, two = generator.random(80) < 0.6, generator.random(80) < 0.5
        _, low, high = paired_interval(one, two)
        hits += low <= 0.1 <= high
    assert 34 <= hits <= 40


def test_pairs_count_not_totals():
    same = np.array([1, 0] * 50)
    mean, low, high = paired_interval(same, same)
    assert (mean, low, high) == (0.0, 0.0, 0.0)


def test_the_same_seed_gives_the_same_interval():
    one, two = np.random.default_rng(3).random((2, 50))
    assert paired_interval(one, two) == paired_interval(one, two)
    assert paired_interval(one, two) != paired_interval(one, two, seed=1)
