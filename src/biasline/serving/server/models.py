"""What is served: registered versions on their bases, found by the names that callers use."""

import logging
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from biasline.bitfit.bank import BASE
from biasline.errors import BiaslineError, first_line
from biasline.serving.engine.bases import Bases, Held
from biasline.serving.engine.decoding import Decoding, DecodingLane
from biasline.serving.engine.passes import Batching
from biasline.serving.engine.stand_in import TextStandIn
from biasline.serving.package import Package
from biasline.serving.server import canary
from biasline.serving.server.registry import Place, Registry, Version
from biasline.serving.server.settings import ServerSettings
from biasline.serving.server.trials import Trials

if TYPE_CHECKING:
    from biasline.serving.server.keys import ApiKey

_log = logging.getLogger(__name__)
_BASE = "base:"
_LOOKED_THROUGH = 200
_AGAIN_S = 60.0  # after so long a version that could not be served is tried once more


class UnknownModel(BiaslineError):
    """No such model is served, or none that the caller may ask."""


class NotReady(BiaslineError):
    """Models are being loaded."""


@dataclass(eq=False)
class Served:
    """A version that is served.

    Attributes:
        registered: what the registry has.
        delta_sha256: of its delta's file.
        held: its deltas on their engine.
        since: when it was first served, seconds since 1970.
    """

    registered: Version
    delta_sha256: str
    held: Held
    since: float = field(default_factory=time.time)
    users: int = 0
    retired: bool = False
    released: bool = False

    @property
    def task(self) -> str:
        """Whose model it is."""
        return self.registered.task

    @property
    def version(self) -> str:
        """Its number in the registry; empty for a base by itself."""
        return self.registered.number

    @property
    def fingerprint(self) -> str:
        """Of its training."""
        return self.registered.fingerprint

    @property
    def base(self) -> str:
        """Digest of its base's pin."""
        return self.held.package.pin.digest

    def headers(self, tenant: str = "") -> dict[str, str]:
        """Who gives an answer, as headers of a response."""
        told = {
            "x-biasline-model": self.task,
            "x-biasline-version": self.version,
            "x-biasline-fingerprint": self.fingerprint,
            "x-biasline-delta": self.delta_of(tenant),
            "x-biasline-base": self.base,
        }
        return told | ({"x-biasline-tenant": _in_header(tenant)} if tenant else {})

    def headers_of_rows(self, tenants: Sequence[str]) -> dict[str, str]:
        """Who gives the answers to rows, of a fleet those of several tenants, as headers of a response."""
        named = set(tenants)
        if len(named) < 2:
            return self.headers(*named)
        return {**self.headers(), "x-biasline-delta": "by-row"}

    def delta_of(self, tenant: str = "") -> str:
        """sha256 of the delta that answers: the fleet's own where a tenant has none."""
        return self.held.sha256.get(tenant, self.delta_sha256)


@dataclass(frozen=True)
class Asked:
    """A model as a caller names it: a version, and of a fleet the tenant."""

    served: Served
    tenant: str = ""

    @property
    def is_base(self) -> bool:
        """Whether it is a base without any delta."""
        return not self.served.version

    @property
    def name(self) -> str:
        """What answers are told to come from."""
        return f"{self.served.task}/{self.tenant}" if self.tenant else self.served.task

    @property
    def system_fingerprint(self) -> str:
        """Which training and which delta: changes where answers may."""
        return f"{self.served.fingerprint}-{self.served.delta_of(self.tenant)[:12]}"


