"""Fair turns: what waits is taken from all owners one after the other, whoever asked more."""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

# Owners that are asked in vain before a batch is taken as it is.
_IN_VAIN = 16
# Batches that an owner's next item may be left out of; then nobody comes before it until it fits.
_PATIENCE = 32


class FairQueue(Generic[T]):
    """First in, first out for each owner, and owners take turns. Not safe to use from several threads."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[T]] = OrderedDict()
        self._left_out: dict[str, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        for items in self._waiting.values():
            yield from items

    @property
    def first(self) -> T | None:
        """The item whose turn it is."""
        return next(iter(self._waiting.values()))[0] if self._waiting else None

    def put(self, owner: str, item: T) -> None:
        """Let an item wait behind its owner's others."""
        self._waiting.setdefault(owner, deque()).append(item)
        self._count += 1

    def take(self, fits: Callable[[T], bool]) -> list[T]:
        """Take items in turn, as long as the next one of some owner fits.

        Args:
            fits: whether an item goes with those for which it said so before; asked once for each turn.
        """
        taken: list[T] = []
        in_vain = 0
        while self._waiting and in_vain < min(len(self._waiting), _IN_VAIN):
            owner, items = next(iter(self._waiting.items()))
            if not fits(items[0]):
                self._left_out[owner] = self._left_out.get(owner, 0) + 1
                if self._left_out[owner] > _PATIENCE:
                    break
                self._waiting.move_to_end(owner)
                in_vain += 1
                continue
            in_vain = 0
            self._waiting.move_to_end(owner)
            self._left_out.pop(owner, None)
            taken.append(items.popleft())
            self._count -= 1
            if not items:
                del self._waiting[owner]
        return taken

    def drop(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Take out all items that nobody waits for any more."""
        gone: list[T] = []
        for owner, items in list(self._waiting.items()):
            odd = [item for item in items if unwanted(item)]
            if odd:
                gone += odd
                kept = deque(item for item in items if not unwanted(item))
                if kept:
                    self._waiting[owner] = kept
                else:
                    del self._waiting[owner]
                    self._left_out.pop(owner, None)
        self._count -= len(gone)
        return gone
