"""What is answered, a module for each kind of task: its metrics, comparison, words on the card, and answers served."""

from importlib import import_module
from pkgutil import iter_modules

from biasline.errors import BiaslineError
from biasline.kinds.protocols import Answering
from biasline.metrics.table import declare


def _declared() -> dict[str, Answering]:
    """`ANSWERING` of each module beside this one, by kind; its metrics are in the table from then on."""
    found: dict[str, Answering] = {}
    for module in iter_modules(__path__):
        one = import_module(f"{__name__}.{module.name}").ANSWERING
        if one.learning.name != module.name:
            raise ValueError(f"{__name__}.{module.name} answers for {one.learning.name!r}: name both alike")
        for metric in one.metrics:
            declare(metric)
        found[module.name] = one
    return dict(sorted(found.items(), key=lambda item: item[1].learning.order))


ANSWERINGS = _declared()


def find_answering(kind: str) -> Answering:
    """What a kind of task answers.

    Raises:
        BiaslineError: for a kind that there is not.
    """
    if kind not in ANSWERINGS:
        raise BiaslineError(f"kind {kind!r}: there is no such kind", f"use one of {', '.join(ANSWERINGS)}")
    return ANSWERINGS[kind]
