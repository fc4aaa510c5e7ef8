"""The house rules that a machine can hold: imports run one way, and nothing that is made is tracked."""

import ast
import subprocess
from pathlib import Path

import pytest

# A room may import rooms before it and itself, never one behind it.
ORDER = [
    "errors", "process", "custom", "glue", "layout", "jsonfile", "progress", "params", "paramsfile", "bitfit", "bases",
    "data", "tokens", "training", "evaluation", "tracking", "registry", "cli", "demo",
]  # fmt: skip
# The demo's corpus writes are alone: they need no other room.
ALONE = {"demo"}


def imported_rooms(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("biasline."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "biasline":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("biasline.")}
    return found


def room_of(path: Path, package: Path) -> str:
    return path.relative_to(package).parts[0].removesuffix(".py")


def test_rooms_import_only_rooms_before_them(root):
    package = root / "src" / "biasline"
    checked = 0
    for path in package.rglob("*.py"):
        room = room_of(path, package)
        if room == "__init__":
            continue
        allowed = {room} if room in ALONE else set(ORDER[: ORDER.index(room) + 1])
        assert imported_rooms(path) <= allowed, f"{path} imports {imported_rooms(path) - allowed}"
        checked += 1
    assert checked > 20


def test_bitfit_stands_alone(root):
    package = root / "src" / "biasline" / "bitfit"
    for path in package.glob("*.py"):
        assert imported_rooms(path) <= {"bitfit", "errors"}, path


@pytest.mark.parametrize("library", ["mlflow", "dvc"])
def test_only_tracking_and_registry_know_mlflow(root, library):
    package = root / "src" / "biasline"
    rooms = {
        room_of(path, package)
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == library for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == library)
    }
    assert rooms <= {"tracking", "registry", "cli"}


def test_tests_mirror_the_source(root):
    package, tests = root / "src" / "biasline", root / "tests"
    rooms = {path.name for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert {room for room in rooms if not list((tests / room).glob("test_*.py"))} == set()


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
