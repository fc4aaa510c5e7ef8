"""Whose rows a model is asked: told once for a list of rows, and taken by whoever makes batches of them."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biasline.bitfit.bank import Bank

_asked: ContextVar["tuple[Bank, Sequence[int]] | None"] = ContextVar("asked", default=None)


@contextmanager
def asked(bank: "Bank", slots: Sequence[int]) -> Iterator[None]:
    """Ask the bank's model, in this block, rows that each have a slot.

    Args:
        bank: of the model.
        slots: of each row, by its place in the whole list.
    """
    token = _asked.set((bank, slots))
    try:
        yield
    finally:
        _asked.reset(token)


def batch_of(places: Sequence[int]) -> AbstractContextManager[Any]:
    """What a batch's forward passes are made in: the slots of its rows, where rows have any.

    Args:
        places: of the batch's rows in the list of all.
    """
    found = _asked.get()
    if found is None:
        return nullcontext()
    bank, slots = found
    return bank.rows([slots[place] for place in places])
