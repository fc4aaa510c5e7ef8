"""One model that answers each row with the delta of the tenant whose row it is."""

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
_NAMED = 5


class Tenants:
    """A bank that holds the deltas of those tenants that are asked for; of others the ones that were asked last.

    Args:
        model: a plain base.
        shared: the delta of tenants that have none of their own.
        deltas: whose are whose.
        slots: own deltas that are held at once.
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

    @contextmanager
    def asked(self, tenants: Sequence[str]) -> Iterator[None]:
        """Ask the model, in this block, rows of these tenants, see `biasline.bitfit.asked`.

        Raises:
            BiaslineError: for a tenant that is not known, and for more tenants than slots.
        """
        with asked(self._bank, self._slots_of(tenants)):
            yield

    def _slots_of(self, tenants: Sequence[str]) -> list[int]:
        wanted = list(dict.fromkeys(tenants))
        if odd := [name for name in wanted if name not in self._deltas and not self._unknown]:
            named = ", ".join(map(repr, odd[:_NAMED]))
            raise BiaslineError(
                f"tenant {named}: not among the {len(self._deltas)} that were trained",
                "train it, or allow the shared delta for it (tenants.unknown: shared)",
            )
        own = [name for name in wanted if name in self._deltas.own]
        if len(own) > self._slots:
            raise BiaslineError(f"{len(own)} tenants at once, there are {self._slots} slots", "ask fewer at a time")
        for name in own:
            if name in self._held:
                self._held.move_to_end(name)
        for name in own:
            if name not in self._held:
                delta = self._deltas.load(name)
                slot = len(self._held) + _SHARED + 1
                if len(self._held) == self._slots:
                    # None of those that are wanted now: they stand at the end.
                    slot = self._held.popitem(last=False)[1]
                self._bank.put(slot, delta)
                self._held[name] = slot
        return [self._held.get(name, _SHARED) if name in self._deltas.own else _SHARED for name in tenants]
