"""Bases in memory and the deltas held on them: each base is read once, whatever kinds of tasks stand on it."""

import copy
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from biasline.bases.limits import limits_of
from biasline.bases.pin import load_tokenizer, wants_token_types
from biasline.bases.pooling import pools_by_mean
from biasline.bitfit import Deltas
from biasline.bitfit.asked import asked
from biasline.bitfit.pretrained import PretrainedModel
from biasline.kinds.learning import find_learning
from biasline.serving.engine.decoding import Decoding, DecodingLane
from biasline.serving.engine.engine import BankedModel, Engine
from biasline.serving.engine.passes import Batching, PassLane
from biasline.serving.engine.stand_in import HeadStandIn, TextStandIn, asking
from biasline.serving.package import Package
from biasline.serving.predictor import Predictor

Rows = Sequence[dict[str, Any]]
_ALL = 1 << 20  # rows of a request that a predictor asks at once

# Transformers changes torch's default dtype while it reads weights: one thread at a time, whatever the base.
_reading = threading.Lock()


class HeldTenants:
    """Whose delta is in which slot: what a fleet's predictor asks its model by."""

    def __init__(self, deltas: Deltas, shared: int, own: Mapping[str, int], mixes: bool, unknown: bool) -> None:
        self._deltas, self._shared, self._own, self._unknown = deltas, shared, own, unknown
        self._mixes = mixes

    @property
    def mixes(self) -> bool:
        """Whether rows of several tenants go through the model in one pass."""
        return self._mixes

    def __contains__(self, tenant: object) -> bool:
        return tenant in self._deltas

    def serves(self, tenant: str) -> bool:
        """Whether rows of a tenant are answered."""
        return self._unknown or tenant in self._deltas

    def slot(self, tenant: str) -> int:
        """The slot of the delta that serves a tenant.

        Raises:
            BiaslineError: for one that is not known.
        """
        self._check([tenant])
        return self._own.get(tenant, self._shared)

    @contextmanager
    def asked(self, tenants: Sequence[str]) -> Iterator[None]:
        """See `biasline.bitfit.Tenants`."""
        self._check(tenants)
        with asked(self, tenants):
            yield

    @contextmanager
    def rows(self, tenants: Sequence[str]) -> Iterator[None]:
        """The block in which a batch has a row of each of these tenants."""
        with asking([self._own.get(name, self._shared) for name in tenants]):
            yield

    def _check(self, tenants: Sequence[str]) -> None:
        if not self._unknown and (odd := [name for name in dict.fromkeys(tenants) if name not in self._deltas]):
            raise self._deltas.unknown(odd)


@dataclass(frozen=True, eq=False)
class Held:
    """A package whose deltas are on an engine.

    Attributes:
        package: as it was read.
        predictor: asks the engine.
        lane: where its rows go.
        slot: of its delta; of a fleet of the shared one.
        own: tenant → slot of its own delta.
        sha256: tenant → that of its own delta's file.
    """

    package: Package
    predictor: Predictor
    lane: PassLane | DecodingLane
    slot: int
    own: Mapping[str, int]
    sha256: Mapping[str, str]

    @property
    def engine(self) -> Engine:
        """Whose thread asks the base."""
        return self.lane.engine

    @property
    def tenants(self) -> HeldTenants | None:
        """Of a fleet, whose delta is where."""
        found = self.predictor.tenants
        return found if isinstance(found, HeldTenants) else None

    def release(self) -> None:
        """Give the slots back; what is under way with them is given up."""
        self.engine.free(self.lane, frozenset([self.slot, *self.own.values()]))


