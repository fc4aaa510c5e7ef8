"""Pictures of a run, for MLflow: their data are the pipeline's outs, the pictures (whose fonts differ) are not."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from biasline.bitfit import Bias, Inventory
from biasline.bitfit.roles import NORM_SCALE, ROLES
from biasline.errors import BiaslineError, shown

# Okabe and Ito's palette: told apart with every kind of colour vision.
_BLUE, _ORANGE, _GREEN = "#0072B2", "#E69F00", "#009E73"

# What belongs to no layer, in tables of layers.
_OUTSIDE = -1


def loss_curve(history: pl.DataFrame) -> Any:
    """Training and validation loss over the steps."""
    figure, axes = _new(7, 4)
    axes.plot(history["step"], history["loss"], color=_BLUE, label="training")
    seen = history.filter(pl.col("valid_loss").is_not_null())
    if seen.height:
        axes.plot(seen["step"], seen["valid_loss"], color=_ORANGE, marker="o", label="validation")
    axes.set(xlabel="step", ylabel="loss", yscale="log", title="Loss")
    axes.legend()
    return figure


def metric_by_slice(slices: pl.DataFrame, overall: dict[str, Any]) -> Any:
    """Share of right answers (of scores: mean absolute error) per slice, the tuned model's with its interval."""
    metric = overall["sliced_by"]
    figure, axes = _new(8, 1.2 + 0.34 * max(slices.height, 1))
    places = list(range(slices.height))
    names = [f"{value}  ({rows})" for value, rows in zip(slices["value"], slices["rows"], strict=True)]
    below = (slices["tuned"] - slices["tuned_low"]).fill_null(0.0).to_list()
    above = (slices["tuned_high"] - slices["tuned"]).fill_null(0.0).to_list()
    axes.errorbar(slices["tuned"], places, xerr=[below, above], fmt="o", color=_BLUE, capsize=3, label="tuned, 95 %")
    axes.plot(slices["base"], places, "D", color=_ORANGE, label="base")
    axes.axvline(overall["tuned"][metric], color=_GREEN, linestyle="--", label="tuned, all rows")
    what = {"mae": "mean absolute error"}.get(metric, metric.replace("_", " "))
    axes.set(xlabel=what, title="By slice (rows)")
    high, low = slices["tuned_high"].drop_nulls().to_numpy(), slices["base"].drop_nulls().to_numpy()
    shares = high.size > 0 and bool((high <= 1).all() and (low >= 0).all())
    axes.set_xlim((-0.03, 1.03) if shares and metric != "mae" else (0, None) if metric == "mae" else (None, None))
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.legend(loc="lower left", fontsize="small")
    return figure


def bias_change(change: pl.DataFrame) -> Any:
    """How far the biases moved, layer × role: the picture of the BitFit paper (Ben Zaken et al. 2022, figure 2)."""
    values = {(layer, role): value for layer, role, value in change.iter_rows()}
    figure, axes, image = _layers_by_roles(values, lambda value: f"{value:.3f}")
    axes.set_title("Root mean square change of the biases")
    figure.colorbar(image, ax=axes)
    return figure


def confusion(predictions: pl.DataFrame) -> Any:
    """Which label rows have (down) and which they were given (across), counted."""
    labels = sorted({*predictions["label"], *predictions["tuned"]})
    counts = predictions.group_by("label", "tuned").len().rows()
    grid = np.zeros((len(labels), len(labels)), int)
    for label, given, count in counts:
        grid[labels.index(label), labels.index(given)] = count
    figure, axes = _new(2.4 + 0.8 * len(labels), 1.8 + 0.7 * len(labels))
    axes.imshow(grid, cmap="cividis", vmin=0)
    for row, column in np.ndindex(grid.shape):
        color = "w" if grid[row, column] < 0.5 * grid.max() else "k"
        axes.text(column, row, str(grid[row, column]), ha="center", va="center", color=color)
    axes.set_xticks(range(len(labels)), labels, rotation=30, ha="right")
    axes.set_yticks(range(len(labels)), labels)
    axes.set(xlabel="given", ylabel="label", title="Confusion (rows)")
    return figure


def reliability(table: pl.DataFrame) -> Any:
    """Accuracy against the model's own probability, by ranges; points grow with the rows in them.

    Args:
        table: see `classify.calibration`.
    """
    figure, axes = _new(5, 5)
    axes.plot([0, 1], [0, 1], color=_GREEN, linestyle="--", label="calibrated")
    size = (20 + 300 * table["rows"] / table["rows"].sum()).to_list()
    axes.scatter(table["probability"], table["accuracy"], s=size, color=_BLUE, label="tuned, by range of probability")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="mean probability", ylabel="accuracy", title="Calibration")
    axes.legend(loc="upper left", fontsize="small")
    return figure


def scores(predictions: pl.DataFrame) -> Any:
    """The tuned model's score of each test row against the row's own."""
    reference = predictions["score"].cast(pl.Float64)
    figure, axes = _new(5, 5)
    ends = [reference.min(), reference.max()]
    axes.plot(ends, ends, color=_GREEN, linestyle="--", label="right")
    axes.scatter(reference, predictions["tuned"], s=8, alpha=0.5, color=_BLUE, label="tuned")
    axes.set(xlabel="score", ylabel="given", title="Scores of the test rows")
    axes.legend(loc="upper left", fontsize="small")
    return figure


