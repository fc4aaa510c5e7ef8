"""How often promotion errs: simulated candidates of a known difference to the champion, judged by the product's gates.

`python -m benchmarks.promotion` writes benchmarks/promotion.md (a few minutes on one core).

A pair is a test set on which the candidate alone is right in some rows, the champion alone in others. At a true
difference of -margin a candidate should be refused, at 0 promoted. The nominal rates are those of a normal
approximation: 2.5 % promoted at -margin; at 0 refused as often as the standard error makes the interval reach -margin.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.stats import norm

from biasline.evaluation.statistics import CONFIDENCE, bootstrap_mean, paired_proportions
from biasline.params import Gates

MARGIN, ALLOWED = Gates().margin, Gates().slice_drop
PAIRS = 20_000
OUT = Path(__file__).with_name("promotion.md")
Z = norm.ppf((1 + CONFIDENCE) / 2)

# Rows of the test set, and the share of them on which two models differ at no true difference.
SIZES, DISAGREEMENTS = (100, 343, 1_000, 3_000), (0.04, 0.10, 0.20)
_interval = lru_cache(None)(paired_proportions)


def right_or_wrong(rows: int, disagreement: float, difference: float, seed: int) -> np.ndarray:
    """Counts of rows gained and lost, (pairs, 2)."""
    shares = [(disagreement + difference) / 2, (disagreement - difference) / 2]
    return np.random.default_rng(seed).multinomial(rows, [*shares, 1 - sum(shares)], PAIRS)[:, :2]


def promoted(rows: int, disagreement: float, difference: float, seed: int) -> float:
    """Share of the pairs that the gate lets pass."""
    counts = right_or_wrong(rows, disagreement, difference, seed)
    return float(np.mean([_interval(int(gained), int(lost), rows)[0] > -MARGIN for gained, lost in counts]))


def nominal_refusal(rows: int, disagreement: float) -> float:
    """Refused at no difference, were the mean's error normal and its size known."""
    return float(norm.cdf(Z - MARGIN / np.sqrt(disagreement / rows)))


def graded(rows: int, difference: float, seed: int, pairs: int) -> float:
    """As `promoted`, of a score such as ROUGE-L: most rows are equal, others differ by any amount."""
    generator, passed = np.random.default_rng(seed), 0
    for number in range(pairs):
        change = generator.normal(difference / 0.4, 0.25, rows).clip(-1, 1)
        passed += bootstrap_mean(np.where(generator.random(rows) < 0.4, change, 0.0), seed=number)[1] > -MARGIN
    return passed / pairs


def fallen(slices: int, rows: int, disagreement: float, difference: float, seed: int) -> float:
    """Share of the pairs that the slice gate refuses; all slices have the same true difference and size."""
    confidence = 1 - (1 - CONFIDENCE) / slices
    judged = lru_cache(None)(lambda gained, lost: _falls(gained, lost, rows, confidence))
    shares = [(disagreement + difference) / 2, (disagreement - difference) / 2]
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(rows, [*shares, 1 - sum(shares)], (PAIRS, slices))[:, :, :2]
    return float(np.mean([any(judged(int(gained), int(lost)) for gained, lost in one) for one in counts]))


def _falls(gained: int, lost: int, rows: int, confidence: float) -> bool:
    return (gained - lost) / rows < -ALLOWED and paired_proportions(gained, lost, rows, confidence)[1] < 0


def tables() -> Iterator[str]:
    yield "# How often promotion errs"
    yield ""
    yield (
        f"By `python -m benchmarks.promotion`: {PAIRS:,} simulated test sets a cell, margin {MARGIN:g}, judged by the "
        f"interval that `biasline promote` uses ({CONFIDENCE:.0%}). Nominal: normal approximation."
    )
    yield ""
    yield "## Right or wrong answers (exact match, accuracy)"
    yield ""
    yield (
        "| test rows | rows on which the two differ | promoted at -margin | nominal | refused at 0 | nominal |\n"
        "|---:|---:|---:|---:|---:|---:|"
    )
    for number, (rows, disagreement) in enumerate((rows, share) for rows in SIZES for share in DISAGREEMENTS):
        # A difference cannot be larger than the share of rows that differ.
        wrongly = promoted(rows, disagreement, -MARGIN, 2 * number)
        refused = 1 - promoted(rows, disagreement, 0.0, 2 * number + 1)
        rates = (
            f"{wrongly:.2%} | {(1 - CONFIDENCE) / 2:.2%} | {refused:.1%} | {nominal_refusal(rows, disagreement):.1%}"
        )
        yield f"| {rows:,} | {disagreement:.0%} | {rates} |"
    yield ""
    yield "## Graded answers (such as ROUGE-L), by the bootstrap"
    yield ""
    yield "Four rows in ten differ, by a normal amount of deviation 0.25; 10,000 pairs a cell."
    yield ""
    yield "| test rows | promoted at -margin | nominal | refused at 0 | nominal |\n|---:|---:|---:|---:|---:|"
    for rows in (100, 343):
        wrongly, refused = graded(rows, -MARGIN, rows, 10_000), 1 - graded(rows, 0.0, rows + 1, 10_000)
        nominal = norm.cdf(Z - MARGIN / np.sqrt(0.4 * 0.25**2 / rows))
        yield f"| {rows} | {wrongly:.2%} | {(1 - CONFIDENCE) / 2:.2%} | {refused:.1%} | {nominal:.1%} |"
    yield ""
    yield "## Slices"
    yield ""
    yield (
        f"Refused because a slice fell (by more than {ALLOWED:g}, beyond chance over all slices), the two models "
        "differing on a tenth of the rows, or where it is more, on as many as the fall takes."
    )
    yield ""
    yield "| slices | rows each | refused, none fell | nominal, at most | refused, all fell by 0.3 |"
    yield "|---:|---:|---:|---:|---:|"
    for number, (slices, rows) in enumerate([(4, 85), (16, 21), (16, 60), (40, 25)]):
        none, all_fell = fallen(slices, rows, 0.1, 0.0, number), fallen(slices, rows, 0.3, -0.3, number)
        yield f"| {slices} | {rows} | {none:.2%} | {(1 - CONFIDENCE) / 2:.2%} | {all_fell:.1%} |"
    yield ""


def main(write: Callable[[str], object] = OUT.write_text) -> None:
    write("\n".join(tables()))


if __name__ == "__main__":
    main()
    print(OUT.read_text())
