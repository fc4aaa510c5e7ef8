"""One model that answers each row with the delta of the tenant whose row it is."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from biasline.bitfit.asked import asked
from biasline.bitfit.bank import Bank
from biasline.bitfit.delta import BiasDelta
from biasline.bitfit.deltas import Deltas
from biasline.errors import BiaslineError

_SHARED = 1


class Tenants:
    """A bank that holds the deltas of those tenants that are asked for; of others the ones that were asked last.

    Any number of threads may ask; one is answered after the other.

    Args:
        model: a plain base.
        shared: the delta of tenants that have none of their own.
        deltas: whose are whose.
        slots: own deltas that are held at once; a batch may have rows of so many.
        unknown: whether the shared delta answers for a tenant that `deltas` does not know.
    """

    def __init__(
        self, model: nn.Module, shared: BiasDelta, deltas: Deltas, slots: int = 1024, unknown: bool = False
    ) -> None:
        self._deltas, self._unknown = deltas, unknown
        self._slots = max(1, min(slots, len(deltas.own)))
        self._bank = Bank(model, self._slots + 1)
        self._bank.put(_SHARED, shared)
        self._held: OrderedDict[str, int] = OrderedDict()
        self._free = list(range(self._slots + _SHARED, _SHARED, -1))
        # Held while rows are asked: a slot must not be another tenant's before its rows are answered.
        self._lock = threading.Lock()

    def __contains__(self, tenant: object) -> bool:
        return tenant in self._deltas

    @property
    def mixes(self) -> bool:
        """Whether rows of several tenants go through the model in one pass."""
        return self._bank.mixes

    @contextmanager
    def asked(self, tenants: Sequence[str]) -> Iterator[None]:
        """Ask the model, in this block, rows of these tenants, see `biasline.bitfit.asked`.

        Raises:
            BiaslineError: for a tenant that is not known.
        """
        odd = [name for name in dict.fromkeys(tenants) if name not in self._deltas]
        if odd and not self._unknown:
            raise self._deltas.unknown(odd)
        with self._lock, asked(self, tenants):
            yield

    @contextmanager
    def rows(self, tenants: Sequence[str]) -> Iterator[nn.Module]:
        """The model for a batch with a row of each of these tenants; inside of `asked`.

        Raises:
            BiaslineError: for more tenants than there are slots.
        """
        with self._bank.rows(self._slots_of(tenants)):
            yield self._bank.model

    def _slots_of(self, tenants: Sequence[str]) -> list[int]:
        own = [name for name in dict.fromkeys(tenants) if name in self._deltas.own]
        if len(own) > self._slots:
            raise BiaslineError(f"a batch of {len(own)} tenants, there are {self._slots} slots", "make it smaller")
        for name in own:
            if name in self._held:
                self._held.move_to_end(name)
        for name in own:
            if name in self._held:
                continue
            delta = self._deltas.load(name)
            if not self._free:
                # None of those that are wanted now: they stand at the end.
                self._free.append(self._held.popitem(last=False)[1])
            self._bank.put(self._free[-1], delta)
            self._held[name] = self._free.pop()
        return [self._held[name] if name in self._deltas.own else _SHARED for name in tenants]
