"""Follows the registry: what its aliases point at is loaded, has to answer its canary, and is served."""

import logging
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from biasline.errors import BiaslineError, first_line
from biasline.process import release_memory
from biasline.serving.engine.bases import Bases, Held
from biasline.serving.package import Package
from biasline.serving.server import canary
from biasline.serving.server.registry import Place, Registry, Version
from biasline.serving.server.served import Served, ServedVersions
from biasline.serving.server.settings import ServerSettings

_log = logging.getLogger(__name__)
_AGAIN_S = 60.0  # after so long a version that could not be served is tried once more
_LOADERS = 4  # threads at most: a rollback need not wait until a large fleet is loaded


class Follower:
    """Serves what aliases point at, each change at once for all requests that come after it.

    A version that cannot be served leaves the one before it in place; one whose alias is gone is served no longer.
    Versions that are found at one look are loaded by a thread of their own, so that what is found later, as a
    rollback, does not wait for them.

    Args:
        settings: of the server.
        registry: where aliases are looked up.
        bases: what versions are loaded to.
        on_trial: further tasks and aliases that are to be served.

    Attributes:
        bases: as given.
        served: the versions that answer.
        problems: (task, alias) → why the version that it points at is not served.
        heard: when the registry answered last, seconds since 1970; 0 for never.
        away: why the registry does not answer; empty where it does.
        loaded: whether all that was found at the first look is served, or was refused.
    """

    def __init__(
        self, settings: ServerSettings, registry: Registry, bases: Bases, on_trial: Iterable[Place] = ()
    ) -> None:
        self._settings, self._registry, self._on_trial = settings, registry, set(on_trial)
        self.bases = bases
        self.served = ServedVersions(bases.let_go)
        self.problems: dict[Place, str] = {}
        self.heard = 0.0
        self.away = ""
        self.loaded = False
        # Held by whoever changes what is below, or what is served; never while anything is loaded.
        self._changing = threading.Lock()
        self._wanted: dict[Place, Version] = {}
        self._loading: set[Version] = set()
        self._loaders = 0
        self._looked = False
        self._told: set[Place] = set()
        self._refused: dict[Place, tuple[Version, float]] = {}
        self._closed = False

    def refresh(self) -> None:
        """Look once where aliases point, and begin to load what is new; a registry that is away changes nothing."""
        try:
            wanted = self._registry.versions(self._settings.tasks, self._settings.aliases)
            for task, alias in self._on_trial:
                wanted |= self._registry.versions([task], [alias])
        except Exception as error:  # of MLflow, of a database, of a connection: the registry is away
            if not self.away:
                _log.warning("the registry does not answer: %s", first_line(error))
            self.away = first_line(error)
            return
        self.heard, self.away = time.time(), ""
        with self._changing:
            self._wanted = wanted
            for place in [place for place in self.served.now if place not in wanted]:
                _log.warning("%s@%s: the registry has no such alias any more; not served", *place)
                self.served.replace(place, None)
            self._tell_missing(wanted)
            new = {place: one for place, one in wanted.items() if self._is_new(place, one)}
            # What is loaded already, or is being loaded for another alias, is not loaded twice.
            new = {place: one for place, one in new.items() if not self._serve_again(place, one)}
            new = {place: one for place, one in new.items() if one not in self._loading}
            first, self._looked = not self._looked, True
            if new and self._loaders < _LOADERS:
                self._loaders += 1
                self._loading |= set(new.values())
                threading.Thread(target=self._load_all, args=(new, first), name="loads versions", daemon=True).start()
            elif first:
                self.loaded = True

    def close(self, drain_s: float = 0.0) -> None:
        """Stop: what is under way is answered, for so long at most."""
        self._closed = True
        self.bases.close(drain_s)

    def _tell_missing(self, wanted: Iterable[Place]) -> None:
        """Keep the problems of what is still wanted, and tell what the registry does not have."""
        problems = {place: told for place, told in self.problems.items() if place in wanted}
        missing = self._missing(wanted)
        self.problems = problems | missing
        for place in missing.keys() - self._told:
            _log.warning("%s@%s: %s", *place, missing[place])
        self._told = set(missing)

    def _missing(self, wanted: Iterable[Place]) -> dict[Place, str]:
        """What was to be served, and the registry does not have."""
        aliases, found = self._settings.aliases, set(wanted)
        places = {(task, alias) for task in self._settings.tasks for alias in aliases} | self._on_trial
        # Who names a task means the first alias.
        places |= {(task, aliases[0]) for task, _ in found}
        told = {place: "the registry has no such model or alias" for place in places - found}
        for alias in () if self._settings.tasks else aliases[1:] if found else aliases:
            if alias not in {one for _, one in found}:
                way = "`biasline promote TASK` makes a champion; --alias candidate serves what may become one"
                told["*", alias] = f"no registered model has this alias → {way}"
        return told

    def _is_new(self, place: Place, version: Version) -> bool:
        served = self.served.now.get(place)
        if served is not None and served.registered == version:
            self._clear(place)  # where the alias went back to what is served
            return False
        refused, at = self._refused.get(place, (None, 0.0))
        return refused != version or time.monotonic() - at > _AGAIN_S

    def _serve_again(self, place: Place, version: Version) -> bool:
        """Serve a version that another alias has on its base already."""
        for other in self.served.now.values():
            if other.registered == version:
                self.served.replace(place, other)
                self._clear(place)
                return True
        return False

    def _load_all(self, new: Mapping[Place, Version], first: bool) -> None:
        """Load what was found at one look, the first one or a later, and serve it; what a thread does."""
        try:
            with tempfile.TemporaryDirectory() as scratch:
                self._load_from(new, Path(scratch))
        except Exception as error:  # of the folder
            for place, version in new.items():
                self._refuse(place, version, error)
        finally:
            with self._changing:
                self._loaders -= 1
                self._loading -= set(new.values())
                self.loaded = self.loaded or first
            release_memory()  # of what was read and compared, and of versions that went

    def _load_from(self, new: Mapping[Place, Version], scratch: Path) -> None:
        read = {}
        for number, (place, version) in enumerate(new.items()):
            try:
                (folder := scratch / str(number)).mkdir()
                read[place] = version, *self._registry.package(version, folder)
            except Exception as error:
                self._refuse(place, version, error)
        # Language models first: models with a head can stand on their Transformer, not the other way round.
        for place, (version, package, delta) in sorted(read.items(), key=lambda item: (item[1][1].headed, item[0])):
            with self._changing:
                there = self._serve_again(place, version) or not self._wants(place, version)
            if not there:
                self._load(place, version, package, delta)
            del read[place]
            with self._changing:  # from now on it may be loaded anew, whatever this thread is still at
                self._loading -= {version} - {other for other, *_ in read.values()}

    def _load(self, place: Place, version: Version, package: Package, delta: str) -> None:
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
        with self._changing:
            wanted = self._wants(place, version)
            if wanted:
                self.served.replace(place, Served(version, delta, held))
                self._clear(place)
        told = f"version {version.number}", compared, time.monotonic() - started
        if wanted:
            _log.info("%s@%s: %s is served; %d rows answered as evaluated; %.2f s", *place, *told)
        else:
            self.bases.let_go(held)
            _log.info("%s@%s: %s is not served: the alias moved on meanwhile", *place, told[0])

    def _wants(self, place: Place, version: Version) -> bool:
        """Whether an alias points at a version still."""
        return self._wanted.get(place) == version

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
        """Keep and tell why a version is not served, where it is wanted still."""
        with self._changing:
            if self._closed or not self._wants(place, version):
                return
            told = f"version {version.number} is not served: {first_line(error)}"
            if before := self.served.now.get(place):
                told += f"; version {before.version} goes on"
            self.problems = {**self.problems, place: told}  # never changed while others read it
            self._refused[place] = version, time.monotonic()
        if isinstance(error, BiaslineError):
            _log.error("%s@%s: %s", *place, told)
        else:
            _log.error("%s@%s: %s", *place, told, exc_info=error)
