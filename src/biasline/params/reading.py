"""Reading params.yaml and resolved tasks; an error names the key, its value, what was expected and the nearest name."""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from biasline.errors import BiaslineError, shown
from biasline.jsonfile import load_json
from biasline.params.group import Group, GroupT
from biasline.params.task import CUSTOM, JINJA, TASK_NAME, Params, Task


def read_params(path: Path) -> Params:
    """Read and check params.yaml as a whole.

    Raises:
        BiaslineError: listing every wrong key with its value and what was expected.
    """
    if not path.is_file():
        raise BiaslineError(f"{shown(path)}: not there", "run from the project's folder")
    return parse_params(path.read_bytes(), shown(path))


def parse_params(text: str | bytes, where: str) -> Params:
    """Check the text of a params.yaml.

    Args:
        text: the text, or its bytes as UTF-8.
        where: what errors call it.
    """
    raw = _parse_yaml(text, where)
    names = raw.get("tasks")
    for name in names if isinstance(names, Mapping) else ():
        if name == "bases":
            raise BiaslineError(f"{where}: tasks.bases: data/bases/ holds the pins", "take another name")
        if not TASK_NAME.fullmatch(str(name)):
            raise BiaslineError(
                f"{where}: tasks.{name}: a task's name must match {TASK_NAME.pattern}",
                "use small letters, digits, _ and -",
            )
    return _checked(Params, raw, where)


def read_task(path: Path) -> Task:
    """Read a resolved task (task.json)."""
    raw = load_json(path, "run `dvc repro` first: its resolve stage writes it")
    return _checked(Task, raw, shown(path))


def changed(group: GroupT, values: Mapping[str, Any], where: str) -> GroupT:
    """A group with other values, checked as those of params.yaml are.

    Args:
        group: the group; itself unchanged.
        values: name → the other value.
        where: what errors call their place.

    Raises:
        BiaslineError: listing every key that is unknown or whose value is out of its limits.
    """
    return _checked(type(group), {**group.model_dump(), **values}, where)


def get_task(params: Params, name: str, where: str) -> Task:
    """The task called `name`; an unknown one is refused with the nearest known name."""
    if name not in params.tasks:
        raise BiaslineError(
            f"{where}: no task {name!r}; there are: {', '.join(params.tasks) or 'none'}",
            _nearest(name, list(params.tasks)) or "add it with `biasline task add`",
        )
    return params.tasks[name]


def check_inputs(name: str, task: Task, root: Path) -> None:
    """Whether the files that a task names are there, before any work starts."""
    template = task.tokens.template if task.tokens.template.endswith(JINJA) else ""
    owned = [("quality.checks", task.quality.checks), ("evaluate.metrics", task.evaluate.metrics)]
    owned += [("gates.own", task.gates.own)]
    owned += [("tokens.template", template)]
    owned += [("augment.synonyms", task.augment.synonyms)]
    owned += [("augment.translate", pin) for pin in task.augment.translate]
    for key, own in owned:
        if own and (Path(own).parts[0] != CUSTOM.name or not (root / own).is_file()):
            raise BiaslineError(
                f"tasks.{name}.{key}: {own}: no such file in {CUSTOM}/",
                "own files lie there, so that a change in them is seen",
            )
    if not (root / task.base).is_file():
        raise BiaslineError(
            f"tasks.{name}.base: {task.base}: no such pin", f"write it: `biasline pin SOURCE --out {task.base}`"
        )
    if not (root / task.data).exists():
        raise BiaslineError(f"tasks.{name}.data: {task.data}: no such file", "put it there, or mend the path")


def resolved(task: Task, root: Path) -> Task:
    """The task with the text of a template file in place of its name: a packaged model must not need the file."""
    if not task.tokens.template.endswith(JINJA):
        return task
    try:
        text = (root / task.tokens.template).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BiaslineError(
            f"{task.tokens.template}: cannot be read: {error}", "a UTF-8 text file was expected"
        ) from None
    return task.model_copy(update={"tokens": task.tokens.model_copy(update={"template": text})})


def _parse_yaml(text: str | bytes, where: str) -> Mapping[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        raw = YAML(typ="safe").load(text)
    except YAMLError as error:
        raise BiaslineError(f"{where}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(raw, Mapping):
        raise BiaslineError(f"{where}: expected a mapping with the key 'tasks', got {type(raw).__name__}")
    return raw


def _checked(model: type[GroupT], raw: Any, where: str) -> GroupT:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        lines = [_told(model, item) for item in error.errors()]
        raise BiaslineError("; ".join(f"{where}: {line}" for line in lines)) from None


def _told(model: type[Group], item: Mapping[str, Any]) -> str:
    key = ".".join(str(part) for part in item["loc"])
    try:
        value = json.dumps(item["input"], ensure_ascii=False, default=str)
    except ValueError:  # an anchor that holds itself
        value = "…"
    if item["type"] == "extra_forbidden":
        known = list(_model_at(model, item["loc"][:-1]).model_fields)
        nearest = _nearest(str(item["loc"][-1]), known)
        return f"{key}: unknown key (value {value}); {nearest or 'known keys: ' + ', '.join(known)}"
    if item["type"] == "missing":
        return f"{key}: missing; expected {_expected(model, item['loc'])}"
    told = item["msg"].removeprefix("Value error, ")
    # What is wrong with a whole group is told by itself; its values would bury it.
    if not key:
        return told
    return f"{key}: {told}" if isinstance(item["input"], Mapping) else f"{key}: {value} is refused: {told}"


def _expected(model: type[Group], loc: tuple[Any, ...]) -> str:
    field = _model_at(model, loc[:-1]).model_fields.get(str(loc[-1]))
    return (field.description or str(field.annotation)) if field else "a value"


def _model_at(model: type[Group], loc: tuple[Any, ...]) -> type[Group]:
    """The group that a location inside `model` lies in; mapping keys (task names) are stepped over."""
    current: Any = model
    for part in loc:
        if isinstance(current, type) and issubclass(current, Group):
            current = current.model_fields[str(part)].annotation
        else:  # dict[str, Task]: any key leads to its value type
            current = get_args(current)[1]
    return current


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else ""
