"""The methods of tuning, one module each: what parameters, cards, comparisons and the registry know of them.

A module here declares `SPEC`; the module of the same name in `biasline.training.methods` trains. Both are found by
their name: adding a method is adding these two files.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from biasline.errors import BiaslineError
from biasline.params.method_spec import MethodSpec

# What a task is tuned by unless it names another method, and what the other methods are compared with.
DEFAULT_METHOD = "bitfit"


def _declared() -> dict[str, MethodSpec[Any]]:
    """The spec of each module beside this one, in their order."""
    found: list[MethodSpec[Any]] = []
    for module in iter_modules(__path__):
        spec = import_module(f"{__name__}.{module.name}").SPEC
        if spec.name != module.name:
            raise ValueError(f"{__name__}.{module.name} declares a method {spec.name!r}: name both alike")
        found.append(spec)
    return {spec.name: spec for spec in sorted(found, key=lambda spec: spec.order)}


METHOD_SPECS = _declared()


def method_spec(name: str) -> MethodSpec[Any]:
    """The method of that name.

    Raises:
        BiaslineError: where there is none.
    """
    if name not in METHOD_SPECS:
        raise BiaslineError(f"train.method {name!r}: there is no such method", f"use one of {', '.join(METHOD_SPECS)}")
    return METHOD_SPECS[name]
