"""Tests of change: at their stated rate where nothing changed, and found where something did."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from biasline.watching.drift import (
    OTHERS,
    decided,
    numbers,
    rate,
    shares,
    tenants_that_changed,
    told_apart,
    vectors_apart,
)

WORDS = ("the", "a", "film", "was", "good", "bad", "long", "plot", "music", "and", "of", "story", "not", "very")
GERMAN = ("der", "ein", "film", "war", "gut", "schlecht", "lang", "handlung", "musik", "und", "von", "nicht", "sehr")


def texts(draw, count, words=WORDS):
    return [" ".join(draw.choice(words, draw.integers(4, 12))) for _ in range(count)]


def week(draw, rows=300, share=0.5, factor=1.0):
    """Labels, numbers and truth values of some rows."""
    labels = np.where(draw.random(rows) < share, "good", "bad")
    return labels, draw.gamma(4.0, 10.0, rows) * factor, draw.random(rows) < 0.1


def checks(draw, before=300, **changed):
    (labels, sizes, truth), (others, other_sizes, other_truth) = week(draw, before), week(draw, **changed)
    return [
        shares("labels", labels, others),
        numbers("sizes", sizes, other_sizes),
        rate("truth", truth, other_truth),
    ]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_p_values_hold_where_nothing_changed(place):
    draw = np.random.default_rng(1)
    p = np.array([checks(draw)[place].p for _ in range(600)])
    for level in (0.05, 0.2):
        assert (p <= level).sum() <= binom.ppf(0.999, len(p), level)
    assert (p <= 0.5).mean() > 0.3  # and they do not hold by being large


def test_a_thousand_quiet_weeks_alarm_at_most_as_often_as_is_said():
    draw = np.random.default_rng(2)
    alarms = sum(any(one.alarms for one in decided(checks(draw), 0.01)) for _ in range(1_000))
    assert alarms <= binom.ppf(0.999, 1_000, 0.01)


def test_a_classifier_of_texts_alarms_at_its_rate_and_finds_another_language():
    draw = np.random.default_rng(3)
    p = np.array([told_apart("texts", texts(draw, 80), texts(draw, 80), seed=seed).p for seed in range(200)])
    assert (p <= 0.05).sum() <= binom.ppf(0.999, len(p), 0.05)
    assert (p <= 0.5).mean() > 0.3
    other = texts(
        draw,
        200,
        [
            "der",
            "ein",
            "film",
            "war",
            "gut",
            "schlecht",
            "lang",
            "handlung",
            "musik",
            "und",
            "von",
            "geschichte",
            "nicht",
            "sehr",
        ],
    )
    found = told_apart("texts", texts(draw, 200), other)
    assert found.distance > 0.45 and found.p < 1e-10 and found.low > 0.4


@pytest.mark.parametrize(
    ("changed", "which"), [({"share": 0.6}, "labels"), ({"factor": 2.0}, "sizes")], ids=["ten points", "twice as long"]
)
def test_what_changed_is_found_in_most_weeks(changed, which):
    draw = np.random.default_rng(4)
    found = [
        [one.name for one in decided(checks(draw, 1_000, rows=1_000, **changed), 0.01) if one.alarms] for _ in range(50)
    ]
    assert sum(which in one for one in found) >= 40
    assert sum(set(one) - {which} != set() for one in found) <= 4


def test_many_rows_do_not_alarm_at_a_difference_that_does_not_matter():
    draw = np.random.default_rng(5)
    labels, others = (np.where(draw.random(200_000) < share, "good", "bad") for share in (0.5, 0.51))
    [check] = decided([shares("labels", labels, others)], 0.01)
    assert check.p < 1e-4 and not check.alarms and 0.005 < check.distance < 0.015


@pytest.mark.parametrize("moved", [0.1, -0.1])
def test_intervals_hold_the_true_difference(moved):
    draw = np.random.default_rng(6)
    held = 0
    for _ in range(300):
        before, now = (draw.random(400) < share for share in (0.5, 0.5 + moved))
        check = rate("truth", before, now)
        held += check.low <= abs(moved) <= check.high
    assert held >= 300 * 0.9


def test_rare_labels_are_counted_together():
    before = ["a"] * 100 + ["b"] * 95 + [f"rare {number}" for number in range(5)]
    now = ["a"] * 100 + ["b"] * 60 + [f"odd {number}" for number in range(40)]
    check = shares("labels", before, now)
    assert check.told.startswith(repr(OTHERS)) and check.p < 1e-6


def test_few_rows_and_one_label_say_nothing():
    draw = np.random.default_rng(7)
    found = [
        shares("labels", ["a"] * 5, ["b"] * 500),
        shares("labels", ["a"] * 500, ["a"] * 500),
        rate("truth", np.zeros(3, bool), np.ones(3, bool)),
        numbers("sizes", np.full(400, np.nan), np.ones(400)),
        told_apart("texts", texts(draw, 10), texts(draw, 10)),
        vectors_apart("vectors", np.zeros((10, 3)), np.ones((10, 3))),
    ]
    assert all(one.p == 1 and not one.told for one in found)
    assert not any(one.alarms for one in decided(found, 0.5))


def test_vectors_that_lie_elsewhere_are_told_apart():
    draw = np.random.default_rng(8)
    before, now = draw.normal(size=(300, 16)), draw.normal(size=(300, 16))
    assert vectors_apart("vectors", before, now).p > 0.01
    now[:, 0] += 2
    assert vectors_apart("vectors", before, now).distance > 0.3


def test_one_tenant_of_a_hundred_is_named_and_hardly_another():
    draw = np.random.default_rng(9)
    wrong = named = 0
    for _ in range(20):
        found = {
            f"tenant {number}": checks(draw, rows=200, share=0.85 if number == 7 else 0.5) for number in range(100)
        }
        changed = tenants_that_changed(found, 0.1)
        named += "tenant 7" in changed
        wrong += len(set(changed) - {"tenant 7"})
    assert named == 20 and wrong <= 8
    assert tenants_that_changed({}, 0.1) == {}


def test_one_row_of_a_rare_label_among_few_does_not_alarm():
    [check] = decided([shares("labels", ["a"] * 900, [*["a"] * 19, "rare"])], 0.01)
    assert check.p > 0.01 and not check.alarms
    draw = np.random.default_rng(10)
    labels = [np.where(draw.random(rows) < 0.005, "rare", "a") for rows in [900, 20] * 400]
    p = [shares("labels", before, now).p for before, now in zip(labels[::2], labels[1::2], strict=True)]
    assert sum(one <= 0.05 for one in p) <= binom.ppf(0.999, len(p), 0.05)


def test_a_tenant_is_named_with_what_changed_where_other_checks_had_too_few_rows():
    """What could not be tested counts neither for naming it nor for telling why."""
    draw = np.random.default_rng(12)
    few = [shares("labels", ["a"] * 500, ["a"] * 500)] * 3
    far = replace(checks(draw)[1], p=0.04, distance=0.9)
    assert tenants_that_changed({"odd": [*few, far]}, 0.1) == {"odd": [far]}


def test_a_tenant_is_told_by_what_changed():
    draw = np.random.default_rng(11)
    found = {f"tenant {number}": checks(draw, 60, rows=60) for number in range(20)}
    found["odd"] = checks(draw, 60, rows=60, factor=3.0)
    changed = tenants_that_changed(found, 0.1)["odd"]
    assert changed[0].name == "sizes" and all(one.p * 3 <= 0.1 for one in changed)
