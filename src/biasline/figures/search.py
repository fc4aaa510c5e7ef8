"""A picture of a search: what each parameter was, and what came of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from biasline.figures.canvas import new_figures
from biasline.figures.palette import BLUE, ORANGE

_NOT_DRAWN = ("number", "steps", "value")
_GREY = "#999999"


def trials(points: Sequence[Mapping[str, Any]], importance: Mapping[str, float]) -> Any:
    """A panel for each parameter, the one that mattered most first.

    Args:
        points: trials, each with its parameters, the `steps` that it had, whether it `finished`, and the `value` it
            ended with: the lower, the better.
        importance: parameter → share of what the trials differ by.
    """
    found = [point for point in points if point["value"] is not None]
    names = [name for name in (found[0] if found else {}) if name not in (*_NOT_DRAWN, "finished")]
    names.sort(key=lambda name: -importance.get(name, 0.0))
    figure, panels = new_figures(3.2 * max(len(names), 1), 3.6, max(len(names), 1))
    for panel, name in zip(panels, names, strict=False):
        for finished, color, label in ((False, _GREY, "stopped early"), (True, BLUE, "finished")):
            part = [point for point in found if point["finished"] is finished]
            panel.scatter([point[name] for point in part], [point["value"] for point in part], color=color, label=label)
        first = next((point for point in found if point["number"] == 0), None)
        if first is not None:
            panel.scatter([first[name]], [first["value"]], marker="*", s=120, color=ORANGE, label="as they are")
        if not isinstance(found[0][name], str):
            panel.set_xscale("log")
        else:
            panel.tick_params(axis="x", rotation=30)
        share = f", {importance[name]:.0%} of the differences" if name in importance else ""
        panel.set_title(f"{name}{share}", fontsize="small")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("missed, or loss, on the validation rows")
    panels[0].legend(fontsize="x-small")
    return figure
