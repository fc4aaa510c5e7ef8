"""The table of the study."""

import numpy as np

from benchmarks.runner import found
from benchmarks.study.cells import CHANGES, cells

_ABOUT = (
    "# The study: one factor at a time",
    "",
    "`python -m benchmarks.study`, MiniLM. Each line changes one thing of the start (`START` in cells.py: biases of",
    "attention and MLP at 5e-3, four epochs, a fitted head of full size); judges are up to 4,000 rows of the training",
    "file that no cell trains on. One seed; differences are paired, row by row, with 95 % intervals. No temperature is",
    "fitted.",
    "Seconds are of one core of a machine that did other work as well: they only tell orders of magnitude.",
    "",
)


def page() -> str:
    """A table per data set: each change beside the start, on the same rows."""
    done = {(one.rows, one.change, one.seed): one for one in cells() if one.path.is_file()}
    lines = list(_ABOUT)
    for rows in dict.fromkeys(one.rows for one in done.values()):
        lines += [
            f"## {rows}",
            "",
            "| change | accuracy | less the start, points | Matthews | loss | calibration error "
            "| kept step | seconds |",
            "|---|---:|---|---:|---:|---:|---:|---:|",
        ]
        start = done.get((rows, "start", 0))
        if start:
            alone = found(start)["alone"]
            told = f"{alone['accuracy']:.4f} | | {alone['matthews']:.3f} | {alone['loss']:.4f} | "
            lines.append(f"| the fitted head alone | {told}{alone['calibration_error']:.3f} | | |")
        for change in CHANGES:
            if (one := done.get((rows, change, 0))) is None:
                continue
            told = found(one)
            gap = _gap(told, found(start)) if start else ""
            lines.append(
                f"| {change} | {told['accuracy']:.4f} | {gap} | {told['matthews']:.3f} | {told['loss']:.4f} | "
                f"{told['calibration_error']:.3f} | {told['kept_step']} of {told['steps']} | "
                f"{told['seconds']:.0f} |"
            )
        lines.append("")
    return "\n".join(lines)


def _gap(one: dict, other: dict) -> str:
    count = one["rows"]["judges"]
    first, second = (
        np.unpackbits(np.frombuffer(bytes.fromhex(part["right"]), np.uint8))[:count] for part in (one, other)
    )
    gaps = 100 * (first.astype(float) - second)
    return f"{gaps.mean():+.2f} ± {1.96 * gaps.std() / np.sqrt(count):.2f}"
