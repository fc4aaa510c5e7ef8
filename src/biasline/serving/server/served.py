"""Versions that are served: put in each other's place while requests are under way."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import quote

from biasline.serving.engine.bases import Held
from biasline.serving.server.registry import Place, Version


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


class ServedVersions:
    """The version that answers for each task and alias.

    A version keeps its deltas until no alias points at it and no request uses it.

    Args:
        let_go: called with what such a version held.
    """

    def __init__(self, let_go: Callable[[Held], None]) -> None:
        self._let_go = let_go
        # Never changed while others read it: each change puts another in its place.
        self._now: dict[Place, Served] = {}
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[tuple[str, str, Served]]:
        for (task, alias), served in sorted(self._now.items()):
            yield task, alias, served

    def __len__(self) -> int:
        return len(self._now)

    @property
    def now(self) -> dict[Place, Served]:
        """What there is at this moment; it does not change afterwards."""
        return self._now

    def replace(self, place: Place, served: Served | None) -> None:
        """Have another version answer for all requests that come from now on; None where none shall."""
        with self._lock:
            now = dict(self._now)
            before = now.pop(place, None)
            if served is not None:
                now[place] = served
            self._now = now
            if before is not None and before not in now.values():
                before.retired = True
        if before is not None:
            self._release_unused(before)

    def use(self, served: Served) -> bool:
        """Begin to use a version, which keeps its deltas until `left`; False where it was replaced in between."""
        with self._lock:
            if served.retired:
                return False
            served.users += 1
            return True

    def left(self, served: Served) -> None:
        """End what `use` began."""
        with self._lock:
            served.users -= 1
        self._release_unused(served)

    def _release_unused(self, served: Served) -> None:
        with self._lock:
            if not served.retired or served.users or served.released:
                return
            served.released = True
        self._let_go(served.held)


def _in_header(text: str) -> str:
    """Any text as a header may have it."""
    return quote(text, safe="!#$&'()*+,/:;=?@[]~")
