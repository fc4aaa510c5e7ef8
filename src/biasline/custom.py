"""The project's own Python files in custom/, which params.yaml names: their public functions."""

from pathlib import Path
from types import FunctionType
from typing import Any

from biasline.errors import BiaslineError, first_line, shown


def own_functions(path: Path, key: str) -> dict[str, FunctionType]:
    """Name → function of a Python file; what begins with _ or is imported there is left out.

    Args:
        path: the file.
        key: the parameter that names the file.

    Raises:
        BiaslineError: where the file is missing, does not run, or holds no function.
    """
    if not path.is_file():
        raise BiaslineError(f"{shown(path)}: no such file ({key})", f"put it there, or mend {key}")
    space: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    try:
        exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), space)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise BiaslineError(f"{shown(path)}: does not run: {type(error).__name__}: {first_line(error)}") from None
    found = {
        name: function
        for name, function in space.items()
        if isinstance(function, FunctionType) and function.__module__ == path.stem and not name.startswith("_")
    }
    if not found:
        raise BiaslineError(f"{shown(path)}: no function in it", f"write one; custom/README.md shows how ({key})")
    return found
