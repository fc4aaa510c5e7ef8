"""Many deltas on one model at once: each row of a batch has the biases of its own slot."""

import functools
import threading
import weakref
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from biasline.bitfit.applied import applied_to
from biasline.bitfit.architectures import architecture_of
from biasline.bitfit.delta import BiasDelta, Entry, Manifest
from biasline.bitfit.identity import Identity
from biasline.bitfit.inventory import Bias, linear_outputs, storage_of, unwrapped, value_hash
from biasline.bitfit.roles import UNKNOWN
from biasline.bitfit.rowwise import Layer, NotRowsError, Rows, adds_its_bias, by_kind
from biasline.errors import BiaslineError

BASE = 0
_WIDE_FIRST = "put a delta of other biases, or of a larger head, before the forward pass or after the step"


@dataclass(frozen=True)
class Site:
    """A parameter that has values of its own in each slot.

    Attributes:
        name: of the parameter, as in `model.named_parameters()`; also of one that the model lacks.
        shape: as large as any slot needs it: heads differ in how many outputs they have.
        start: where its columns begin in the table.
    """

    name: str
    shape: tuple[int, ...]
    start: int = 0

    @property
    def count(self) -> int:
        """Number of columns."""
        return torch.Size(self.shape).numel()

    @property
    def columns(self) -> slice:
        """Its columns in the table."""
        return slice(self.start, self.start + self.count)


@dataclass(frozen=True)
class _Held:
    """What a slot's delta was but for its values.

    Attributes:
        places: key → where the values are in the model; one object for all slots of one selection.
        by_name: parameter → the same.
        manifest: as JSON, compressed: some kilobytes, where the object takes as much memory as the biases of a small
            model.
    """

    places: Mapping[str, Bias]
    by_name: Mapping[str, Bias]
    manifest: bytes


