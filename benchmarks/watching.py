"""How often `biasline watch` alarms at nothing, how many requests it needs to see a change, and how long it takes.

`python -m benchmarks.watching` writes benchmarks/watching.md. Rows are made up: two labels, texts of some words, 1,000
test rows. Weeks without a change; weeks in which the share of a label moves by ten points, texts come in another
language or are twice as long; a hundred tenants of which one went wrong; and a report of 100,000 requests beside 20,000
training rows, without the base. Takes some minutes on one core.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import machine
from biasline.watching.requests import Asked
from biasline.watching.watch import Reading, Report, look

OUT = Path(__file__).with_suffix(".md")
WEEKS, POWER_WEEKS, TEST_ROWS = 1_000, 20, 1_000
REQUESTS = (100, 200, 500, 1_000, 2_000)
WORDS = ("the", "a", "film", "was", "good", "bad", "long", "plot", "music", "and", "of", "not", "very", "but")
GERMAN = ("der", "ein", "film", "war", "gut", "schlecht", "lang", "musik", "und", "von", "nicht", "sehr", "aber")
CHANGES: dict[str, dict[str, Any]] = {
    "share of a label + 10 points": {"good": 0.6},
    "another language": {"words": GERMAN},
    "texts twice as long": {"longest": 25, "shortest": 8},
}
LEVEL, TENANTS_RATE = 0.01, 0.1


def rows(
    draw: np.random.Generator,
    count: int,
    *,
    good: float = 0.5,
    words: Sequence[str] = WORDS,
    shortest: int = 4,
    longest: int = 12,
    tenants: int = 0,
) -> Asked:
    """Rows of a classification."""
    lengths = draw.integers(shortest, longest + 1, count)
    chosen = iter(draw.integers(0, len(words), int(lengths.sum())))
    texts = [" ".join(words[next(chosen)] for _ in range(length)) for length in lengths]
    labels, sure = draw.random(count) < good, draw.beta(8, 2, count)
    answers = [
        {"label": "good" if label else "bad", "probability": float(probability)}
        for label, probability in zip(labels, sure, strict=True)
    ]
    owners = [f"tenant {number % tenants}" for number in range(count)] if tenants else [""] * count
    return Asked([None] * count, owners, texts, answers, [None] * count, [""] * count)


def report(before: Asked, now: Asked, trained: Sequence[str] = ()) -> Report:
    """A look without the base."""
    reading = Reading(trained=trained)
    return look(("task", "1", ""), before, now, reading, level=LEVEL, tenants_rate=TENANTS_RATE, near=0.8)


def quiet(weeks: int, count: int = 300) -> int:
    """Weeks without a change that alarm."""
    draw = np.random.default_rng(0)
    return sum(report(rows(draw, TEST_ROWS), rows(draw, count)).alarms for _ in range(weeks))


def found(change: dict[str, Any], count: int, weeks: int) -> float:
    """Share of weeks with a change that alarm."""
    draw = np.random.default_rng(1)
    return float(np.mean([report(rows(draw, TEST_ROWS), rows(draw, count, **change)).alarms for _ in range(weeks)]))


def one_tenant(weeks: int, each: int = 200) -> tuple[float, float]:
    """Share of weeks in which the tenant that went wrong is named, and others named a week."""
    draw, right, wrong = np.random.default_rng(2), 0, 0
    for _ in range(weeks):
        before, now = (rows(draw, 100 * each, tenants=100) for _ in range(2))
        for place, owner in enumerate(now.tenants):
            if owner == "tenant 7" and draw.random() < 0.6:
                now.answers[place]["label"] = "good"
        named = set(report(before, now).tenants)
        right += "tenant 7" in named
        wrong += len(named - {"tenant 7"})
    return right / weeks, wrong / weeks


def seconds(count: int = 100_000) -> float:
    """Of a report of so many requests beside 20,000 training rows."""
    draw = np.random.default_rng(3)
    before, now, trained = rows(draw, 10_000), rows(draw, count), rows(draw, 20_000).texts
    began = time.monotonic()
    report(before, now, trained)
    return time.monotonic() - began


def page() -> str:
    """Everything, measured."""
    alarms = quiet(WEEKS)
    table = {name: [found(change, count, POWER_WEEKS) for count in REQUESTS] for name, change in CHANGES.items()}
    named, others = one_tenant(10)
    taken = seconds()
    lines = [
        "# What `biasline watch` sees",
        "",
        f"`python -m benchmarks.watching`, {machine('scipy', 'scikit-learn')['processor']}; see its text.",
        "",
        f"- {alarms} of {WEEKS:,} weeks without a change alarm (300 requests each; {LEVEL:.0%} are said).",
        f"- Of a hundred tenants with 200 rows each, the one that went wrong (six of ten answers) is named in "
        f"{named:.0%} of the weeks, and {others:.1f} others a week.",
        f"- A report of 100,000 requests beside 20,000 training rows takes {taken:.0f} s.",
        "",
        f"Share of {POWER_WEEKS} weeks that alarm, by requests, beside {TEST_ROWS:,} test rows:",
        "",
        f"| |{''.join(f' {count:,} |' for count in REQUESTS)}",
        f"|---|{'---:|' * len(REQUESTS)}",
        *(f"| {name} |{''.join(f' {share:.0%} |' for share in shares)}" for name, shares in table.items()),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    OUT.write_text(page(), encoding="utf-8")
    print(OUT.read_text(encoding="utf-8"))
