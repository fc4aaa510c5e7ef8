"""An inventory for people and for scripts: a table that fits on a screen, and all of it as plain data."""

import re
from collections.abc import Iterable
from typing import Any

from biasline.bitfit import Bias, Inventory, by_role


def as_data(inventory: Inventory) -> dict[str, Any]:
    """The summary, and each bias, missing bias, scale and head parameter with layer, role, shape and count."""
    return {
        **inventory.summary(),
        "key_entries": f"{inventory.key_entries} of {inventory.head_width} per head",
        "biases_found": [_row(bias) for bias in inventory.biases if bias.role != "head"],
        "biases_missing": [_row(bias) for bias in inventory.missing],
        "scales_found": [_row(scale) for scale in inventory.scales],
        "scales_missing": [_row(scale) for scale in inventory.outputs],
        "head_found": [_row(entry) for entry in inventory.head],
    }


def as_text(inventory: Inventory, width: int) -> str:
    """The same for a screen: what is alike in several layers is one line.

    Args:
        inventory: the model's biases.
        width: columns of the screen.
    """
    from rich.console import Console
    from rich.table import Table

    summary = inventory.summary()
    console = Console(width=width, no_color=True, highlight=False)
    with console.capture() as captured:
        console.print(
            f"{inventory.model_type}: {inventory.total:,} parameters, {summary['biases']:,} biases "
            f"({summary['share']:.4%} of them)"
        )
        present = [bias for bias in inventory.biases if bias.role != "head"]
        sections = (
            ("biases", present),
            ("missing: `inject` would add zeros", inventory.missing),
            ("norm scales: trained if `norm_scale` is asked for", inventory.scales),
            ("outputs that can be scaled: `scale` would put ones there", inventory.outputs),
            ("head: apart from the biases", inventory.head),
        )
        for title, biases in sections:
            if not biases:
                continue
            table = Table(title=title, title_justify="left", box=None, pad_edge=False, title_style="bold")
            table.add_column("role", no_wrap=True)
            table.add_column("parameter", overflow="fold")
            for name in ("layers", "shape", "entries", "share"):
                table.add_column(name, justify="right", no_wrap=True)
            for cells in _lines(biases, inventory.total):
                table.add_row(*cells)
            console.print()
            console.print(table)
        for note in _notes(inventory):
            console.print(f"\n{note}")
    return captured.get().rstrip()


def _lines(biases: Iterable[Bias], total: int) -> Iterable[tuple[str, ...]]:
    alike: dict[tuple[str, str, tuple[int, ...]], list[Bias]] = {}
    for bias in biases:
        # The first number in a name is the layer's.
        name = re.sub(rf"\.{bias.layer}\.", ".#.", bias.name, count=1) if bias.layer is not None else bias.name
        alike.setdefault((bias.role, name, bias.shape), []).append(bias)
    for (role, name, shape), found in alike.items():
        entries = sum(bias.count for bias in found)
        part = f" ({found[0].count} of them)" if found[0].cut else ""
        layers = _ranges([bias.layer for bias in found if bias.layer is not None])
        sides = "×".join(map(str, shape))
        yield role, name, layers, sides + part, f"{entries:,}", f"{entries / total:.4%}"


def _ranges(layers: list[int]) -> str:
    """`0-3, 7` for 0, 1, 2, 3, 7."""
    runs: list[list[int]] = []
    for layer in sorted(layers):
        if runs and layer == runs[-1][1] + 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _notes(inventory: Inventory) -> Iterable[str]:
    width, acting = inventory.head_width, inventory.key_entries
    keys = by_role(inventory.biases).get("key", 0)
    if not inventory.known:
        yield "the architecture is not in the table of roles: `all`, layers excepted, and a name pattern can be chosen"
    elif keys and not acting:
        yield "key biases cannot act here and are left out unless asked for by name"
    elif keys and acting < width:
        yield f"key biases act in the {acting} rotated of {width} entries per head; the others are left out"


def _row(bias: Bias) -> dict[str, Any]:
    return {
        "name": bias.name,
        "role": bias.role,
        "layer": bias.layer,
        "shape": list(bias.shape),
        "count": bias.count,
        "cut": [bias.cut.start, bias.cut.width, bias.cut.stride, bias.cut.repeats] if bias.cut else None,
    }
