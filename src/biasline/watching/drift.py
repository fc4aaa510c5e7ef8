"""Tests of whether rows of users are like those that a model was evaluated on: a p-value, and how far they are apart.

A p-value alone alarms at nothing once there are many rows, a distance alone at chance while there are few. So a check
alarms where both say so: the p-value after a correction for the number of checks (Holm 1979), and the distance against
the least that matters. Rows are taken to be asked independently of each other.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import chi2_contingency, false_discovery_control, fisher_exact, ks_2samp, mannwhitneyu, norm

from biasline.evaluation.statistics import CONFIDENCE, wilson_interval

# Distances below which nothing has changed that matters.
LEAST_SHARE, LEAST_DISTANCE, LEAST_TOLD_APART = 0.05, 0.15, 0.1
# Expected rows of a kind below which it is counted among "others", so that a chi-squared test holds.
_EXPECTED = 5
OTHERS = "(others)"
# Rows of either side that a classifier of texts learns from and is tried on.
_TEXTS = 4_000
_FEWEST = 20
_TWO = 2
_Z = float(norm.ppf((1 + CONFIDENCE) / 2))


@dataclass(frozen=True)
class Check:
    """One thing that rows of users are held against.

    Attributes:
        name: what it is.
        before, now: rows on either side.
        p: how likely a difference like this is where there is none; 1 where there are too few rows to tell.
        distance: between the two, in its own unit: points of a share as a fraction, Kolmogorov and Smirnov's distance,
            or how much better than a coin texts are told apart (area under the curve less one half).
        low, high: its interval at 95 %.
        least: the distance from which it matters.
        told: the same in words.
        alarms: whether it does, once `decided`.
    """

    name: str
    before: int
    now: int
    p: float
    distance: float
    low: float
    high: float
    least: float
    told: str
    alarms: bool = False


def shares(name: str, before: Sequence[str], now: Sequence[str], *, least: float = LEAST_SHARE) -> Check:
    """Shares of labels: Pearson's chi-squared test, of two Fisher's exact one; the distance is the most that one moved.

    Args:
        name: of the check.
        before: a label for each row.
        now: likewise.
        least: the distance from which it matters.
    """
    counted = [_counts(rows) for rows in (before, now)]
    total = len(before) + len(now)
    labels = sorted(set(counted[0]) | set(counted[1]))
    smaller = min(len(before), len(now))
    often = [one for one in labels if sum(c.get(one, 0) for c in counted) * smaller >= _EXPECTED * total]
    table = np.array([[c.get(one, 0) for one in often] for c in counted], dtype=np.int64).reshape(2, -1)
    rest = np.array([len(before), len(now)]) - table.sum(1)
    if rest.any():
        table, often = np.column_stack([table, rest]), [*often, OTHERS]
        if rest.sum() * smaller < _EXPECTED * total and len(often) > _TWO:
            # Still too few: the rarest of the others takes them up.
            rarest = int(table[:, :-1].sum(0).argmin())
            table[:, rarest] += rest
            table, often = table[:, :-1], [*often[:-1]]
            often[rarest] = OTHERS
    if smaller < _FEWEST or len(often) < _TWO:
        return _none(name, len(before), len(now), least)
    # Of two shares a test that is exact: one of them may be rare.
    tested = fisher_exact(table) if len(often) == _TWO else chi2_contingency(table, correction=False)
    p = float(tested.pvalue)
    parts = table / table.sum(1, keepdims=True)
    place = int(np.abs(parts[1] - parts[0]).argmax())
    moved = float(parts[1, place] - parts[0, place])
    low, high = _difference(*(int(value) for value in (*table[:, place], *table.sum(1))))
    told = f"{often[place]!r} {parts[0, place]:.1%} → {parts[1, place]:.1%}"
    low, high = (low, high) if moved >= 0 else (-high, -low)
    return Check(name, len(before), len(now), p, abs(moved), max(0.0, low), high, least, told)


def rate(name: str, before: np.ndarray, now: np.ndarray, *, least: float = LEAST_SHARE) -> Check:
    """The share of rows that something is true of: Fisher's exact test.

    Args:
        name: of the check.
        before: truth values, (rows,).
        now: likewise.
        least: the distance from which it matters.
    """
    if min(len(before), len(now)) < _FEWEST:
        return _none(name, len(before), len(now), least)
    hits = [int(rows.sum()) for rows in (before, now)]
    sizes = [len(before), len(now)]
    table = [[hit, size - hit] for hit, size in zip(hits, sizes, strict=True)]
    p = float(fisher_exact(table).pvalue)
    moved = hits[1] / sizes[1] - hits[0] / sizes[0]
    low, high = _difference(*hits, *sizes)
    low, high = (low, high) if moved >= 0 else (-high, -low)
    told = f"{hits[0] / sizes[0]:.1%} → {hits[1] / sizes[1]:.1%}"
    return Check(name, sizes[0], sizes[1], p, abs(moved), max(0.0, low), high, least, told)


def numbers(name: str, before: np.ndarray, now: np.ndarray, *, least: float = LEAST_DISTANCE) -> Check:
    """How numbers are spread: Kolmogorov and Smirnov's test and distance.

    The interval is that of the distance's own deviation at the point where it is largest.

    Args:
        name: of the check.
        before: (rows,); what is not finite is left out.
        now: likewise.
        least: the distance from which it matters.
    """
    before, now = (rows[np.isfinite(rows)] for rows in (np.asarray(before, float), np.asarray(now, float)))
    if min(len(before), len(now)) < _FEWEST:
        return _none(name, len(before), len(now), least)
    found = ks_2samp(before, now)
    distance, at = float(found.statistic), float(found.statistic_location)
    parts = [float((rows <= at).mean()) for rows in (before, now)]
    half = _Z * math.sqrt(sum(part * (1 - part) / len(rows) for part, rows in zip(parts, (before, now), strict=True)))
    told = f"median {np.median(before):.4g} → {np.median(now):.4g}"
    return Check(
        name,
        len(before),
        len(now),
        float(found.pvalue),
        distance,
        max(0.0, distance - half),
        min(1.0, distance + half),
        least,
        told,
    )


def told_apart(
    name: str, before: Sequence[str], now: Sequence[str], *, seed: int = 0, least: float = LEAST_TOLD_APART
) -> Check:
    """Whether a classifier can tell which side a text is from, by its characters: another language, topic or form.

    It learns from one half and is tried on the other, so that Mann and Whitney's test of its scores holds (a classifier
    two-sample test, Lopez-Paz and Oquab 2017).

    Args:
        name: of the check.
        before: texts.
        now: likewise.
        seed: of the halves.
        least: how much better than a coin it must be for the difference to matter.
    """
    if min(len(before), len(now)) < 2 * _FEWEST:
        return _none(name, len(before), len(now), least)
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression

    draw = np.random.default_rng(seed)
    vectors = HashingVectorizer(analyzer="char_wb", ngram_range=(1, 3), n_features=2**16, norm="l2")
    halves = []
    for rows in (before, now):
        chosen = draw.permutation(len(rows))[: 2 * _TEXTS]
        halves.append([[rows[place] for place in part] for part in np.array_split(chosen, 2)])
    learned = LogisticRegression(C=10.0, max_iter=300, class_weight="balanced").fit(
        vectors.transform([*halves[0][0], *halves[1][0]]),
        np.repeat([0, 1], [len(halves[0][0]), len(halves[1][0])]),
    )
    ours, theirs = (learned.decision_function(vectors.transform(half[1])) for half in halves)
    return _scored(name, len(before), len(now), ours, theirs, least)


def vectors_apart(
    name: str, before: np.ndarray, now: np.ndarray, *, seed: int = 0, least: float = LEAST_TOLD_APART
) -> Check:
    """As `told_apart`, by vectors, (rows, width), of the frozen base."""
    if min(len(before), len(now)) < 2 * _FEWEST:
        return _none(name, len(before), len(now), least)
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    draw = np.random.default_rng(seed)
    halves = [np.array_split(rows[draw.permutation(len(rows))], 2) for rows in (before, now)]
    learned = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300, class_weight="balanced")).fit(
        np.concatenate([halves[0][0], halves[1][0]]), np.repeat([0, 1], [len(halves[0][0]), len(halves[1][0])])
    )
    ours, theirs = (learned.decision_function(half[1]) for half in halves)
    return _scored(name, len(before), len(now), ours, theirs, least)


def decided(checks: Sequence[Check], level: float) -> list[Check]:
    """Which checks alarm, such that in a report without a change none does, but for one report in 1 / `level`.

    Holm's correction over all that could be tested.
    """
    order = sorted(range(len(checks)), key=lambda place: checks[place].p)
    found, holds = list(checks), True
    tested = sum(_is_tested(check) for check in checks)
    for rank, place in enumerate(order):
        check = checks[place]
        holds = holds and _is_tested(check) and check.p <= level / (tested - rank)
        found[place] = replace(check, alarms=holds and check.distance >= check.least)
    return found


def tenants_that_changed(checks: Mapping[str, Sequence[Check]], rate: float) -> dict[str, list[Check]]:
    """Tenants with a change, of which a share of `rate` at most is none (Benjamini and Hochberg 1995).

    Args:
        checks: of each tenant.
        rate: the false discovery rate.

    Returns:
        tenant → what changed, the surest first.
    """
    tested = {name: [one for one in found if _is_tested(one)] for name, found in checks.items()}
    tested = {name: found for name, found in tested.items() if found}
    if not tested:
        return {}
    # Bonferroni's correction within a tenant; what is significant but small counts for nothing.
    far = {name: [one for one in found if one.distance >= one.least] for name, found in tested.items()}
    least = [min(1.0, len(tested[name]) * min((one.p for one in found), default=1.0)) for name, found in far.items()]
    adjusted = false_discovery_control(least, method="bh")
    return {
        name: sorted((one for one in far[name] if one.p * len(tested[name]) <= rate), key=lambda one: one.p)
        for name, p in zip(far, adjusted, strict=True)
        if p <= rate
    }


def _is_tested(check: Check) -> bool:
    return min(check.before, check.now) >= _FEWEST and bool(check.told)


def _none(name: str, before: int, now: int, least: float) -> Check:
    return Check(name, before, now, 1.0, 0.0, 0.0, 1.0, least, "")


def _counts(rows: Sequence[str]) -> dict[str, int]:
    names, counts = np.unique(np.asarray(rows, dtype=object).astype(str), return_counts=True)
    return dict(zip(names.tolist(), counts.tolist(), strict=True))


def _difference(hits: int, other_hits: int, rows: int, other_rows: int) -> tuple[float, float]:
    """Interval of the difference of two shares, the second less the first (Newcombe 1998, method 10)."""
    first, second = hits / rows, other_hits / other_rows
    (low, high), (other_low, other_high) = wilson_interval(hits, rows), wilson_interval(other_hits, other_rows)
    moved = second - first
    return (
        moved - math.hypot(second - other_low, high - first),
        moved + math.hypot(other_high - second, first - low),
    )


def _scored(name: str, before: int, now: int, ours: np.ndarray, theirs: np.ndarray, least: float) -> Check:
    """Scores of rows that a classifier has not seen; it may only be better than a coin."""
    found = mannwhitneyu(theirs, ours, alternative="greater")
    area = float(found.statistic) / (len(ours) * len(theirs))
    # Hanley and McNeil 1982.
    first, second = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (len(theirs) - 1) * (first - area**2) + (len(ours) - 1) * (second - area**2)
    half = _Z * math.sqrt(max(spread, 0.0) / (len(ours) * len(theirs)))
    low, high = max(0.0, area - 0.5 - half), min(0.5, area - 0.5 + half)
    told = f"a classifier tells them apart: {area:.3f} of pairs, where a coin has 0.5"
    return Check(name, before, now, float(found.pvalue), max(0.0, area - 0.5), low, max(0.0, high), least, told)
