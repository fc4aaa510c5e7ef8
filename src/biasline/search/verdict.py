"""What a search found, and what it costs to have looked at the same validation rows so often."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

_RESAMPLES = 1_000
_SEED = 0
_95 = 1.959964
# Numbers of a resample that are drawn at a time.
_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class Finished:
    """A training that was not stopped.

    Attributes:
        number: of the trial; 0 is the task's own parameters.
        changes: what it changes of them.
        scores: of each validation row, the same ones in the same order in every trial: the sum over its targets (one,
            or words, or supervised tokens); high is good.
        counts: of each row how many targets, or their weight.
    """

    number: int
    changes: Mapping[str, Any]
    scores: np.ndarray
    counts: np.ndarray

    @property
    def score(self) -> float:
        """The mean over all targets."""
        return float(self.scores.sum() / self.counts.sum())


@dataclass(frozen=True)
class Verdict:
    """The best finished training beside the one of the task's own parameters.

    Attributes:
        best: the one with the highest score; the task's own where no other is higher.
        gain: its score less that of the task's own parameters.
        error: half of the gain's paired 95 % interval, over rows.
        optimism: how much of the gain is there because the best of those that finished was taken on these rows.
        among: how many finished.
    """

    best: Finished
    gain: float
    error: float
    optimism: float
    among: int

    @property
    def better(self) -> bool:
        """Whether something is left of the gain without what looking often adds to it."""
        return bool(self.best.changes) and self.gain > self.optimism

    @property
    def shown(self) -> bool:
        """Whether that is so at 95 %."""
        return self.better and self.gain - self.optimism > self.error


def judge(finished: Sequence[Finished]) -> Verdict:
    """Choose among finished trainings, the task's own parameters being the first.

    What is left of the gain is told by choosing on a resample of the rows and counting on those that are not in it,
    many times over (Tsamardinos et al. 2018, "Bootstrapping the out-of-sample predictions for efficient and accurate
    cross-validation").
    """
    own, counts = finished[0], finished[0].counts
    best = max(finished, key=lambda one: (one.score, -one.number))
    gain = best.score - own.score
    # A ratio of two sums over rows, by its first-order error.
    odds = (best.scores - own.scores - gain * counts) / counts.mean()
    error = _95 * float(odds.std()) / len(odds) ** 0.5
    left = _gain_elsewhere(np.stack([one.scores for one in finished]), counts)
    return Verdict(best, gain, error, max(0.0, gain - left), len(finished))


def _gain_elsewhere(scores: np.ndarray, counts: np.ndarray) -> float:
    """What the one that is best on a resample gains over the first on the other rows; scores are (trials, rows)."""
    trials, rows = scores.shape
    if trials == 1 or rows < 2:
        return 0.0
    generator, found = np.random.default_rng(_SEED), []
    each = max(1, _AT_ONCE // rows)
    for start in range(0, _RESAMPLES, each):
        count = min(each, _RESAMPLES - start)
        times = generator.multinomial(rows, np.full(rows, 1 / rows), count)
        chosen = ((times @ scores.T) / np.maximum(times @ counts, 1e-12)[:, None]).argmax(1)
        others = (times == 0).astype(float)
        means = (others @ scores.T) / np.maximum(others @ counts, 1e-12)[:, None]
        found.append(means[np.arange(count), chosen] - means[:, 0])
    return float(np.concatenate(found).mean())