class Models:
    """The versions that are served, by task and alias; put in each other's place while requests are under way.

    Args:
        settings: of the server.
        registry: where aliases are looked up.

    Attributes:
        bases: in memory.
        trials: versions that are asked beside those that answer, or for a share of the requests.
        problems: (task, alias) → why the version that it points at is not served.
        heard: when the registry answered last, seconds since 1970; 0 for never.
    """

    def __init__(self, settings: ServerSettings, registry: Registry) -> None:
        self._settings, self._registry = settings, registry
        self.bases = Bases(
            Batching(settings.pass_tokens, settings.wait_ms / 1000),
            Decoding(settings.sequences, settings.cached_tokens, settings.pass_tokens, settings.wait_ms / 1000),
            settings.threads,
        )
        self.trials = Trials.read(settings.shadow, settings.split)
        self.problems: dict[Place, str] = {}
        self.heard = 0.0
        self.loaded = False
        self.away = ""
        self._told: set[Place] = set()
        self._served: dict[Place, Served] = {}
        self._refused: dict[Place, tuple[Version, float]] = {}
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[tuple[str, str, Served]]:
        for (task, alias), served in sorted(self._served.items()):
            yield task, alias, served

    def __len__(self) -> int:
        return len(self._served)

    def refresh(self) -> None:
        """Serve what the aliases point at now: each change at once for all requests that come after it.

        A version that cannot be served leaves the one before it in place; one whose alias is gone is served no longer.
        A registry that does not answer changes nothing.
        """
        try:
            wanted = self._registry.versions(self._settings.tasks, self._settings.aliases)
            for task, alias in self.trials.places:
                wanted |= self._registry.versions([task], [alias])
        except Exception as error:  # of MLflow, of a database, of a connection: the registry is away
            if not self.away:
                _log.warning("the registry does not answer: %s", first_line(error))
            self.away = first_line(error)
            return
        self.heard, self.away = time.time(), ""
        for place in [place for place in self._served if place not in wanted]:
            _log.warning("%s@%s: the registry has no such alias any more; not served", *place)
            self._replace(place, None)
        problems = {place: told for place, told in self.problems.items() if place in wanted}
        self.problems = problems | self._missing(wanted)
        for place in self.problems.keys() - problems.keys() - self._told:
            _log.warning("%s@%s: %s", *place, self.problems[place])
        self._told = set(self.problems) - set(problems)
        # What is loaded already first: it takes no time.
        new = {place: one for place, one in wanted.items() if self._is_new(place, one)}
        new = {place: one for place, one in new.items() if not self._serve_again(place, one)}
        if new:
            with tempfile.TemporaryDirectory() as scratch:
                self._load(new, Path(scratch))
        self.loaded = True

    def find(self, name: Any, key: "ApiKey | None" = None) -> Asked:
        """The model that a caller names.

        `TASK`, `TASK@ALIAS`, `TASK@VERSION`, `TASK@FINGERPRINT` or a fingerprint, each with `/TENANT` behind it where
        it is a fleet; `base:NAME` where settings allow it.

        Raises:
            UnknownModel: for a name that is not served, or that the key may not ask; with the nearest that is.
            NotReady: where models are still being loaded.
        """
        if not isinstance(name, str) or not name:
            raise UnknownModel("no model is named", self._known(key))
        asked = self._found(name, key)
        if asked is None and not self.loaded:
            if self.away:
                raise NotReady(f"nothing is served yet: the registry does not answer: {self.away}")
            raise NotReady("models are being loaded", "ask again in some seconds")
        if asked is None:
            raise self._unknown(name, key)
        return asked

    def _found(self, name: str, key: "ApiKey | None") -> Asked | None:
        if name.startswith(_BASE):
            base = self._base(name) if key is None or key.allows(name) else None
            return None if base is None else Asked(base)
        version, _, tenant = name.partition("/")
        task, _, which = version.partition("@")
        if "@" in version and not which:
            return None
        served, tenant = self._version(task, which), tenant.strip()  # as rows have their tenants
        return Asked(served, tenant) if served is not None and self._may(served, tenant, key) else None

    def _may(self, served: Served, tenant: str, key: "ApiKey | None") -> bool:
        """Whether a model has such a tenant, and a key may ask it; of a fleet without one each row names its own."""
        tenants = served.held.tenants
        if tenants is None:
            return not tenant and (key is None or key.allows(served.task))
        if not tenant:
            return key is None or key.allows_some(served.task)
        return tenants.serves(tenant) and (key is None or key.allows(served.task, tenant))

    def check_tenants(self, asked: Asked, owners: Iterable[str], key: "ApiKey | None") -> None:
        """Refuse rows of tenants that are not known or that a key may not ask, both in the same words.

        Raises:
            UnknownModel: naming the first.
        """
        for owner in dict.fromkeys(owners):
            if not self._may(asked.served, owner, key):
                raise self._unknown(f"{asked.served.task}/{owner}", key)

    @contextmanager
    def using(self, name: Any, key: "ApiKey | None" = None) -> Iterator[Asked]:
        """The model that a caller names; it keeps its deltas until the block ends, whatever the alias does meanwhile.

        Raises:
            UnknownModel, NotReady: as `find`.
        """
        while True:
            asked = self.find(name, key)
            with self._lock:
                if not asked.served.retired:  # in between
                    asked.served.users += 1
                    break
        try:
            yield asked
        finally:
            self._left(asked.served)

    @contextmanager
    def using_shadow(self, asked: Asked) -> Iterator[Asked | None]:
        """The version that is to be asked the same; None where there is none, or it is the one that answers."""
        alias, shadow = self.trials.shadows.get(asked.served.task), None
        with self._lock:
            served = self._served.get((asked.served.task, alias)) if alias is not None else None
            if served is not None and served is not asked.served and not asked.is_base:
                served.users += 1
                shadow = Asked(served, asked.tenant)
        try:
            yield shadow
        finally:
            if shadow is not None:
                self._left(shadow.served)

    def names(self, key: "ApiKey | None" = None) -> list[tuple[str, Served]]:
        """What a caller may name: tasks, other aliases, and of fleets the tenants."""
        found = []
        for task, alias, served in self:
            named = task if alias == self._settings.aliases[0] else f"{task}@{alias}"
            if key is None or key.allows(task):
                found.append((named, served))
            deltas = served.held.package.tenants
            if deltas is not None:
                tenants = sorted({*deltas.own, *deltas.shared})
                found += [(f"{named}/{one}", served) for one in tenants if key is None or key.allows(task, one)]
        return found

    def close(self, drain_s: float = 0.0) -> None:
        """Stop: what is under way is answered, for so long at most."""
        self.bases.close(drain_s)

    def _missing(self, wanted: Iterable[Place]) -> dict[Place, str]:
        """What was to be served, and the registry does not have."""
        aliases, found = self._settings.aliases, set(wanted)
        places = {(task, alias) for task in self._settings.tasks for alias in aliases} | self.trials.places
        # Who names a task means the first alias.
        places |= {(task, aliases[0]) for task, _ in found}
        told = {place: "the registry has no such model or alias" for place in places - found}
        for alias in () if self._settings.tasks else aliases[1:] if found else aliases:
            if alias not in {one for _, one in found}:
                way = "`biasline promote TASK` makes a champion; --alias candidate serves what may become one"
                told["*", alias] = f"no registered model has this alias → {way}"
        return told

    def _load(self, new: dict[Place, Version], scratch: Path) -> None:
        """Read what versions hold, and serve them."""
        read = {}
        for number, (place, version) in enumerate(new.items()):
            try:
                (folder := scratch / str(number)).mkdir()
                read[place] = version, *self._registry.package(version, folder)
            except Exception as error:
                self._refuse(place, version, error)
        # Language models first: models with a head can stand on their Transformer, not the other way round.
        for place, (version, package, delta) in sorted(read.items(), key=lambda item: (item[1][1].headed, item[0])):
            if not self._serve_again(place, version):
                self._serve(place, version, package, delta)

    def _is_new(self, place: Place, version: Version) -> bool:
        served = self._served.get(place)
        if served is not None and served.registered == version:
            self._clear(place)  # where the alias went back to what is served
            return False
        refused, at = self._refused.get(place, (None, 0.0))
        return refused != version or time.monotonic() - at > _AGAIN_S

    def _serve_again(self, place: Place, version: Version) -> bool:
        """Serve a version that another alias has on its base already."""
        for other in list(self._served.values()):
            if other.registered == version:
                self._replace(place, other)
                self._clear(place)
                return True
        return False

    def _serve(self, place: Place, version: Version, package: Package, delta: str) -> None:
        """Put a version on its base, have it answer its canary, and let requests come to it."""
        started, held = time.monotonic(), None
        try:
            held = self.bases.hold(version.task, package)
            compared = self._canary(version, held)
        except Exception as error:
            if held is not None:
                self.bases.let_go(held)
            self._refuse(place, version, error)
            return
        self._replace(place, Served(version, delta, held))
        self._clear(place)
        _log.info(
            "%s@%s: version %s is served; %d rows answered as evaluated; %.2f s",
            *(*place, version.number, compared, time.monotonic() - started),
        )

    def _canary(self, version: Version, held: Held) -> int:
        task, settings = held.package.task, self._settings
        column = task.tenants.column if task.tenants.many else ""
        predictions = self._registry.predictions(version)
        rows = canary.chosen_rows(predictions, settings.canary_rows, column, settings.tenant_canary_rows)
        return canary.check(held, rows, settings.canary_rows)

    def _clear(self, place: Place) -> None:
        self.problems = {other: told for other, told in self.problems.items() if other != place}
        self._refused.pop(place, None)

    def _refuse(self, place: Place, version: Version, error: Exception) -> None:
        told = f"version {version.number} is not served: {first_line(error)}"
        if place in self._served:
            told += f"; version {self._served[place].version} goes on"
        (_log.error if isinstance(error, BiaslineError) else _log.exception)("%s@%s: %s", *place, told)
        self.problems = {**self.problems, place: told}  # never changed while others read it
        self._refused[place] = version, time.monotonic()

    def _replace(self, place: Place, served: Served | None) -> None:
        with self._lock:
            now = dict(self._served)  # others read the one there was until now
            before = now.pop(place, None)
            if served is not None:
                now[place] = served
            self._served = now
            if before is not None and before not in self._served.values():
                before.retired = True
        if before is not None:
            self._let_go(before)

    def _left(self, served: Served) -> None:
        with self._lock:
            served.users -= 1
        self._let_go(served)

    def _let_go(self, served: Served) -> None:
        with self._lock:
            if not served.retired or served.users or served.released:
                return
            served.released = True
        self.bases.let_go(served.held)

    def _base(self, name: str) -> Served | None:
        """A base by itself, as a language model; None where none is so called, or settings do not allow it."""
        for served in self._served.values() if self._settings.allow_base else ():
            pin, lane = served.held.package.pin, served.held.lane
            if name == f"{_BASE}{pin.name}" and isinstance(lane, DecodingLane):
                stand_in: Any = TextStandIn(lane, name, BASE)
                alone = replace(served.held.predictor, model=stand_in, tenants=None)
                held = replace(served.held, predictor=alone, slot=BASE, own={}, sha256={})
                return Served(Version(name, "", pin.digest), "", held)
        return None

    def _version(self, task: str, which: str) -> Served | None:
        """The version that `TASK@WHICH` means, or a fingerprint alone."""
        if not which:
            named = self._served.get((task, self._settings.aliases[0]))
            return named or self._by_fingerprint(task)
        if (task, which) in self._served:
            return self._served[task, which]
        for (name, _), served in self._served.items():
            if name == task and which in (served.version, served.fingerprint):
                return served
        return None

    def _by_fingerprint(self, fingerprint: str) -> Served | None:
        return next((one for one in self._served.values() if fingerprint and one.fingerprint == fingerprint), None)

    def _unknown(self, name: str, key: "ApiKey | None") -> UnknownModel:
        shown = name if len(name) <= 100 else f"{name[:100]}…"
        task = name.partition("/")[0]
        known = [one for one, _ in self.names(key)]
        if self._settings.allow_base:
            known += [f"{_BASE}{base.pin.name}" for base in self.bases if key is None or key.allows(base.pin.name)]
        asked, at, _ = task.partition("@")
        served = [(alias, one) for name, alias, one in self if name == asked and at and self._may(one, "", key)]
        if served:
            told = ", ".join(f"{alias} (version {one.version})" for alias, one in served)
            return UnknownModel(f"model {shown!r}: no such model is served", f"{asked} is served as {told}")
        if len(known) > _LOOKED_THROUGH:  # those of the same task alone, and of these not all
            known = [one for one in known if one.partition("/")[0] == task][:_LOOKED_THROUGH] or known[:_LOOKED_THROUGH]
        near = get_close_matches(shown, known, n=1, cutoff=0.6)
        return UnknownModel(
            f"model {shown!r}: no such model is served",
            f"did you mean {near[0]!r}?" if near else self._known(key),
        )

    def _known(self, key: "ApiKey | None") -> str:
        names = [one for one, _ in self.names(key)]
        more = f" and {len(names) - 8} more" if len(names) > 8 else ""
        return f"give `model`: one of {', '.join(names[:8])}{more}" if names else "none is served; /ready says why"


def _in_header(text: str) -> str:
    """Any text as a header may have it."""
    return quote(text, safe="!#$&'()*+,/:;=?@[]~")
