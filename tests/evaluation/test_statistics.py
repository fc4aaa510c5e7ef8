import math

import numpy as np
import pytest

from biasline.evaluation.statistics import (
    fisher_interval,
    mean_interval,
    paired_interval,
    paired_proportions,
    wilson_interval,
)


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
    """Equal on every row: z² / (rows + z²) to either side, since a hundred rows that agree prove no more."""
    same = np.array([1, 0] * 50)
    mean, low, high = paired_interval(same, same)
    assert (mean, -low, high) == pytest.approx((0.0, 3.8415 / 103.8415, 3.8415 / 103.8415), abs=1e-5)
    turned = 1 - same
    assert paired_interval(same, turned)[2] > 0.15  # as many right, on other rows


def test_paired_proportions_against_a_published_value():
    """Airway reactivity of 21 children: 1, 1, 7, 12; Fagerland, Lydersen and Laake (2014), Tango's interval."""
    assert paired_proportions(1, 7, 21) == pytest.approx((-0.517, -0.026), abs=5e-4)
    low, high = paired_proportions(7, 1, 21)
    assert (low, high) == pytest.approx((0.026, 0.517), abs=5e-4)


@pytest.mark.parametrize(("gained", "lost", "rows"), [(0, 0, 1), (1, 0, 1), (5, 0, 5), (0, 20, 20), (400, 380, 10_000)])
def test_paired_proportions_hold_the_estimate_and_stay_in_range(gained, lost, rows):
    low, high = paired_proportions(gained, lost, rows)
    assert -1 <= low <= (gained - lost) / rows <= high <= 1
    wider = paired_proportions(gained, lost, rows, confidence=0.99)
    assert wider[0] <= low and high <= wider[1]


def test_the_same_seed_gives_the_same_interval():
    one, two = np.random.default_rng(3).random((2, 50))
    assert paired_interval(one, two) == paired_interval(one, two)
    assert paired_interval(one, two) != paired_interval(one, two, seed=1)


@pytest.mark.parametrize(("value", "rows", "low", "high"), [(0.5, 20, 0.0733, 0.7717), (0.0, 103, -0.1935, 0.1935)])
def test_the_interval_of_a_correlation(value, rows, low, high):
    """By tanh(artanh(r) ± 1.96 / sqrt(n - 3)), worked out by hand."""
    assert fisher_interval(value, rows) == pytest.approx((low, high), abs=1e-3)
    assert fisher_interval(value, 3) == (-1.0, 1.0)


def test_the_interval_of_a_mean():
    """Student's, 9 degrees of freedom: 2.262 standard errors."""
    values = np.arange(1.0, 11.0)
    mean, low, high = mean_interval(values)
    assert mean == 5.5
    assert (mean - low, high - mean) == pytest.approx((2.262 * 3.0277 / 10**0.5,) * 2, abs=1e-3)
    assert mean_interval(np.array([0.0, 1.0]))[1] == 0.0


def test_of_a_few_rows_the_interval_is_students():
    low, high = paired_interval(np.array([-1.2]), np.array([-1.0]))[1:]
    assert (low, high) == (-math.inf, math.inf)  # one row tells nothing
    mean, low, high = paired_interval(np.array([1.5, 2.5, 3.5]), np.zeros(3))
    assert mean == 2.5 and (low, high) == pytest.approx((2.5 - 2.4841, 2.5 + 2.4841), abs=1e-3)  # t of 2 is 4.303
