"""Pictures of a run, for MLflow: their data are the pipeline's outs, the pictures (whose fonts differ) are not."""

import math
from typing import Any

import numpy as np
import polars as pl

from biasline.figures.canvas import new_figure
from biasline.figures.palette import BLUE, GREEN, ORANGE
from biasline.metrics.metric import Metric

# More labels make no picture that anyone would look at.
DRAWN_LABELS = 40


def loss_curve(history: pl.DataFrame) -> Any:
    """Training and validation loss over the steps."""
    figure, axes = new_figure(7, 4)
    axes.plot(history["step"], history["loss"], color=BLUE, label="training")
    seen = history.filter(pl.col("valid_loss").is_not_null())
    if seen.height:
        axes.plot(seen["step"], seen["valid_loss"], color=ORANGE, marker="o", label="validation")
    axes.set(xlabel="step", ylabel="loss", yscale="log", title="Loss")
    axes.legend()
    return figure


def metric_by_slice(slices: pl.DataFrame, overall: dict[str, Any], metric: Metric) -> Any:
    """A metric per slice, the tuned model's with its interval.

    Args:
        slices: see `scoring.slice_table`.
        overall: metrics.json.
        metric: the one that slices are of.
    """
    figure, axes = new_figure(8, 1.2 + 0.34 * max(slices.height, 1))
    places = list(range(slices.height))
    names = [f"{value}  ({rows})" for value, rows in zip(slices["value"], slices["rows"], strict=True)]
    below = (slices["tuned"] - slices["tuned_low"]).fill_null(0.0).to_list()
    above = (slices["tuned_high"] - slices["tuned"]).fill_null(0.0).to_list()
    axes.errorbar(slices["tuned"], places, xerr=[below, above], fmt="o", color=BLUE, capsize=3, label="tuned, 95 %")
    axes.plot(slices["base"], places, "D", color=ORANGE, label="base")
    axes.axvline(overall["tuned"][metric.name], color=GREEN, linestyle="--", label="tuned, all rows")
    axes.set(xlabel=metric.long_label, title="By slice (rows)")
    high, low = slices["tuned_high"].drop_nulls().to_numpy(), slices["base"].drop_nulls().to_numpy()
    shares = high.size > 0 and bool((high <= 1).all() and (low >= 0).all())
    axes.set_xlim((0, None) if metric.bounds == (0, math.inf) else (-0.03, 1.03) if shares else (None, None))
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.legend(loc="lower left", fontsize="small")
    return figure


def confusion(pairs: pl.DataFrame) -> Any:
    """Which label rows have (down) and which they were given (across), counted.

    Args:
        pairs: `actual` and `predicted` labels, see `Answering.confusion`.
    """
    labels = sorted({*pairs["actual"], *pairs["predicted"]})
    counts = pairs.group_by("actual", "predicted").len().rows()
    grid = np.zeros((len(labels), len(labels)), int)
    for label, given, count in counts:
        grid[labels.index(label), labels.index(given)] = count
    figure, axes = new_figure(2.4 + 0.8 * len(labels), 1.8 + 0.7 * len(labels))
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
    figure, axes = new_figure(5, 5)
    axes.plot([0, 1], [0, 1], color=GREEN, linestyle="--", label="calibrated")
    size = (20 + 300 * table["rows"] / table["rows"].sum()).to_list()
    axes.scatter(table["probability"], table["accuracy"], s=size, color=BLUE, label="tuned, by range of probability")
    axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xlabel="mean probability", ylabel="accuracy", title="Calibration")
    axes.legend(loc="upper left", fontsize="small")
    return figure


def scores(predictions: pl.DataFrame) -> Any:
    """The tuned model's score of each test row against the row's own."""
    reference = predictions["score"].cast(pl.Float64)
    figure, axes = new_figure(5, 5)
    ends = [reference.min(), reference.max()]
    axes.plot(ends, ends, color=GREEN, linestyle="--", label="right")
    axes.scatter(reference, predictions["tuned"], s=8, alpha=0.5, color=BLUE, label="tuned")
    axes.set(xlabel="score", ylabel="given", title="Scores of the test rows")
    axes.legend(loc="upper left", fontsize="small")
    return figure


def lengths(table: pl.DataFrame) -> Any:
    """How rows of each split spread over lengths in tokens.

    Args:
        table: lengths.csv: `tokens`, the upper end of a range, and the share of each split's rows in it.
    """
    figure, axes = new_figure(7, 4)
    for name, color, style in zip(table.columns[1:], (BLUE, ORANGE, GREEN), ("-", "--", ":"), strict=True):
        edges = [0, *table["tokens"]]
        axes.stairs(table[name], edges, color=color, linestyle=style, linewidth=1.8, label=name)
    axes.set(xlabel="tokens", ylabel="share of rows", title="Lengths", ylim=(0, None))
    axes.legend()
    return figure
