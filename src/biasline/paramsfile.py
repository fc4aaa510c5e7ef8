"""Adding a task to params.yaml as text that a person would write: every default, with its meaning behind it."""

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic_core import PydanticUndefined
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from biasline.errors import BiaslineError, shown
from biasline.layout import write_text
from biasline.params import DEFAULT_KIND, TASK_NAME, Group, Task, check_inputs, parse_params, read_params


def add_task(
    path: Path,
    name: str,
    base: str,
    data: str,
    kind: str = DEFAULT_KIND,
    more: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> str:
    """Add a task with every default spelled out; comments and order of the file stay as they are.

    Args:
        path: of params.yaml.
        name: the task's.
        base: the base's pin.
        data: the raw data file.
        kind: of the task.
        more: group of parameters → name → what takes the place of its default.

    Returns:
        one line that tells what happened; adding a task that stands there so already changes nothing.

    Raises:
        BiaslineError: for a bad or taken name, a missing pin or data file, or a broken params.yaml.
    """
    if not TASK_NAME.fullmatch(name):
        raise BiaslineError(f"task name {name!r}: must match {TASK_NAME.pattern}", "use small letters, digits, _ and -")
    params = read_params(path)
    if name in params.tasks:
        there = params.tasks[name]
        if (there.base, there.data, there.kind) == (base, data, kind):
            return f"{shown(path)}: tasks.{name} is there already"
        raise BiaslineError(
            f"{shown(path)}: tasks.{name} is there already: a {there.kind} on {there.base} with {there.data}",
            "take another name, or edit it",
        )
    given = {"base": base, "data": data, "kind": kind, **more}
    check_inputs(name, Task.model_validate(given), path.parent)

    yaml = YAML()
    yaml.width = 4096
    document = yaml.load(path)
    document["tasks"][name] = _spelled_out(Task, given)
    text = io.StringIO()
    yaml.dump(document, text)
    write_text(path, text.getvalue())
    return f"{shown(path)}: tasks.{name} added; run it with `dvc repro register@{name}`"


def set_train(path: Path, name: str, values: Mapping[str, Any]) -> str:
    """Set parameters of a task's training; comments and order of the file stay as they are.

    Args:
        path: of params.yaml.
        name: the task's.
        values: parameter of `train` → value.

    Returns:
        one line that tells what happened.

    Raises:
        BiaslineError: where another task would be changed too.
    """

    def change(entry: CommentedMap) -> None:
        train = entry.setdefault("train", CommentedMap())
        for key, value in values.items():
            train[key] = value

    _change_task(path, name, "train", change)
    return f"{shown(path)}: tasks.{name}.train: {', '.join(values)} written; train with `dvc repro register@{name}`"


def set_data(path: Path, name: str, data: str) -> None:
    """Name other data of a task; comments and order of the file stay as they are.

    Args:
        path: of params.yaml.
        name: the task's.
        data: a file or folder.

    Raises:
        BiaslineError: where another task would be changed too.
    """

    def change(entry: CommentedMap) -> None:
        entry["data"] = data

    _change_task(path, name, "data", change)


def _change_task(path: Path, name: str, key: str, change: Callable[[CommentedMap], None]) -> None:
    yaml = YAML()
    yaml.width = 4096
    document = yaml.load(path)
    before = read_params(path).tasks
    change(document["tasks"][name])
    text = io.StringIO()
    yaml.dump(document, text)
    after = parse_params(text.getvalue(), shown(path)).tasks
    if shared := [other for other in before if other != name and after[other] != before[other]]:
        raise BiaslineError(
            f"{shown(path)}: tasks.{name} shares its `{key}` with tasks.{shared[0]} (an anchor of YAML), which would "
            "be changed too",
            "write the lines by hand",
        )
    write_text(path, text.getvalue())


def _spelled_out(model: type[Group], given: Mapping[str, Any]) -> CommentedMap:
    found = CommentedMap()
    for name, field in model.model_fields.items():
        default = None if field.default is PydanticUndefined else field.default
        if isinstance(default, Group):
            found[name] = _spelled_out(type(default), given.get(name, {}))
            continue
        found[name] = _plain(given.get(name, default))
        if field.description:
            found.yaml_add_eol_comment(field.description, name)
    return found


def _plain(value: Any) -> Any:
    """Tuples and mappings in one line."""
    if isinstance(value, tuple):
        plain: CommentedSeq | CommentedMap = CommentedSeq(value)
    elif isinstance(value, dict):
        plain = CommentedMap(value)
    else:
        return value
    plain.fa.set_flow_style()
    return plain
