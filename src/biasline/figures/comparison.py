"""The picture of `biasline compare`: what each run reaches against its size."""

from collections.abc import Mapping, Sequence
from typing import Any

from biasline.figures.canvas import new_figure
from biasline.figures.palette import COLORS

_MARKERS = "osD^vP"


def methods(rows: Sequence[Mapping[str, Any]], label: str) -> Any:
    """What each run reaches against the size of its artifact.

    Args:
        rows: with `name`, `bytes`, `value` and the ends of its interval, `low` and `high` (or None).
        label: what `value` is.
    """
    figure, axes = new_figure(8, 5)
    for place, row in enumerate(rows):
        marker = _MARKERS[place % len(_MARKERS)]
        color = COLORS[place % len(_MARKERS)]
        ends = (
            None if None in (row["low"], row["high"]) else [[row["value"] - row["low"]], [row["high"] - row["value"]]]
        )
        axes.errorbar(row["bytes"], row["value"], yerr=ends, fmt=marker, color=color, capsize=3, label=row["name"])
    axes.set(xscale="log", xlabel="artifact, bytes", ylabel=label, title="Quality against size")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="best")
    return figure
