"""Dotted paths into nested records: `prompt.text`, `output.0`, `replies.*.text` (`*`: of each item of a list)."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

# Nothing lies there; None is a value that files have.
_MISSING = object()
_EACH = "*"


def add_paths(records: Iterable[dict[str, Any]], paths: Sequence[str]) -> set[str]:
    """Put what lies at each path into the records, as a column that is called as the path.

    A column that is called so already is left alone. Text that holds JSON, as a cell of a CSV file may, is entered too.

    Returns:
        the paths that some record has.
    """
    found = set()
    for record in records:
        for path in paths:
            if path in record:
                continue
            value = _at(record, path.split("."))
            if value is not _MISSING:
                record[path] = value
                found.add(path)
    return found


def text_paths(value: Any, numbers: bool = False, depth: int = 4) -> Iterator[tuple[str, bool]]:
    """Paths to the texts inside a value, and whether a list of texts lies there; of a list of objects the first.

    Args:
        value: what a record has.
        numbers: count numbers and truth values as texts.
        depth: how many steps deep.
    """
    value = _entered(value)
    if isinstance(value, Mapping):
        inner: Iterable[tuple[str, Any]] = value.items()
    elif isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        yield "", True
        return
    elif isinstance(value, list) and value:
        inner = [("0", value[0])]
    else:
        if isinstance(value, str) or (numbers and isinstance(value, int | float)):
            yield "", False
        return
    if depth:
        for key, item in inner:
            for path, listed in text_paths(item, numbers, depth - 1):
                yield (f"{key}.{path}" if path else key), listed


def _at(value: Any, steps: list[str]) -> Any:
    if not steps:
        return value
    value = _entered(value)
    if isinstance(value, Mapping):
        # A key may hold dots itself: the longest that fits.
        for end in range(len(steps), 0, -1):
            if (key := ".".join(steps[:end])) in value:
                return _at(value[key], steps[end:])
        return _MISSING
    if isinstance(value, list):
        if steps[0] == _EACH:
            return [item for item in (_at(item, steps[1:]) for item in value) if item not in (_MISSING, None)]
        if steps[0].lstrip("-").isdecimal():
            place = int(steps[0])
            return _at(value[place], steps[1:]) if -len(value) <= place < len(value) else None
    return None if value is None else _MISSING


def _entered(value: Any) -> Any:
    """What a text that is JSON stands for; any other value as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value