class Bank:
    """Deltas of many tenants on one model, stacked: a table with a row for each slot.

    A batch's rows are answered or trained in one forward pass, each with the biases, scales and head of its slot, as
    precisely as if that delta alone were applied. Slot 0 is the base.

        bank = Bank(model, slots=64)
        bank.put(3, BiasDelta.load("a.safetensors"))
        with bank.rows([0, 3, 3, 1]):
            logits = model(**batch).logits

    Where heads have different numbers of labels, the outputs that a row's own head lacks are the smallest number there
    is. Slots may be put, replaced and cleared while rows of others are under way: what is inside `rows` has the values
    of when it began. A model whose architecture is not in the table of roles, or whose layers see more than rows
    (DeBERTa's see positions), is run slot by slot, which is as exact and no faster than one at a time.

    Args:
        model: a plain base, which stays what it is; nothing is changed outside of `rows`.
        slots: how many there are beside the base: 1, 2, …

    Attributes:
        table: a row for each slot, the base first; (slots + 1, n), fp32, on the model's device. Masters of a training
            where it requires gradients: `table.grad` is then sparse, of the rows of the slots that were asked.
        sites: what its columns are.

    Raises:
        BiaslineError: where a delta is applied to the model, or it has no values.
    """

    # Model types whose layers are called on what all rows share.
    _SHARING = frozenset({"deberta-v2"})

    def __init__(self, model: nn.Module, slots: int = 64) -> None:
        self.model = unwrapped(model)
        if slots < 1:
            raise BiaslineError(f"a bank of {slots} slots", "give it one at least")
        self._refuse_applied()
        if any(parameter.is_meta for parameter in self.model.parameters()):
            raise BiaslineError("a model on the meta device has no values", "load its weights")
        self.slots = slots
        self.sites: tuple[Site, ...] = ()
        self.table = torch.zeros(slots + 1, 0, device=next(self.model.parameters()).device)
        self._parameters = dict(self.model.named_parameters(remove_duplicate=False))
        self._sharing: dict[tuple[int, int], list[str]] = {}
        for name, part in self._parameters.items():
            self._sharing.setdefault(storage_of(part), []).append(name)
        self._identity = Identity(self.model)
        self._held: dict[int, _Held] = {}
        self._known_places: dict[tuple[tuple[str, Bias], ...], tuple[dict[str, Bias], dict[str, Bias]]] = {}
        self._at: dict[str, Site] = {}
        self._users: list[tuple[str, nn.Module, dict[str, Site]]] = []
        self._uneven: set[str] = set()
        self._additive: set[nn.Module] = set()
        self._known: dict[tuple[tuple[str, Bias], ...], torch.Tensor] = {}
        model_type = str(getattr(getattr(self.model, "config", None), "model_type", ""))
        self._by_kind = architecture_of(model_type) is UNKNOWN or model_type in self._SHARING
        self._writing = threading.Lock()  # held while the table is read or written

    @property
    def mixes(self) -> bool:
        """Whether rows of several slots go through the model in one pass; else it is run slot by slot."""
        return not self._by_kind

    @property
    def filled(self) -> tuple[int, ...]:
        """The slots that have a delta."""
        return tuple(sorted(self._held))

    def grow(self, slots: int) -> None:
        """Have more slots; what is in those that there are stays, and rows under way keep their values.

        Raises:
            BiaslineError: for fewer than there are, and where gradients wait for a step.
        """
        if slots < self.slots:
            raise BiaslineError(f"a bank of {self.slots} slots cannot have {slots}", "make another bank")
        with self._writing, torch.no_grad(), torch.inference_mode(False):
            if self.table.grad is not None:
                raise BiaslineError("gradients wait for a step, and the bank needs further slots", _WIDE_FIRST)
            table = self.table.new_zeros(slots + 1, self.table.shape[1])
            table[: self.slots + 1] = self.table.detach()
            self.slots, self.table = slots, table.requires_grad_(self.table.requires_grad)

    def put(self, slot: int, delta: BiasDelta) -> None:
        """Fill a slot, or replace what is in it.

        Raises:
            BiaslineError: for a slot that the bank does not have, a tensor that does not fit, and a delta that was
                trained on another base. The bank is then what it was.
        """
        self._numbered(slot)
        places = delta.places()
        wanted = self._fitting(delta, places)
        kept = {
            key: entry.base
            for key, entry in delta.manifest.tensors.items()
            if entry.base and tuple(self._parameters[places[key].name].shape) == entry.shape
        }
        if odd := self._identity.odd(places, kept, delta.manifest.frozen):
            raise delta.another_base(odd, self.model)
        values = torch.cat([part.flatten() for part in delta.tensors.values()])
        with self._writing, torch.no_grad(), torch.inference_mode(False):
            self._make_room(wanted)
            row = self._row(slot)
            row.copy_(self._row(BASE))
            row[self._numbers(places)] = values.to(row)
            by_key, by_name = self._known_places.setdefault(
                tuple(places.items()), (places, {place.name: place for place in places.values()})
            )
            manifest = zlib.compress(delta.manifest.model_dump_json(exclude_defaults=True).encode())
            self._held[slot] = _Held(by_key, by_name, manifest)

    def take(self, slot: int, values: torch.Tensor | None = None) -> BiasDelta:
        """The delta of a slot with the values that it has now: an ordinary one, equal to what was put, byte for byte.

        Args:
            slot: a filled one.
            values: what it had earlier, see `values`; those of now if left out.

        Raises:
            BiaslineError: for an empty slot.
        """
        with self._writing:
            held = self._filled(slot)
            row = self._row(slot) if values is None else values
            found = row[self._numbers(held.places)].cpu()
        parts = torch.split(found, [place.count for place in held.places.values()])
        tensors = {
            key: (part.view(place.shape) if place.cut is None else part).clone()
            for (key, place), part in zip(held.places.items(), parts, strict=True)
        }
        manifest = Manifest.model_validate_json(zlib.decompress(held.manifest))
        entries = {
            key: entry.model_copy(update={"values": value_hash(tensors[key])})
            for key, entry in manifest.tensors.items()
        }
        return BiasDelta(tensors, manifest.model_copy(update={"tensors": entries}))

    def values(self, slot: int) -> torch.Tensor:
        """A copy of a slot's row of the table, (n,): for `take`, as long as the bank has no further columns."""
        with self._writing:
            self._filled(slot)
            return self._row(slot).clone()

    def clear(self, slot: int) -> None:
        """Empty a slot.

        Raises:
            BiaslineError: where it is empty already.
        """
        with self._writing, torch.no_grad(), torch.inference_mode(False):
            self._filled(slot)
            self._row(slot).copy_(self._row(BASE))
            del self._held[slot]

    def columns(self, slot: int) -> dict[str, tuple[Bias, torch.Tensor]]:
        """Key of each entry of a slot's delta → what it is, and its columns in the table: what of its row is trained.

        Raises:
            BiaslineError: for an empty slot.
        """
        with self._writing:
            places = self._filled(slot).places
            numbers = torch.split(self._numbers(places), [place.count for place in places.values()])
            return {key: (place, part) for (key, place), part in zip(places.items(), numbers, strict=True)}

    def used_in(self, module: nn.Module) -> bool:
        """Whether a module, or one inside it, has values of its own in any slot."""
        inside = set(module.modules())
        return any(user in inside for _, user, _ in self._users)

    @contextmanager
    def rows(self, slots: Sequence[int], lengths: Sequence[int] = ()) -> Iterator[nn.Module]:
        """The model, whose forward pass in this block takes a batch with a slot for each row.

        Any number of forward passes, as a generation makes, with or without beams and a cache. Backward passes may come
        later, but belong inside where activations are computed again in them (activation checkpointing): outside they
        would be the base's. Blocks on one model of several threads wait for each other; nobody else may call the model
        meanwhile.

        Args:
            slots: of each row of the batch, 0 for the base.
            lengths: tokens of each row, where the batch is one line of rows packed one behind the other. Not where a
                norm of each head sees rows and heads in one dimension.

        Raises:
            BiaslineError: for a slot that is empty or not there; where blocks are nested; where a model of Transformers
                checkpoints its activations and no backward pass was made inside.
        """
        turn = _turns.setdefault(self.model, _Turn())
        if turn.owner == threading.get_ident():
            raise BiaslineError("rows of this model are under way already", "end that block first")
        with turn.lock:
            self._refuse_applied()
            rows, layers, values = self._chosen(slots, lengths)
            again = values.requires_grad and any(
                part.training and getattr(part, "gradient_checkpointing", False) for part in self.model.modules()
            )
            passed: list[bool] = []
            if values.requires_grad:
                table = self.table

                def arrived(_: torch.Tensor) -> None:
                    passed.append(True)
                    if self.table is not table:
                        raise BiaslineError("the bank has further columns since the forward pass", _WIDE_FIRST)

                values.register_hook(arrived)  # type: ignore[no-untyped-call]  # torch gives it no types
            turn.owner = threading.get_ident()
            try:
                with _instead(self._forwards(rows, layers, turn)):
                    yield self.model
            finally:
                turn.owner = None
            if again and not passed:
                raise BiaslineError(
                    "activations are computed again in the backward pass: outside of the block they are the base's",
                    "call backward() inside the block, with use_reentrant=False",
                )

    def _chosen(self, slots: Sequence[int], lengths: Sequence[int]) -> tuple[Rows, list[Layer], torch.Tensor]:
        """The rows of a batch, the layers that differ from the base's for any of them, and their values."""
        if not slots or (lengths and len(lengths) != len(slots)):
            raise BiaslineError(f"{len(slots)} slots, {len(lengths)} lengths", "give a slot for each row")
        kinds = list(dict.fromkeys(slots))
        with self._writing:
            for slot in kinds:
                if slot != BASE:
                    self._filled(slot)
            device = self.table.device
            # A dense gradient would be of all slots, at each step.
            values = functional.embedding(torch.tensor(kinds, device=device), self.table, sparse=True)
            layers = self._layers(
                values, kinds, {name for slot in kinds if slot != BASE for name in self._held[slot].by_name}
            )
        if len(kinds) == 1:
            return Rows(torch.zeros(1, dtype=torch.long, device=device)), layers, values
        place = {slot: number for number, slot in enumerate(kinds)}
        return Rows(torch.tensor([place[slot] for slot in slots], device=device), tuple(lengths)), layers, values

    def _layers(self, values: torch.Tensor, kinds: Sequence[int], names: set[str]) -> list[Layer]:
        parts = dict(zip(self._at, torch.split(values, [site.count for site in self.sites], 1), strict=True))
        found = []
        for path, module, sites in self._users:
            own = {
                attribute: parts[site.name].view(-1, *site.shape)
                for attribute, site in sites.items()
                if site.name in names
            }
            sizes = None
            for site in sites.values():
                if site.name in self._uneven and site.name in names:
                    sizes = torch.tensor([self._shape(slot, site)[0] for slot in kinds], device=values.device)
            if own:
                found.append(Layer(path, module, module.forward, own, sizes, module in self._additive))
        return found

    def _forwards(self, rows: Rows, layers: list[Layer], turn: "_Turn") -> dict[nn.Module, Any]:
        """Module → the forward pass that it has inside the block."""
        now = [rows]

        @contextmanager
        def of_kind(kind: int) -> Iterator[None]:
            before, now[0] = now[0], Rows(rows.kinds.new_tensor([kind]))
            try:
                yield
            finally:
                now[0] = before

        def of(layer: Layer) -> Any:
            @functools.wraps(layer.own)
            def forward(*args: Any, **kwargs: Any) -> Any:
                return layer.forward(now[0], of_kind, *args, **kwargs)

            return forward

        whole, name = self.model.forward, type(self.model).__name__

        def one_kind(kind: int, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
            with of_kind(kind):
                return whole(*args, **kwargs)

        @functools.wraps(whole)
        def forward(*args: Any, **kwargs: Any) -> Any:
            if turn.owner != threading.get_ident():
                raise BiaslineError("rows of this model are under way in another thread", "call it in `rows` as well")
            self._refuse_applied()
            now[0] = rows.called(args, kwargs, name)
            if not self._by_kind or len(rows) == 1:
                return whole(*args, **kwargs)
            if rows.lengths:
                raise NotRowsError(f"{name}: runs slot by slot, and takes no packed rows")
            return by_kind(now[0], one_kind, args, kwargs, name)

        alone = {layer.module: of(layer) for layer in layers}
        return {**alone, self.model: forward} if self.model not in alone else alone

    def _fitting(self, delta: BiasDelta, places: Mapping[str, Bias]) -> list[Site]:
        """The sites that a delta needs, held against the model."""
        name = delta.manifest.base.get("name", delta.manifest.model_type)
        wanted = []
        for key, place in places.items():
            own = self._parameters.get(place.name)
            entry = delta.manifest.tensors[key]
            if entry.injected:
                if fault := self._not_injectable(place, own):
                    raise BiaslineError(f"tensor {key}: {fault}", f"take its own base, {name}")
            elif own is None:
                what = f"tensor {key}: {type(self.model).__name__} has no such parameter"
                raise BiaslineError(what, f"take its own base, {name}")
            elif tuple(own.shape) != place.shape and not _another_head(entry, own):
                raise BiaslineError(
                    f"tensor {key}: shape {place.shape}, the model has {tuple(own.shape)}", f"take its own base, {name}"
                )
            wanted.append(Site(place.name, place.shape))
        return wanted

    def _not_injectable(self, place: Bias, own: nn.Parameter | None) -> str:
        path, _, attribute = place.name.rpartition(".")
        if own is not None:
            return "the model has it already"
        try:
            module = self.model.get_submodule(path)
        except AttributeError:
            return f"the model has no layer {path}"
        # Its own, not what stands in its place while rows are under way.
        weight = dict(module.named_parameters(recurse=False)).get("weight")
        length = linear_outputs(module) if attribute == "scale" else len(weight) if weight is not None else 0
        return "" if place.shape == (length,) else f"{place.shape[0]} entries, the layer has {length}"

    def _make_room(self, wanted: Sequence[Site]) -> None:
        """Columns for sites that are new, or larger than they were."""
        known = {site.name: site for site in self.sites}
        for site in wanted:
            own = self._parameters.get(site.name)
            shapes = [site.shape, *([tuple(own.shape)] if own is not None else [])]
            shapes += [known[site.name].shape] if site.name in known else []
            largest = (max(shape[0] for shape in shapes), *site.shape[1:])
            if len({shape[0] for shape in shapes}) > 1:
                self._uneven.add(site.name)
            if site.name not in known or known[site.name].shape != largest:
                known[site.name] = replace(site, shape=largest)
        if tuple(known.values()) == self.sites:
            return
        start, sites = 0, []
        for site in known.values():
            sites.append(replace(site, start=start))
            start += site.count
        if self.table.grad is not None:
            raise BiaslineError("gradients wait for a step, and the bank needs further columns", _WIDE_FIRST)
        table = self.table.new_zeros(self.slots + 1, start)
        before = {site.name: site for site in self.sites}
        for site in sites:
            part = table[:, site.columns]
            part.copy_(self._base_row(site))
            if (old := before.get(site.name)) is not None:
                part[:, : old.count] = self.table.detach()[:, old.columns]
        wants = self.table.requires_grad
        self.sites, self.table = tuple(sites), table.requires_grad_(wants)
        self._at, self._known = {site.name: site for site in sites}, {}
        users: dict[str, dict[str, Site]] = {}
        for site in sites:
            for path, attribute in self._holders(site.name):
                users.setdefault(path, {})[attribute] = site
        self._users = [(path, self.model.get_submodule(path), held) for path, held in users.items()]
        self._additive = {
            module for _, module, held in self._users if {"bias", "weight"} & set(held) and adds_its_bias(module)
        }

    def _base_row(self, site: Site) -> torch.Tensor:
        own = self._parameters.get(site.name)
        if own is None:
            value = float(site.name.endswith(".scale"))
            return torch.full((site.count,), value, dtype=self.table.dtype, device=self.table.device)
        # Not in torch's default dtype, which another thread that loads a model may have changed.
        row = torch.zeros(site.count, dtype=self.table.dtype, device=self.table.device)
        row[: own.numel()] = own.detach().flatten()
        return row

    def _row(self, slot: int) -> torch.Tensor:
        return self.table.detach()[slot]

    def _numbers(self, places: Mapping[str, Bias]) -> torch.Tensor:
        """The columns of all entries of a delta, one behind the other."""
        known = tuple(places.items())
        if known not in self._known:
            every = torch.arange(self.table.shape[1])
            found = []
            for _, place in known:
                start = self._at[place.name].start
                part = every[start : start + torch.Size(place.shape).numel()]
                found.append(place.read(part.view(place.shape)))
            self._known[known] = torch.cat(found).to(self.table.device)
        return self._known[known]

    def _shape(self, slot: int, site: Site) -> tuple[int, ...]:
        """How much of a site a slot has."""
        if slot != BASE and site.name in self._held[slot].by_name:
            return self._held[slot].by_name[site.name].shape
        own = self._parameters.get(site.name)
        return site.shape if own is None else tuple(own.shape)

    def _holders(self, name: str) -> list[tuple[str, str]]:
        """(path, attribute) of the modules that use a parameter, by whatever names they have it."""
        if name not in self._parameters:
            path, _, attribute = name.rpartition(".")
            return [(path, attribute)]
        names = self._sharing[storage_of(self._parameters[name])]
        found = [(path, attribute) for path, _, attribute in (other.rpartition(".") for other in names)]
        # A module that holds a parameter of a layer inside it does not use it itself.
        leaves = [one for one in found if next(self.model.get_submodule(one[0]).children(), None) is None]
        return [self._called(*one) for one in leaves or found]

    def _called(self, path: str, attribute: str) -> tuple[str, str]:
        """The module that is called, where one around it reads the parameters of those inside, and never calls them."""
        parts = path.split(".")
        for depth in range(len(parts)):
            around = ".".join(parts[:depth])
            if isinstance(self.model.get_submodule(around), nn.MultiheadAttention | nn.TransformerEncoderLayer):
                return around, ".".join([*parts[depth:], attribute])
        return path, attribute

    def _numbered(self, slot: int) -> None:
        if slot == BASE:
            raise BiaslineError("slot 0 is the base", f"take one of 1 to {self.slots}")
        if not 0 < slot <= self.slots:
            raise BiaslineError(f"slot {slot}: there is none", f"take one of 1 to {self.slots}")

    def _filled(self, slot: int) -> "_Held":
        self._numbered(slot)
        if slot not in self._held:
            raise BiaslineError(f"slot {slot}: it is empty", "put a delta into it, or say 0 for the base")
        return self._held[slot]

    def _refuse_applied(self) -> None:
        if applied_to(self.model) is not None:
            raise BiaslineError("a delta is applied to this model", "revert it first: a bank stands on the base")


def _another_head(entry: Entry, own: torch.Tensor) -> bool:
    """Whether it is a head with another number of outputs."""
    return entry.role == "head" and tuple(own.shape[1:]) == entry.shape[1:]


@contextmanager
def _instead(forwards: Mapping[nn.Module, Any]) -> Iterator[None]:
    """Other forward passes for some modules."""
    before = {module: vars(module)["forward"] for module in forwards if "forward" in vars(module)}
    try:
        for module, forward in forwards.items():
            vars(module)["forward"] = forward
        yield
    finally:
        for module in forwards:
            vars(module).pop("forward", None)
        for module, forward in before.items():
            vars(module)["forward"] = forward


@dataclass
class _Turn:
    """Whose rows are under way on a model: of all banks and threads only one's at a time."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    owner: int | None = None


# Gone with the model.
_turns: "weakref.WeakKeyDictionary[nn.Module, _Turn]" = weakref.WeakKeyDictionary()
