import numpy as np
import pytest

from biasline.search.verdict import Finished, judge


def drawn(rates, rows=400, seed=0):
    """Scores of trials that are right so often, each row by itself."""
    generator = np.random.default_rng(seed)
    return [
        Finished(
            number, {"length": number} if number else {}, (generator.random(rows) < rate).astype(float), np.ones(rows)
        )
        for number, rate in enumerate(rates)
    ]


def test_one_that_is_clearly_better_is_shown():
    verdict = judge(drawn([0.6, 0.8, 0.5]))
    assert verdict.best.number == 1 and verdict.better and verdict.shown
    assert verdict.gain == pytest.approx(0.2, abs=0.07)
    assert 0 <= verdict.optimism < 0.01  # the others are far behind: there was nothing to be lucky with


def test_of_many_alike_the_best_only_looks_better():
    """What is left of the gain is about nothing: no rule could have told which one to take."""
    found = [judge(drawn([0.7] * 24, seed=seed)) for seed in range(60)]
    assert np.mean([verdict.gain for verdict in found]) > 0.03
    assert np.mean([verdict.gain - verdict.optimism for verdict in found]) == pytest.approx(0.0, abs=0.01)
    assert np.mean([verdict.shown for verdict in found]) < 0.05


def test_nothing_is_better_than_itself():
    [own] = drawn([0.7])
    verdict = judge([own])
    assert (verdict.best, verdict.gain, verdict.optimism, verdict.better) == (own, 0.0, 0.0, False)


def test_equal_ones_leave_the_parameters_as_they_are():
    own, *_ = drawn([0.7])
    others = [Finished(number, {"epochs": number}, own.scores, own.counts) for number in (1, 2)]
    verdict = judge([own, *others])
    assert verdict.best is own and not verdict.better


def test_losses_count_as_scores_do():
    generator = np.random.default_rng(0)
    losses = generator.exponential(1.0, 300)
    ones = np.ones(300)
    verdict = judge([Finished(0, {}, -losses, ones), Finished(1, {"epochs": 1}, -losses * 0.8, ones)])
    assert verdict.best.number == 1 and verdict.gain == pytest.approx(0.2 * losses.mean()) and verdict.shown


def test_tokens_of_one_row_are_not_so_many_rows():
    """Rows whose tokens go together: fifty of them tell no more than fifty."""
    found = []
    for seed in range(60):
        generator = np.random.default_rng(seed)
        counts = generator.integers(20, 100, 50).astype(float)
        trials = [
            Finished(number, {"epochs": number} if number else {}, counts * generator.normal(-1, 0.3, 50), counts)
            for number in range(4)
        ]
        found.append(judge(trials))
    assert np.mean([verdict.shown for verdict in found]) < 0.1
    assert np.mean([verdict.gain - verdict.optimism for verdict in found]) == pytest.approx(0.0, abs=0.02)


def test_a_score_is_that_of_all_targets():
    one = Finished(0, {}, np.array([-2.0, -30.0]), np.array([1.0, 10.0]))
    assert one.score == pytest.approx(-32 / 11)
