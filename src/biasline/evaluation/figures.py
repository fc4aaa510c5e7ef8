"""Pictures of a run, for MLflow: their data are the pipeline's outs, the pictures (whose fonts differ) are not."""

from typing import Any

import polars as pl

from biasline.bitfit.roles import ROLES

# Okabe and Ito's palette: told apart with every kind of colour vision.
_BLUE, _ORANGE, _GREEN = "#0072B2", "#E69F00", "#009E73"


def loss_curve(history: pl.DataFrame) -> Any:
    """Training and validation loss per token over the steps."""
    figure, axes = _new(7, 4)
    axes.plot(history["step"], history["loss"], color=_BLUE, label="training")
    seen = history.filter(pl.col("valid_loss").is_not_null())
    if seen.height:
        axes.plot(seen["step"], seen["valid_loss"], color=_ORANGE, marker="o", label="validation")
    axes.set(xlabel="step", ylabel="loss per supervised token (nats)", yscale="log", title="Loss")
    axes.legend()
    return figure


def metric_by_slice(slices: pl.DataFrame, overall: dict[str, Any]) -> Any:
    """Share of right answers of base and tuned model per slice, the tuned one with its interval."""
    metric = "accuracy" if "accuracy" in overall["tuned"] else "exact_match"
    figure, axes = _new(8, 1.2 + 0.34 * max(slices.height, 1))
    places = list(range(slices.height))
    names = [f"{value}  ({rows})" for value, rows in zip(slices["value"], slices["rows"], strict=True)]
    below = (slices["tuned"] - slices["tuned_low"]).to_list()
    above = (slices["tuned_high"] - slices["tuned"]).to_list()
    axes.errorbar(slices["tuned"], places, xerr=[below, above], fmt="o", color=_BLUE, capsize=3, label="tuned, 95 %")
    axes.plot(slices["base"], places, "D", color=_ORANGE, label="base")
    axes.axvline(overall["tuned"][metric], color=_GREEN, linestyle="--", label="tuned, all rows")
    axes.set(xlim=(-0.03, 1.03), xlabel=metric.replace("_", " "), title="By slice (rows)")
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.legend(loc="lower left", fontsize="small")
    return figure


def bias_change(change: pl.DataFrame) -> Any:
    """How far the biases moved, layer × role: the picture of the BitFit paper (Ben Zaken et al. 2022, figure 2)."""
    roles = [role for role in ROLES if role in set(change["role"])]
    layers = sorted(set(change["layer"]))
    grid = [[float("nan")] * len(roles) for _ in layers]
    for layer, role, value in change.iter_rows():
        grid[layers.index(layer)][roles.index(role)] = value
    figure, axes = _new(1.5 + 1.0 * len(roles), 1.8 + 0.5 * len(layers))
    image = axes.imshow(grid, cmap="cividis", aspect="auto", vmin=0)
    for row, values in enumerate(grid):
        for column, value in enumerate(values):
            if value == value:
                light = value < 0.5 * change["change"].max()
                axes.text(
                    column, row, f"{value:.3f}", ha="center", va="center", color="w" if light else "k", fontsize=8
                )
    axes.set_xticks(range(len(roles)), roles, rotation=30, ha="right")
    axes.set_yticks(range(len(layers)), ["outside" if layer < 0 else f"layer {layer}" for layer in layers])
    axes.set_title("Root mean square change of the biases")
    figure.colorbar(image, ax=axes)
    return figure


def _new(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()
