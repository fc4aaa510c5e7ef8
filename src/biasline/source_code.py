"""Which of this package's modules a program runs, and what their code is, apart from how it is written down."""

import ast
import hashlib
import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

PACKAGE = Path(__file__).parent
# The room whose modules serve many programs, a part of each.
_KINDS = "kinds"
# What a room's `__init__` calls to import all of its modules by their names, and the module that does so for others.
_BY_NAME = ("import_module", "declared")
_DOES_SO = "declared"


def import_closure(
    entry: Path, package: Path = PACKAGE, without: Iterable[str] = (), uncalled: Collection[str] = ()
) -> dict[str, Path]:
    """The modules of a package that a program may import, by reading it and them: also those imported in a function.

    What only a type checker imports is left out. A room that imports its modules by name (`declared` or `import_module`
    in its `__init__`) has all of them.

    Args:
        entry: the program's file; part of the result where it lies in the package.
        package: the package's folder, whose name is the one that is imported.
        without: dotted names below the package, such as `params` or `training.runtime`: neither these modules and what
            lies below them nor what only they import is looked at.
        uncalled: names of functions in `kinds` that the program does not call: what only they import is left out.

    Returns:
        dotted names below the package (`training.loop`; of a room's `__init__`, `training`) → files, sorted.
    """
    left_out = tuple(without)
    found: dict[str, Path] = {}
    waiting = [entry]
    while waiting:
        path = waiting.pop()
        if path.is_relative_to(package):
            name = module_name(path, package)
            if name in found or any(name == one or name.startswith(f"{one}.") for one in left_out):
                continue
            found[name] = path
        tree = _parsed(path)
        nodes = list(_run_nodes(tree))
        if path != package / f"{_DOES_SO}.py" and _imports_by_name(nodes):
            assert path.name == "__init__.py", f"{path}: what a module imports by name is not followed"
            waiting += sorted(path.parent.glob("*.py"))
        if path.is_relative_to(package / _KINDS):
            nodes = list(_run_nodes(_called(module_name(path, package), tree, uncalled)))
        for wanted in _imported(nodes, path, package):
            waiting += _files_of(wanted, package)
    return dict(sorted(found.items()))


def code_sha256(modules: Mapping[str, Path], uncalled: Collection[str] = ()) -> str:
    """Hash of what modules do: their syntax trees, without docstrings, comments, layout and the texts of errors.

    Args:
        modules: names → files, as `import_closure` gives them.
        uncalled: as it was asked for them.
    """
    trees = [(name, _dumped(_called(name, _parsed(path), uncalled))) for name, path in sorted(modules.items())]
    return hashlib.sha256(json.dumps(trees, ensure_ascii=False).encode()).hexdigest()


def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes(), str(path))  # bytes: a file may declare another encoding


def module_name(path: Path, package: Path) -> str:
    """The dotted name of a module below its package; of the package's own `__init__` an empty one."""
    parts = path.relative_to(package).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _called(name: str, tree: ast.Module, uncalled: Collection[str]) -> ast.Module:
    """A module's tree; of one in `kinds` without the functions that are not called, whoever's methods they are.

    Rooms ask a kind for what they need, and the whole of it is handed to each of them.
    """
    if name.startswith(f"{_KINDS}.") and uncalled:
        holders: list[ast.Module | ast.ClassDef] = [tree]
        for node in (*holders, *(node for node in tree.body if isinstance(node, ast.ClassDef))):
            node.body = [part for part in node.body if getattr(part, "name", "") not in uncalled]
    return tree


def _imported(nodes: Iterable[ast.AST], path: Path, package: Path) -> Iterator[str]:
    """Dotted names below the package that a file imports from; of `from a.b import c` both `a.b` and `a.b.c`."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports are not followed"
            names = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        yield from (name.removeprefix(package.name).lstrip(".") for name in names if name.split(".")[0] == package.name)


def _imports_by_name(nodes: Iterable[ast.AST]) -> bool:
    for node in nodes:
        function = node.func if isinstance(node, ast.Call) else None
        if isinstance(function, ast.Name) and function.id in _BY_NAME:
            return True
        if isinstance(function, ast.Attribute) and function.attr == _BY_NAME[0]:
            return True
    return False


def _run_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes below one but those below `if TYPE_CHECKING:`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            below: Iterable[ast.AST] = node.orelse
        else:
            below = ast.iter_child_nodes(node)
        for other in below:
            yield other
            waiting.append(other)


def _files_of(name: str, package: Path) -> Iterator[Path]:
    """The file of a module, and the `__init__` of each room that it lies in; nothing where the name is no module."""
    parts = name.split(".") if name else []
    for depth in range(len(parts) + 1):
        place = package.joinpath(*parts[:depth])
        for file in (place / "__init__.py", place.with_suffix(".py") if depth else place):
            if file.is_file():
                yield file


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def _dumped(node: object) -> object:
    """A syntax tree as nested lists.

    Not by `ast.dump`, whose form changes between versions of Python: fields that are empty are left out, and with them
    those that a later version brings.
    """
    if isinstance(node, list):
        return [_dumped(item) for item in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.Raise):  # no value is computed from the texts of an error; what it calls stays
        for part in ast.walk(node):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                part.value = ""
            elif isinstance(part, ast.JoinedStr):
                part.values = [value for value in part.values if not isinstance(value, ast.Constant)]
    fields = dict(ast.iter_fields(node))
    if isinstance(node, _DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
        fields["body"] = fields["body"][1:]
    kept = [[name, _dumped(value)] for name, value in fields.items() if value not in (None, [])]
    return [type(node).__name__, *kept]