def lengths(table: pl.DataFrame) -> Any:
    """How rows of each split spread over lengths in tokens.

    Args:
        table: lengths.csv: `tokens`, the upper end of a range, and the share of each split's rows in it.
    """
    figure, axes = _new(7, 4)
    for name, color, style in zip(table.columns[1:], (_BLUE, _ORANGE, _GREEN), ("-", "--", ":"), strict=True):
        edges = [0, *table["tokens"]]
        axes.stairs(table[name], edges, color=color, linestyle=style, linewidth=1.8, label=name)
    axes.set(xlabel="tokens", ylabel="share of rows", title="Lengths", ylim=(0, None))
    axes.legend()
    return figure


def methods(rows: Sequence[Mapping[str, Any]], metric: str) -> Any:
    """What each run reaches against the size of its artifact.

    Args:
        rows: with `name`, `bytes`, `value` and the ends of its interval, `low` and `high` (or None).
        metric: what `value` is.
    """
    figure, axes = _new(8, 5)
    for place, row in enumerate(rows):
        color = (_BLUE, _ORANGE, _GREEN, "#CC79A7", "#D55E00", "#56B4E9")[place % 6]
        ends = (
            None if None in (row["low"], row["high"]) else [[row["value"] - row["low"]], [row["high"] - row["value"]]]
        )
        marker = "osD^vP"[place % 6]
        axes.errorbar(row["bytes"], row["value"], yerr=ends, fmt=marker, color=color, capsize=3, label=row["name"])
    axes.set(xscale="log", xlabel="artifact, bytes", ylabel=metric.replace("_", " "), title="Quality against size")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="best")
    return figure


def bias_counts(inventory: Inventory) -> Any:
    """Where a model has biases, layer × role, and (in brackets, on grey) where zeros could be injected."""
    present, missing = (
        _summed(bias for bias in biases if bias.role != "head") for biases in (inventory.biases, inventory.missing)
    )
    words = {place: f"{count:,}" for place, count in present.items()}
    for place, count in missing.items():
        words[place] = f"{words[place]}\n({count:,})" if place in words else f"({count:,})"
    figure, axes, image = _layers_by_roles(
        {place: present.get(place, float("nan")) for place in {**present, **missing}}, words=words
    )
    share = inventory.summary()["share"]
    axes.set_title(f"Biases of {inventory.model_type}: {share:.3%} of {inventory.total:,} parameters")
    if missing:
        axes.set_xlabel("in brackets: no bias there, zeros can be injected")
    if present:
        figure.colorbar(image, ax=axes, label="entries")
    return figure


def save_figure(figure: Any, path: Path) -> None:
    """Draw a figure into a file; its suffix says the format."""
    known = figure.canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in known:
        raise BiaslineError(f"{shown(path)}: no format called {path.suffix or 'so'!r}", "end it in .png, .svg or .pdf")
    try:
        figure.savefig(path)
    except OSError as error:
        raise BiaslineError(f"{shown(path)}: cannot be written: {error.strerror}") from None


def _summed(biases: Iterable[Bias]) -> dict[tuple[int, str], float]:
    counts: dict[tuple[int, str], float] = {}
    for bias in biases:
        place = (_OUTSIDE if bias.layer is None else bias.layer, bias.role)
        counts[place] = counts.get(place, 0) + bias.count
    return counts


def _layers_by_roles(
    values: Mapping[tuple[int, str], float],
    tell: Callable[[float], str] = str,
    words: Mapping[tuple[int, str], str] | None = None,
) -> tuple[Any, Any, Any]:
    """A grid of values by (layer, role), each told in its cell; without a number it is grey.

    Args:
        values: (layer, role) → number.
        tell: a value as text.
        words: the text itself, where it is more than the value.
    """
    asked = {role for _, role in values}
    roles = [role for role in (*ROLES, NORM_SCALE) if role in asked]
    layers = sorted({layer for layer, _ in values})
    grid = np.full((len(layers), len(roles)), np.nan)
    for (layer, role), value in values.items():
        grid[layers.index(layer), roles.index(role)] = value
    figure, axes = _new(2.0 + 1.0 * len(roles), 1.8 + 0.4 * len(layers))
    highest = np.nanmax(grid) if np.isfinite(grid).any() else 1.0
    image = axes.imshow(grid, cmap="cividis", aspect="auto", vmin=0, vmax=highest)
    for (layer, role), value in values.items():
        column, row = roles.index(role), layers.index(layer)
        if not np.isfinite(value):
            axes.add_patch(_rectangle(column, row))
        dark = np.isfinite(value) and value < 0.5 * highest
        text = words[layer, role] if words else tell(value)
        axes.text(column, row, text, ha="center", va="center", color="w" if dark else "k", fontsize=8)
    axes.set_xticks(range(len(roles)), roles, rotation=30, ha="right")
    axes.set_yticks(range(len(layers)), ["outside" if layer == _OUTSIDE else f"layer {layer}" for layer in layers])
    return figure, axes, image


@cache
def _take_chinese_font() -> None:
    """Draw Chinese letters with Noto Sans SC; matplotlib brings no font that has them."""
    import matplotlib
    from matplotlib import font_manager

    # The package's own import would set styles of its own.
    found = find_spec("zhplot")
    if found is None or not found.submodule_search_locations:
        return
    path = Path(found.submodule_search_locations[0]) / "fonts" / "NotoSansSC-Regular.ttf"
    font_manager.fontManager.addfont(str(path))
    chinese = font_manager.FontProperties(fname=str(path)).get_name()
    matplotlib.rcParams["font.family"] = ["DejaVu Sans", chinese]


def _rectangle(column: int, row: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="#E6E6E6", edgecolor="w")


def _new(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    _take_chinese_font()
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()
