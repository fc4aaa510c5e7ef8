"""What the modules of a package declare, one each: adding a module is all that adding a kind or a method takes."""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from biasline.errors import BiaslineError


def declared(package: str, attribute: str) -> dict[str, Any]:
    """The declarations of a package's modules by their names, in their order.

    Args:
        package: its dotted name.
        attribute: what each module calls its declaration, which has a `name`, the module's own, and an `order`.

    Raises:
        ValueError: where a declaration is called otherwise than its module.
    """
    found = []
    for module in iter_modules(import_module(package).__path__):
        one = getattr(import_module(f"{package}.{module.name}"), attribute)
        if one.name != module.name:
            raise ValueError(f"{package}.{module.name} declares {one.name!r}: name both alike")
        found.append(one)
    return {one.name: one for one in sorted(found, key=lambda one: one.order)}


def find(declarations: dict[str, Any], name: str, what: str, told: str) -> Any:
    """A declaration by its name.

    Args:
        declarations: see `declared`.
        name: what parameters call it.
        what: what it is, for messages.
        told: the parameter, for messages.

    Raises:
        BiaslineError: for a name that is not there, with those that are.
    """
    if name not in declarations:
        raise BiaslineError(f"{told} {name!r}: there is no such {what}", f"use one of {', '.join(declarations)}")
    return declarations[name]