class LoadedBase:
    """One base, its engine, and a lane for each model that stands on it.

    Args:
        package: of it, which says how it is loaded.
        batching: of rows that take one pass.
        decoding: of sequences.
        threads: of torch; 0 leaves what it has.

    Attributes:
        loads: how often weights were read: once, and once more for each head that is the base's own.
        load_s: seconds that took.
        users: how many hold something here, as `Bases` counts them.
    """

    def __init__(self, package: Package, batching: Batching, decoding: Decoding, threads: int = 0) -> None:
        self.pin = package.pin
        self.loads, self.load_s, self.users = 0, 0.0, 0
        self._folder = package.base()
        # Once for all that stands on it: a tokenizer takes more memory than the biases of a task.
        self._tokenizer, self._types = load_tokenizer(package.pin, self._folder), wants_token_types(self._folder)
        self._positions = limits_of(self._folder).positions
        self.engine = Engine(package.pin.name, threads)
        self._batching, self._decoding = batching, decoding
        self._lanes: dict[tuple[Any, ...], PassLane | DecodingLane] = {}

    def prepare(self, package: Package) -> None:
        """Read what a package needs besides its deltas."""
        self._lane(package)

    def hold(self, owner: str, package: Package, unknown: bool = False) -> Held:
        """Put a package's deltas on the engine.

        Args:
            owner: in whose turn its rows are asked.
            package: of this base.
            unknown: whether the shared delta answers for tenants that are not known, whatever `tenants.unknown` says.

        Raises:
            BiaslineError: for a delta that does not fit.
        """
        tenants = package.tenants
        lane = self._lane(package)
        banked, slots = lane.banked, list[int]()
        own: dict[str, int] = {}
        sha256: dict[str, str] = {}
        try:
            banked.reserve(1 + (0 if tenants is None else len(tenants.own)))
            slots.append(banked.put(package.delta))
            if tenants is not None:
                for name in tenants.own:
                    began = time.perf_counter()
                    own[name] = banked.put(tenants.load(name))
                    slots.append(own[name])
                    sha256[name] = hashlib.sha256(tenants.file(name)).hexdigest()
                    self.engine.give_way(time.perf_counter() - began)
            predictor = self._predictor(owner, package, lane, slots[0], own, unknown)
        except BaseException:
            banked.release(slots)
            raise
        # What is on the engine needs to be in memory once.
        package = replace(package, delta=package.delta.without_values())
        return Held(package, predictor, lane, slots[0], own, sha256)

    def close(self, drain_s: float = 0.0) -> None:
        """Stop the engine, see there."""
        self.engine.close(drain_s)

    def _predictor(
        self,
        owner: str,
        package: Package,
        lane: PassLane | DecodingLane,
        slot: int,
        own: Mapping[str, int],
        unknown: bool,
    ) -> Predictor:
        """What asks the engine for a package's answers."""
        task, told, tenants = package.task, package.delta.manifest, None
        if package.tenants is not None:
            lenient = unknown or task.tenants.unknown == "shared"
            tenants = HeldTenants(package.tenants, slot, own, lane.bank.mixes, lenient)
        stand_in: Any
        if isinstance(lane, DecodingLane):
            stand_in = TextStandIn(lane, owner, slot)
        else:
            stand_in = HeadStandIn(lane, owner, slot, len(find_learning(task.kind).output_names(told.labels)))
        # It is the engine that makes batches.
        task = task.model_copy(update={"evaluate": task.evaluate.model_copy(update={"batch_size": _ALL})})
        about = (stand_in, self._tokenizer, self._types, self._positions, told.about, tenants)
        return Predictor(task, told.labels, told.score, *about)

    def _lane(self, package: Package) -> PassLane | DecodingLane:
        learning, tensors = find_learning(package.task.kind), package.delta.manifest.tensors
        head = tuple((name, tensors[name].shape[1:]) for name in package.delta.manifest.head)
        outputs = 0 if head else len(package.delta.manifest.labels)
        key = (learning.auto_class, package.by_mean, head, outputs) if learning.headed else (learning.auto_class,)
        if key in self._lanes:
            return self._lanes[key]
        with _reading:
            return self._lanes.get(key) or self._read(key, package)

    def _read(self, key: tuple[Any, ...], package: Package) -> PassLane | DecodingLane:
        """A lane for models of a package's kind, around weights that are there where it can."""
        started = time.perf_counter()
        model = self._standing_on(package)
        if model is None:
            model = package.load(self._folder)
            self.loads += 1
        self.load_s += time.perf_counter() - started
        banked = BankedModel(model, 1)
        lane: PassLane | DecodingLane = (
            PassLane(self.engine, banked, self._batching)
            if package.headed
            else DecodingLane(self.engine, banked, self._decoding)
        )
        self._lanes[key] = lane
        self.engine.add(lane)
        return lane

    def _standing_on(self, package: Package) -> Any:
        """A model of the package's kind around a Transformer that is loaded; None where weights have to be read."""
        for lane in self._lanes.values():
            found = _around(lane.model.base_model, package) if package.headed else None
            if found is not None:
                return found
        return None


