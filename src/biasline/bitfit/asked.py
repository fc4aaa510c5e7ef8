"""Whose rows a model is asked: told once for a list of rows, and taken by whoever makes batches of them."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Protocol


class AskedTenants(Protocol):
    """Deltas of tenants on one model, whatever holds them."""

    def __contains__(self, tenant: object) -> bool: ...

    @property
    def mixes(self) -> bool:
        """Whether rows of several tenants go through the model in one pass."""

    def asked(self, tenants: Sequence[str]) -> AbstractContextManager[None]:
        """The block in which the model is asked rows of these tenants; refuses tenants that are not known."""

    def rows(self, tenants: Sequence[str]) -> AbstractContextManager[Any]:
        """The block in which a batch has a row of each of these tenants; inside of `asked`."""


_asked: ContextVar[tuple[AskedTenants, Sequence[str]] | None] = ContextVar("asked", default=None)


@contextmanager
def asked(tenants: AskedTenants, owners: Sequence[str]) -> Iterator[None]:
    """Ask a model, in this block, rows of tenants.

    Args:
        tenants: of the model.
        owners: whose each row is, by its place in the whole list.
    """
    token = _asked.set((tenants, owners))
    try:
        yield
    finally:
        _asked.reset(token)


def of_tenants() -> bool:
    """Whether rows that a model is asked now have owners."""
    return _asked.get() is not None


def batch_of(places: Sequence[int]) -> AbstractContextManager[Any]:
    """What a batch's forward passes are made in: the deltas of its rows, where rows have owners.

    Args:
        places: of the batch's rows in the list of all.
    """
    found = _asked.get()
    if found is None:
        return nullcontext()
    tenants, owners = found
    return tenants.rows([owners[place] for place in places])


def batches(places: Sequence[int], size: int) -> Iterator[list[int]]:
    """Rows in batches, in their order; where a model takes rows of one tenant at a time, of one tenant each.

    Args:
        places: of the rows in the list of all.
        size: rows of a batch at most.
    """
    found = _asked.get()
    parts: dict[str, list[int]] = {}
    for place in places:
        parts.setdefault("" if found is None or found[0].mixes else found[1][place], []).append(place)
    for part in parts.values():
        yield from (part[start : start + size] for start in range(0, len(part), size))
