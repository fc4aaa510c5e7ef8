"""The house rules that a machine can hold: imports run one way, and nothing that is made is tracked."""

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from biasline.kinds import protocols
from biasline.source_code import import_closure

# The demo's corpus writes are alone: they need no other room.
ALONE = {"demo"}
# A kind of task is handed to the rooms that ask it, and its functions may use them. When its modules are loaded they
# import only rooms before them, as everyone does.
HANDED = "kinds"
# Where the entry point of versions packaged before the room `serving` looks for their class; nothing else does.
DOORS = {"evaluation/serving.py": {"serving"}}


# What every stage may run without its being among the stage's `deps` in dvc.yaml; the rest of what it runs must be.
NO_DEP = {
    "bases.gguf": "unpacks files, and what comes of that is held against the hashes of the pin",
    "bases.gguf_checks": "refuses, and writes nothing",
    "declared": "finds what modules declare, which are among the deps themselves",
    "errors": "texts of errors",
    "jsonfile": "how JSON is laid out, not what it says",
    "layout": "where outs lie, which dvc.yaml says itself, and how a file is put in its place",
    "params": "what it reads comes as the stage's params",
    "progress": "what is shown while a step takes long",
}
NO_DEP_OF = {
    "resolve": {"data": "a check of column names: refuses, and writes nothing"},
    "augment": {"bitfit": "counts biases when a translation model is loaded"},
    "train": {"tracking": "reports; its outs are the record's, in the store or copied back"},
    "evaluate": {
        "tracking": "as for train",
        "training.runtime": "deletes checkpoints",
        "source_code": "names what was kept of the untuned base",
        "training.fingerprint": "so",
    },
    "register": {"registry": "writes to the store; the stage's out is a name and hashes of its deps", "tracking": "so"},
}

# What each stage asks of a kind of task, whose modules serve all of them.
PARTS = (
    protocols.InData,
    protocols.InTokens,
    protocols.InTraining,
    protocols.InLoading,
    protocols.InEvaluation,
    protocols.InTracking,
    protocols.InServing,
    protocols.InExport,
)
ASKED = {
    "validate": (protocols.InData,),
    "augment": (protocols.InData,),
    "tokenize": (protocols.InTokens,),
    "train": (protocols.InTraining, protocols.InLoading),
    "evaluate": (protocols.InLoading, protocols.InEvaluation),
}


def order(root: Path) -> list[str]:
    """The rooms as docs/house.md lists them: each may import rooms before it and itself, never one behind it."""
    page = (root / "docs" / "house.md").read_text(encoding="utf-8")
    listed = page.partition("src/biasline/\n")[2].partition("```")[0]
    lines = re.findall(r"^  (\S.*)$", listed, re.MULTILINE)
    return [name.rstrip("/") for line in lines for name in re.split(r" {2,}", line)[0].split()]


def nodes_of(path: Path, *, at_once: bool = False) -> Iterator[ast.AST]:
    """All nodes of a module, or those that run when it is imported."""
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        yield node
        later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        later |= isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        waiting += [] if at_once and later else ast.iter_child_nodes(node)


def imported_rooms(path: Path, *, at_once: bool = False) -> set[str]:
    found = set()
    for node in nodes_of(path, at_once=at_once):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("biasline."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "biasline":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("biasline.")}
    return found


