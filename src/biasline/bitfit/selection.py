"""Which biases are tuned: by role or group, layer range and name pattern; and which of them have to be injected."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from biasline.bitfit.inventory import Bias, Inventory, by_role
from biasline.bitfit.roles import NORM_ROLES, NORM_SCALE, OUTPUT_SCALES, ROLES, is_scale
from biasline.errors import BiaslineError

GROUPS: dict[str, tuple[str, ...]] = {
    "attention": ("query", "key", "value", "attention_output"),
    "mlp": ("mlp_in", "mlp_out"),
}
# Output scales by group, each beside those of one role; `scale` are all of them.
SCALES: dict[str, tuple[str, ...]] = {
    "scale": tuple(OUTPUT_SCALES.values()),
    **{f"{name}_scale": tuple(OUTPUT_SCALES[role] for role in roles) for name, roles in GROUPS.items()},
    **{name: (name,) for name in (*OUTPUT_SCALES.values(), NORM_SCALE)},
}
# What `all` leaves out: a head has a policy of its own, and scales are no biases.
_NOT_IN_ALL = {"head"}
# What injecting `all` leaves out besides: a bias over the vocabulary, and norms, are injected only where asked for.
_NOT_INJECTED_BY_ALL = {"head", "lm_head", *NORM_ROLES}


@dataclass(frozen=True)
class Selection:
    """The chosen biases and what should be said about the choice.

    Attributes:
        biases: what is trained, in model order; scales last.
        inject: names of the chosen biases and scales that the model does not have, with their lengths.
        notes: what should be said.
        asked: roles, layers, pattern and inject as asked.
    """

    biases: tuple[Bias, ...]
    inject: dict[str, int]
    notes: tuple[str, ...]
    asked: dict[str, str]

    @property
    def count(self) -> int:
        """Number of trained bias entries, without scales."""
        return sum(bias.count for bias in self.biases if not is_scale(bias.role))

    @property
    def scales(self) -> dict[str, int]:
        """Number of trained entries of scales: `norm_scale` of norms, `scale` of the outputs of linear layers."""
        norms = sum(bias.count for bias in self.biases if bias.role == NORM_SCALE)
        outputs = sum(bias.count for bias in self.biases if is_scale(bias.role)) - norms
        return {name: count for name, count in ((NORM_SCALE, norms), ("scale", outputs)) if count}


def select_biases(
    inventory: Inventory, roles: str = "all", layers: str = "", pattern: str = "", inject: str = ""
) -> Selection:
    """Choose biases.

    Args:
        inventory: the model's biases, see `inspect_biases`.
        roles: `all`, or roles and groups joined by `+`: `attention+mlp`, `query+mlp_in`, `value`, `norm`, …;
            `norm_scale` adds the norms' scale vectors; `scale`, `attention_scale`, `mlp_scale` or `query_scale` one on
            the outputs of each linear layer meant: which is BitFit no longer.
        layers: `0-3`, `2,5`, `7-` (inclusive); empty for all. With layers given, biases outside them are left out.
        pattern: regular expression searched in the parameter's name; empty for all.
        inject: roles, written likewise, where a zero bias is put if a layer has none; `all` means every linear layer
            but the head and the one over the vocabulary. Only what the other three choose too is injected.

    Key biases are left out where they cannot act, unless `key` is asked for by name.

    Raises:
        BiaslineError: for an unknown role, a role this architecture is not known to have, a bad range or pattern, for
            an empty selection, and for `inject` where nothing is missing.
    """
    wanted = _roles("biases", roles, frozenset(ROLES) - _NOT_IN_ALL, SCALES)
    injected = _roles("inject", inject, frozenset(ROLES) - _NOT_INJECTED_BY_ALL) if inject else frozenset()
    for what, asked in (("biases", roles), ("inject", inject)):
        # Norms are told by their class, on any architecture.
        always = {"", "all", "norm"} if what == "inject" else {"all", NORM_SCALE}
        if set(asked.split("+")) - always and not inventory.known:
            _refuse_unknown(inventory, f"{what} {asked!r}")
    chosen_layers, matches = _layers(layers, inventory), _compiled(pattern)
    named = set(roles.split("+"))

    def chosen(candidates: Iterable[Bias]) -> list[Bias]:
        return [
            bias
            for bias in candidates
            if bias.role in wanted
            and (chosen_layers is None or (bias.layer is not None and bias.layer in chosen_layers))
            and (matches is None or matches.search(bias.name))
        ]

    notes: list[str] = []
    present = _acting(chosen(inventory.biases), inventory, named, notes)
    missing = chosen(bias for bias in inventory.missing if bias.role in injected)
    missing = _acting(missing, inventory, named | set(inject.split("+")), notes)
    scales = chosen((*inventory.scales, *inventory.outputs))
    if inject and not missing:
        raise BiaslineError(
            f"inject {inject!r}: nothing to inject among biases {roles!r} of {inventory.model_type}; biases are "
            f"missing in: {_listed(inventory.missing)}",
            "leave inject empty, or choose among these",
        )
    biases = (*present, *missing, *scales)
    if not biases:
        raise BiaslineError(_told_empty(inventory, roles, layers, pattern), "choose among these, or 'all'")
    if scales:
        count = sum(scale.count for scale in scales)
        notes.append(f"{count} entries of scales are trained too: this is no longer BitFit proper")
    said = {"roles": roles, "layers": layers, "pattern": pattern, "inject": inject}
    put_in = (*missing, *(scale for scale in scales if scale.role != NORM_SCALE))
    return Selection(biases, {bias.name: bias.shape[0] for bias in put_in}, tuple(notes), said)


def select_linears(inventory: Inventory, roles: str = "all") -> tuple[str, ...]:
    """Paths of the linear layers of some roles: where adapters go that BitFit is compared with.

    Args:
        inventory: the model's biases, see `inspect_biases`.
        roles: written as for `select_biases`; `all` are those of attention and MLP. A layer that holds several roles
            fused counts for each of them.

    Raises:
        BiaslineError: as `select_biases`, and for roles that no linear layer has.
    """
    wanted = _roles("layers", roles.replace("all", "attention+mlp"), frozenset())
    if not inventory.known:
        _refuse_unknown(inventory, f"layers {roles!r}")
    if heads := sorted(wanted & {"head", "lm_head"}):
        raise BiaslineError(f"layers {roles!r}: {heads[0]} takes no adapter", "choose among the others")
    entries = (*inventory.biases, *inventory.missing)
    found = dict.fromkeys(entry.name.rpartition(".")[0] for entry in entries if entry.role in wanted - set(NORM_ROLES))
    if not found:
        raise BiaslineError(f"layers {roles!r}: {inventory.model_type} has none", "choose 'all', or 'query+value'")
    return tuple(found)


def _acting(biases: list[Bias], inventory: Inventory, named: set[str], notes: list[str]) -> list[Bias]:
    """Without the key biases that cannot act, unless keys are asked for by name."""
    width, acting = inventory.head_width, inventory.key_entries
    if "key" in named or not inventory.known or acting == width:
        return biases
    kept: list[Bias] = []
    idle = 0
    for bias in biases:
        if bias.role != "key":
            kept.append(bias)
            continue
        part = bias.leading(acting, width) if acting else None
        kept += [part] if part else []
        idle += bias.count - (part.count if part else 0)
    if idle:
        where = f"outside the {acting} rotated of {width} entries per head" if acting else f"in {inventory.model_type}"
        notes.append(
            f"{idle} key biases left out: {where} they add the same to every score of a query, which softmax ignores"
        )
    return kept


def _roles(
    what: str, text: str, everything: frozenset[str], more: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> frozenset[str]:
    groups = {**GROUPS, **more}
    wanted: set[str] = set()
    for part in text.split("+"):
        if part == "all":
            wanted |= everything
        elif part in groups:
            wanted.update(groups[part])
        elif part in ROLES:
            wanted.add(part)
        else:
            known = ["all", *GROUPS, *ROLES, *more]
            near = difflib.get_close_matches(part, known, n=1)
            raise BiaslineError(
                f"{what} {text!r}: {part!r} is no role; expected some of {', '.join(known)}",
                f"did you mean {near[0]!r}?" if near else "join several with '+'",
            )
    return frozenset(wanted)


def _refuse_unknown(inventory: Inventory, asked: str) -> None:
    names = ", ".join(bias.name for bias in inventory.biases[:6])
    raise BiaslineError(
        f"{asked}: the roles of {inventory.model_type!r} are not known; its biases: {names or 'none'}"
        + (f" and {len(inventory.biases) - 6} more" if len(inventory.biases) > 6 else ""),
        "take 'all' with a pattern, or add the architecture to biasline/bitfit/architectures.py",
    )


def _layers(text: str, inventory: Inventory) -> frozenset[int] | None:
    if not text:
        return None
    known = {bias.layer for bias in (*inventory.biases, *inventory.missing) if bias.layer is not None}
    last = max(known, default=-1)
    chosen: set[int] = set()
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(-(\d*))?\s*", part)
        if not match:
            raise BiaslineError(f"layers {text!r}: {part!r} is no layer or range", "write them as '0-3', '2,5' or '7-'")
        first = int(match[1])
        final = first if match[2] is None else (int(match[3]) if match[3] else last)
        if first > last or final > last:
            has = f"the layers 0 to {last}" if known else "no layers whose numbers are known"
            raise BiaslineError(f"layers {text!r}: {inventory.model_type} has {has}", "choose among these")
        if final < first:
            raise BiaslineError(f"layers {text!r}: {part!r} ends before it begins", f"write '{final}-{first}'")
        chosen.update(range(first, final + 1))
    return frozenset(chosen)


def _compiled(pattern: str) -> re.Pattern[str] | None:
    try:
        return re.compile(pattern) if pattern else None
    except re.error as error:
        raise BiaslineError(f"pattern {pattern!r}: not a regular expression: {error}") from None


def _listed(biases: Iterable[Bias]) -> str:
    return ", ".join(f"{role} {count:,}" for role, count in by_role(biases).items()) or "no layer"


def _told_empty(inventory: Inventory, roles: str, layers: str, pattern: str) -> str:
    asked = (
        f"biases {roles!r}" + (f", layers {layers!r}" if layers else "") + (f", pattern {pattern!r}" if pattern else "")
    )
    has = _listed(bias for bias in inventory.biases if bias.role != "head").replace("no layer", "no bias at all")
    told = f"{asked}: nothing selected in {inventory.model_type} ({inventory.total:,} parameters); it has: {has}"
    if inventory.missing:
        told += f"; inject would add: {_listed(inventory.missing)}"
    return told