class Bases:
    """All bases that are in memory, each read once.

    Args:
        batching: of rows that take one pass.
        decoding: of sequences.
        threads: of torch; 0 leaves what it has.
    """

    def __init__(self, batching: Batching | None = None, decoding: Decoding | None = None, threads: int = 0) -> None:
        self._made_by = (batching or Batching(), decoding or Decoding(), threads)
        self._loaded: dict[tuple[str, str], LoadedBase] = {}
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[LoadedBase]:
        return iter(self._loaded.values())

    def of(self, package: Package) -> LoadedBase:
        """The base of a package, which is read where it is not in memory yet.

        Raises:
            BiaslineError: where it is not found, or is not what its pin says.
        """
        return self._of(package, users=0)

    def hold(self, owner: str, package: Package) -> Held:
        """Put a package's deltas on its base, see `LoadedBase.hold`; the base stays until all of these were let go."""
        base = self._of(package, users=1)
        try:
            return base.hold(owner, package)
        except BaseException:
            self._left(base)
            raise

    def let_go(self, held: Held) -> None:
        """Give back what `hold` gave, and the base's memory where nothing else is held there."""
        held.release()
        base = next((one for one in self if one.engine is held.engine), None)
        if base is not None:
            self._left(base)

    def _of(self, package: Package, users: int) -> LoadedBase:
        """The base of a package, with so many users more."""
        key = package.pin.digest, package.task.load.model_dump_json()
        base = self._found(key, users)
        if base is None:
            with _reading:
                base = self._found(key, users)
                if base is None:
                    base = LoadedBase(package, *self._made_by)
                    base.users = users
                    with self._lock:
                        self._loaded = {**self._loaded, key: base}
        return base

    def _found(self, key: tuple[str, str], users: int) -> LoadedBase | None:
        with self._lock:
            base = self._loaded.get(key)
            if base is not None:
                base.users += users
            return base

    def _left(self, base: LoadedBase) -> None:
        with self._lock:
            base.users -= 1
            if base.users:
                return
            self._loaded = {key: one for key, one in self._loaded.items() if one is not base}
        # Not by whoever comes here: it waits for the engine's thread.
        threading.Thread(target=base.close, name="stops an engine", daemon=True).start()

    def close(self, drain_s: float = 0.0) -> None:
        """Stop all engines: what waits is answered, for so long at most."""
        end = time.monotonic() + drain_s
        for base in self:
            base.close(max(0.0, end - time.monotonic()))


def answer_together(
    packages: Mapping[str, Package], rows: Mapping[str, Rows], report: Callable[[str], None]
) -> Iterator[tuple[str, list[Any]]]:
    """Answers of several tasks, each base loaded once.

    Args:
        packages: task → package, of any bases.
        rows: task → rows of its kind.
        report: called with a line about each base and each delta, and how long it took.

    Returns:
        (task, answers), base by base.
    """
    bases = Bases()
    try:
        # Language models first: models with a head can stand on their Transformer, not the other way round.
        for name in sorted(packages, key=lambda name: packages[name].headed):
            bases.of(packages[name]).prepare(packages[name])
        groups: dict[LoadedBase, list[str]] = {}
        for name, package in packages.items():
            groups.setdefault(bases.of(package), []).append(name)
        for base, names in groups.items():
            often = "once" if base.loads == 1 else f"{base.loads} times (a head of its own has to be read)"
            report(f"{base.pin.name}: loaded {often} in {base.load_s:.2f} s")
            for name in names:
                started = time.perf_counter()
                held = base.hold(name, packages[name])
                model_type = held.lane.model.config.model_type
                report(f"{name}: {model_type} delta put in {1000 * (time.perf_counter() - started):.1f} ms")
                yield name, held.predictor(rows[name])
    finally:
        bases.close()


def _around(body: PretrainedModel, package: Package) -> Any:
    """A model with a head around a Transformer; None where it needs more than its delta brings."""
    if getattr(body, "pooler", None) is not None and pools_by_mean(body) != package.by_mean:
        return None
    import transformers

    learning = find_learning(package.task.kind)
    config: Any = copy.deepcopy(body.config)
    labels = learning.output_names(package.delta.manifest.labels)
    config.id2label, config.label2id = dict(enumerate(labels)), {name: i for i, name in enumerate(labels)}
    with torch.device("meta"):
        model = getattr(transformers, learning.auto_class).from_config(config)
    if type(model.base_model) is not type(body):
        return None
    if (getattr(model.base_model, "pooler", None) is None) != (getattr(body, "pooler", None) is None):
        return None
    setattr(model, model.base_model_prefix, body)
    own = [name for name, part in model.named_parameters() if part.is_meta]
    if not set(own) <= set(package.delta.manifest.head):
        return None
    reference = next(body.parameters())
    for name in own:
        path, _, attribute = name.rpartition(".")
        zeros = torch.zeros_like(model.get_parameter(name), device=reference.device, dtype=reference.dtype)
        setattr(model.get_submodule(path), attribute, nn.Parameter(zeros, requires_grad=False))
    return model.eval()