def imported_modules(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def room_of(path: Path, package: Path) -> str:
    return path.relative_to(package).parts[0].removesuffix(".py")


def test_rooms_import_only_rooms_before_them(root):
    package, rooms = root / "src" / "biasline", order(root)
    checked = 0
    for path in package.rglob("*.py"):
        room = room_of(path, package)
        if room == "__init__":
            continue
        allowed = {room} if room in ALONE else set(rooms[: rooms.index(room) + 1])
        allowed |= DOORS.get(path.relative_to(package).as_posix(), set())
        if room == HANDED:
            assert imported_rooms(path, at_once=True) <= allowed, f"{path} imports {imported_rooms(path, at_once=True)}"
            allowed = set(rooms[: rooms.index("serving") + 1])
        assert imported_rooms(path) <= allowed, f"{path} imports {imported_rooms(path) - allowed}"
        checked += 1
    assert checked > 20
    found = {room_of(path, package) for path in package.glob("*") if path.name[0] not in "_."}
    assert found == set(rooms), "docs/house.md lists every room, and no other"


def test_doors_for_older_packages_are_used_by_nothing_here(root):
    package = root / "src" / "biasline"
    modules = {f"biasline.{Path(door).with_suffix('').as_posix().replace('/', '.')}" for door in DOORS}
    for path in [*package.rglob("*.py"), *(root / "stages").glob("*.py")]:
        assert not modules & imported_modules(path), path


def test_bitfit_stands_alone(root):
    package = root / "src" / "biasline" / "bitfit"
    for path in package.glob("*.py"):
        assert imported_rooms(path) <= {"bitfit", "errors"}, path


@pytest.mark.parametrize("library", ["mlflow", "dvc"])
def test_only_tracking_serving_and_registry_know_mlflow(root, library):
    package = root / "src" / "biasline"
    rooms = {
        room_of(path, package)
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == library for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == library)
    }
    assert rooms <= {"tracking", "serving", "registry", "erasing", "cli"}


def test_tests_mirror_the_source(root):
    package, tests = root / "src" / "biasline", root / "tests"
    rooms = {path.name for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert {room for room in rooms if not list((tests / room).glob("test_*.py"))} == set()


@pytest.mark.parametrize("stage", ["resolve", "validate", "augment", "tokenize", "train", "evaluate", "register"])
def test_whatever_code_a_stage_runs_is_among_its_deps(root, stage):
    """Else DVC keeps outs that the code would not make any more."""
    does = YAML(typ="safe").load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]["do"]
    deps = [root / path for path in does["deps"] if not path.startswith("data/") and "{" not in path]
    program, exempt = root / "stages" / f"{stage}.py", NO_DEP | NO_DEP_OF.get(stage, {})
    uncalled = protocols.asked_by(*(part for part in PARTS if part not in ASKED.get(stage, ())))
    assert program in deps or stage == "resolve", "its parameters decide its out"
    missing = {
        name: path.relative_to(root).as_posix()
        for name, path in import_closure(program, without=exempt, uncalled=uncalled).items()
        if not any(path.is_relative_to(dep) for dep in deps) and not is_empty(path)
    }
    assert not missing, f"dvc.yaml: {stage} runs these, and they are not among its deps"
    run = import_closure(program, uncalled=uncalled)
    assert [name for name in NO_DEP_OF.get(stage, {}) if not any(f"{one}.".startswith(f"{name}.") for one in run)] == []


@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_what_a_method_declares_is_a_dep_where_it_is_code(root, stage):
    """Its artifact's name and its rates are no parameters, unlike the rest of `params`."""
    does = YAML(typ="safe").load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]["do"]
    assert {"src/biasline/params/methods", "src/biasline/params/method_spec.py"} <= set(does["deps"])


def is_empty(path: Path) -> bool:
    """Whether a module holds nothing but what it says of itself."""
    return all(isinstance(node, ast.Expr) for node in ast.parse(path.read_text(encoding="utf-8")).body)


def tracked(root: Path) -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name]


def test_no_store_environment_cache_or_checkpoint_is_tracked(root):
    parts = {".venv", "venv", "mlruns", "mlartifacts", ".biasline", "__pycache__", "checkpoints", "tokens", "clean"}
    parts |= {".pytest_cache", ".hypothesis", ".ruff_cache", ".mypy_cache"}
    endings = (".db", ".arrow", ".parquet", ".pyc", ".pt", ".bin", ".pkl", ".egg-info")
    for name in tracked(root):
        if name.startswith(("src/", "stages/", "tests/")):
            assert not name.endswith(endings), name
            continue
        assert not parts & set(Path(name).parts), name
        assert not name.endswith(endings), name
        assert not name.startswith((".dvc/cache", ".dvc/tmp")), name


def test_tracked_weights_are_the_demo_base_alone(root):
    weights = [name for name in tracked(root) if name.endswith(".safetensors")]
    assert set(weights) <= {"data/bases/tiny-bloom/model.safetensors"}


def test_the_lock_holds_names_and_versions_only(root):
    for line in (root / "requirements.lock").read_text(encoding="utf-8").splitlines():
        name, _, version = line.partition("==")
        assert name and version and "/" not in line and "@" not in line, line
