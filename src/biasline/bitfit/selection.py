"""Which biases are tuned: by role or group, layer range and name pattern."""

import difflib
import re
from dataclasses import dataclass

from biasline.bitfit.inventory import Bias, Inventory
from biasline.bitfit.roles import ROLES
from biasline.errors import BiaslineError

GROUPS: dict[str, tuple[str, ...]] = {
    "attention": ("query", "key", "value", "attention_output"),
    "mlp": ("mlp_in", "mlp_out"),
}


@dataclass(frozen=True)
class Selection:
    """The chosen biases and what should be said about the choice."""

    biases: tuple[Bias, ...]
    notes: tuple[str, ...]
    asked: dict[str, str]

    @property
    def count(self) -> int:
        """Number of trained entries."""
        return sum(bias.count for bias in self.biases)


def select_biases(inventory: Inventory, roles: str = "all", layers: str = "", pattern: str = "") -> Selection:
    """Choose biases.

    Args:
        roles: `all`, or roles and groups joined by `+`: `attention+mlp`, `query+mlp_in`, `value`, `norm`, …
        layers: `0-3`, `2,5`, `7-` (inclusive); empty for all. With layers given, biases outside them are left out.
        pattern: regular expression searched in the parameter's name; empty for all.

    Key biases are left out where they cannot act, unless `key` is asked for by name.

    Errors: `BiaslineError` for an unknown role, a role this architecture is not known to have, a bad range or
    pattern, and for an empty selection.
    """
    wanted = _roles(roles)
    matches = _compiled(pattern)
    in_layers = _layer_ranges(layers)

    last = max((bias.layer for bias in inventory.biases if bias.layer is not None), default=-1)
    for first, final in in_layers or []:
        if max(first, 0 if final == float("inf") else final) > last:
            raise BiaslineError(
                f"layers {layers!r}: {inventory.model_type} has the layers 0 to {last}", "choose among these"
            )
    if roles != "all" and not inventory.known:
        names = ", ".join(bias.name for bias in inventory.biases[:6])
        raise BiaslineError(
            f"biases {roles!r}: the roles of {inventory.model_type!r} are not known; its biases: {names or 'none'}, …",
            "take 'all' with a pattern, or add the architecture to biasline/bitfit/roles.py",
        )
    matching = [
        bias
        for bias in inventory.biases
        if bias.role in wanted
        and (in_layers is None or (bias.layer is not None and any(a <= bias.layer <= b for a, b in in_layers)))
        and (matches is None or matches.search(bias.name))
    ]
    notes = []
    idle = [bias for bias in matching if bias.role == "key" and not inventory.key_acts]
    if idle and "key" not in roles.split("+"):
        matching = [bias for bias in matching if bias not in idle]
        notes.append(
            f"{sum(bias.count for bias in idle)} key biases left out: in {inventory.model_type} they add the same to "
            "every score of a query, which softmax ignores"
        )
    chosen = tuple(matching)
    if not chosen:
        raise BiaslineError(_told_empty(inventory, roles, layers, pattern), "choose among these, or 'all'")
    return Selection(chosen, tuple(notes), {"roles": roles, "layers": layers, "pattern": pattern})


def _roles(text: str) -> frozenset[str]:
    if text == "all":
        return frozenset(ROLES) - {"head"}
    wanted: set[str] = set()
    for part in text.split("+"):
        if part in GROUPS:
            wanted.update(GROUPS[part])
        elif part in ROLES:
            wanted.add(part)
        else:
            near = difflib.get_close_matches(part, [*GROUPS, *ROLES, "all"], n=1)
            raise BiaslineError(
                f"biases {text!r}: {part!r} is no role; expected all, or some of {', '.join([*GROUPS, *ROLES])}",
                f"did you mean {near[0]!r}?" if near else "join several with '+'",
            )
    return frozenset(wanted)


def _layer_ranges(text: str) -> list[tuple[int, float]] | None:
    if not text:
        return None
    ranges: list[tuple[int, float]] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(-(\d*))?\s*", part)
        if not match:
            raise BiaslineError(f"layers {text!r}: {part!r} is no layer or range", "write them as '0-3', '2,5' or '7-'")
        first = int(match[1])
        last = first if match[2] is None else (int(match[3]) if match[3] else float("inf"))
        ranges.append((first, last))
    return ranges


def _compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern) if pattern else None
    except re.error as error:
        raise BiaslineError(f"pattern {pattern!r}: not a regular expression: {error}") from None


def _told_empty(inventory: Inventory, roles: str, layers: str, pattern: str) -> str:
    asked = (
        f"biases {roles!r}" + (f", layers {layers!r}" if layers else "") + (f", pattern {pattern!r}" if pattern else "")
    )
    has = ", ".join(f"{role} {count}" for role, count in inventory.by_role().items()) or "no bias at all"
    told = f"{asked}: nothing selected in {inventory.model_type} ({inventory.total:,} parameters); it has: {has}"
    if inventory.missing:
        count = sum(place.count for place in inventory.missing)
        told += f"; {len(inventory.missing)} linear layers have no bias, where injection would add {count:,} entries"
    return told
