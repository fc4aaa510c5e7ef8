"""The methods of tuning, one module each: what parameters, cards, comparisons and the registry know of them.

A module here declares `SPEC`; the module of the same name in `biasline.training.methods` trains. Both are found by
their name: adding a method is adding these two files.
"""

from typing import Any

from biasline.declared import declared, find
from biasline.params.method_spec import MethodSpec

# What a task is tuned by unless it names another method, and what the other methods are compared with.
DEFAULT_METHOD = "bitfit"


METHOD_SPECS: dict[str, MethodSpec[Any]] = declared(__name__, "SPEC")


def method_spec(name: str) -> MethodSpec[Any]:
    """The method of that name.

    Raises:
        BiaslineError: where there is none.
    """
    found: MethodSpec[Any] = find(METHOD_SPECS, name, "method", "train.method")
    return found
