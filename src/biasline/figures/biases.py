"""Pictures of biases, layer × role: where a model has them, and how far training moved them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl

from biasline.bitfit import Bias, Inventory
from biasline.bitfit.roles import NORM_SCALE, OUTPUT_SCALES, ROLES
from biasline.figures.canvas import new_figure

# What belongs to no layer, in tables of layers.
_OUTSIDE = -1


def bias_change(change: pl.DataFrame) -> Any:
    """How far the biases moved, layer × role: the picture of the BitFit paper (Ben Zaken et al. 2022, figure 2)."""
    values = {(layer, role): value for layer, role, value in change.iter_rows()}
    figure, axes, image = _layers_by_roles(values, lambda value: f"{value:.3f}")
    axes.set_title("Root mean square change of the biases")
    figure.colorbar(image, ax=axes)
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
        values: (layer, role) → value.
        tell: a value as text.
        words: the text itself, where it is more than the value.
    """
    asked = {role for _, role in values}
    roles = [role for role in (*ROLES, *OUTPUT_SCALES.values(), NORM_SCALE) if role in asked]
    layers = sorted({layer for layer, _ in values})
    grid = np.full((len(layers), len(roles)), np.nan)
    for (layer, role), value in values.items():
        grid[layers.index(layer), roles.index(role)] = value
    figure, axes = new_figure(2.0 + 1.0 * len(roles), 1.8 + 0.4 * len(layers))
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


def _rectangle(column: int, row: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="#E6E6E6", edgecolor="w")
