"""What is learned, a module for each kind of task: its columns, rules, tokens, loss and model."""

from importlib import import_module
from pkgutil import iter_modules

from biasline.errors import BiaslineError
from biasline.kinds.columns import Columns
from biasline.kinds.protocols import Learning


def _declared() -> dict[str, Learning]:
    """`LEARNING` of each module beside this one, in their order."""
    found: list[Learning] = []
    for module in iter_modules(__path__):
        one = import_module(f"{__name__}.{module.name}").LEARNING
        if one.name != module.name:
            raise ValueError(f"{__name__}.{module.name} declares a kind {one.name!r}: name both alike")
        found.append(one)
    return {one.name: one for one in sorted(found, key=lambda one: one.order)}


LEARNINGS = _declared()


def find_learning(kind: str) -> Learning:
    """What a kind of task learns.

    Raises:
        BiaslineError: for a kind that there is not.
    """
    if kind not in LEARNINGS:
        raise BiaslineError(f"kind {kind!r}: there is no such kind", f"use one of {', '.join(LEARNINGS)}")
    return LEARNINGS[kind]


def columns_of(kind: str) -> Columns:
    """The columns of a kind of task's examples."""
    return find_learning(kind).columns
