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
        scores: of each target of the validation rows, the same ones in the same order in every trial; high is good.
    """

    number: int
    changes: Mapping[str, Any]
    scores: np.ndarray


@dataclass(frozen=True)
class Verdict:
    """The best finished training beside the one of the task's own parameters.

    Attributes:
        best: the one with the highest mean score; the task's own where no other is higher.
        gain: its mean score less that of the task's own parameters.
        error: half of the gain's paired 95 % interval.
        optimism: how much higher the best of so many looks on these rows than it would on others.
    """

    best: Finished
    gain: float
    error: float
    optimism: float

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

    What is left of the gain is told by choosing on a resample of the targets and counting on those that are not in it,
    many times over (Tsamardinos et al. 2018, "Bootstrapping the out-of-sample predictions for efficient and accurate
    cross-validation").
    """
    own = finished[0]
    best = max(finished, key=lambda one: (one.scores.mean(), -one.number))
    gaps = best.scores - own.scores
    gain, error = float(gaps.mean()), _95 * float(gaps.std()) / len(gaps) ** 0.5
    left = _gain_elsewhere(np.stack([one.scores for one in finished]))
    return Verdict(best, gain, error, max(0.0, gain - left))


def _gain_elsewhere(scores: np.ndarray) -> float:
    """What the one that is best on a resample gains over the first on the other targets; scores (trials, targets)."""
    trials, targets = scores.shape
    if trials == 1 or targets < 2:
        return 0.0
    generator, found = np.random.default_rng(_SEED), []
    each = max(1, _AT_ONCE // targets)
    for start in range(0, _RESAMPLES, each):
        count = min(each, _RESAMPLES - start)
        times = generator.multinomial(targets, np.full(targets, 1 / targets), count)
        chosen = (times @ scores.T).argmax(1)
        others = (times == 0).astype(float)
        means = (others @ scores.T) / np.maximum(others.sum(1, keepdims=True), 1)
        found.append(means[np.arange(count), chosen] - means[:, 0])
    return float(np.concatenate(found).mean())
