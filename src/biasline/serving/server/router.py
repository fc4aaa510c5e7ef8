"""Which version answers, by the name that a caller gives and what its key allows."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from biasline.bitfit.bank import BASE
from biasline.errors import BiaslineError
from biasline.serving.engine.decoding import DecodingLane
from biasline.serving.engine.stand_in import TextStandIn
from biasline.serving.server.follower import Follower
from biasline.serving.server.registry import Version
from biasline.serving.server.served import Asked, Served
from biasline.serving.server.settings import ServerSettings
from biasline.serving.server.trials import Trials

if TYPE_CHECKING:
    from biasline.serving.server.keys import ApiKey

_BASE = "base:"
_LOOKED_THROUGH = 200


class UnknownModel(BiaslineError):
    """No such model is served, or none that the caller may ask."""


class NotReady(BiaslineError):
    """Models are being loaded."""


class Router:
    """Finds what is asked.

    Args:
        settings: of the server.
        trials: versions that are asked beside those that answer.
        follower: of the registry, with what it serves.
    """

    def __init__(self, settings: ServerSettings, trials: Trials, follower: Follower) -> None:
        self._settings, self._trials, self._follower = settings, trials, follower
        self._served = follower.served

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
        if asked is None and not self._follower.loaded:
            if self._follower.away:
                raise NotReady(f"nothing is served yet: the registry does not answer: {self._follower.away}")
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
            if self._served.use(asked.served):
                break
        try:
            yield asked
        finally:
            self._served.left(asked.served)

    @contextmanager
    def using_shadow(self, asked: Asked) -> Iterator[Asked | None]:
        """The version that is to be asked the same; None where there is none, or it is the one that answers."""
        alias = self._trials.shadows.get(asked.served.task)
        served = self._served.now.get((asked.served.task, alias)) if alias is not None else None
        if served is None or served is asked.served or asked.is_base or not self._served.use(served):
            yield None
            return
        try:
            yield Asked(served, asked.tenant)
        finally:
            self._served.left(served)

    def names(self, key: "ApiKey | None" = None) -> list[tuple[str, Served]]:
        """What a caller may name: tasks, other aliases, and of fleets the tenants."""
        found = []
        for task, alias, served in self._served:
            named = task if alias == self._settings.aliases[0] else f"{task}@{alias}"
            if key is None or key.allows(task):
                found.append((named, served))
            deltas = served.held.package.tenants
            if deltas is not None:
                tenants = sorted({*deltas.own, *deltas.shared})
                found += [(f"{named}/{one}", served) for one in tenants if key is None or key.allows(task, one)]
        return found

    def _base(self, name: str) -> Served | None:
        """A base by itself, as a language model; None where none is so called, or settings do not allow it."""
        for served in self._served.now.values() if self._settings.allow_base else ():
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
            named = self._served.now.get((task, self._settings.aliases[0]))
            return named or self._by_fingerprint(task)
        if (task, which) in self._served.now:
            return self._served.now[task, which]
        for (name, _), served in self._served.now.items():
            if name == task and which in (served.version, served.fingerprint):
                return served
        return None

    def _by_fingerprint(self, fingerprint: str) -> Served | None:
        return next((one for one in self._served.now.values() if fingerprint and one.fingerprint == fingerprint), None)

    def _unknown(self, name: str, key: "ApiKey | None") -> UnknownModel:
        shown = name if len(name) <= 100 else f"{name[:100]}…"
        task = name.partition("/")[0]
        known = [one for one, _ in self.names(key)]
        if self._settings.allow_base:
            known += [
                f"{_BASE}{base.pin.name}" for base in self._follower.bases if key is None or key.allows(base.pin.name)
            ]
        asked, at, _ = task.partition("@")
        served = [(alias, one) for name, alias, one in self._served if name == asked and at and self._may(one, "", key)]
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
