"""Whoever may not write in the project asks all the same, and is refused what writes in one line."""

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from biasline.params import Task
from biasline.registry.promote import promote
from biasline.registry.sync import register
from biasline.tracking.record import record_of_workspace
from biasline.tracking.store import connect
from tests.conftest import LENIENT_GATES, ROOT
from tests.tracking.test_relocate import enter_anew

NOBODY = 65534
BIASLINE = "from biasline.cli import main; main()"
# Linux's words: what lets root read and write everyone's files.
DROP, RIGHTS = 24, (1, 2, 3)


def give_up_roots_rights() -> None:
    """In a child before it starts: root without these is the owner of its own files, and a stranger to others'."""
    for right in RIGHTS:
        if ctypes.CDLL(None).prctl(DROP, right, 0, 0, 0):
            os._exit(99)


class Reader:
    """A user who may read a folder and write nothing in it; the tests' own user, with fewer rights."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for path in [folder, *folder.rglob("*")]:
            path.chmod(0o555 if path.is_dir() else 0o444)
            if os.getuid() == 0:
                os.chown(path, NOBODY, NOBODY)

    def run(self, *arguments: str, module: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *(["-m", module] if module else ["-c", BIASLINE]), *arguments]
        drop = ("MLFLOW_", "DVC_", "PYTEST_")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
        environment |= {"PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1"}
        environment |= {"HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"} | variables
        before = give_up_roots_rights if os.getuid() == 0 else None
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, preexec_fn=before
        )


# macOS and others tell root apart in ways of their own.
pytestmark = pytest.mark.skipif(
    os.getuid() == 0 and sys.platform != "linux", reason="root's rights can be given up on Linux alone"
)


@pytest.fixture
def folder(tmp_path):
    """The project's, which pytest can delete afterwards."""
    yield tmp_path / "ml"
    for path in (tmp_path / "ml").rglob("*"):
        if path.is_dir() and os.getuid() != 0:
            path.chmod(0o755)


def laid(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_who_may_only_read_can_ask(trained, workspace, folder, monkeypatch):
    shutil.copytree(workspace, folder, ignore=shutil.ignore_patterns("ml"))
    enter_anew(folder, monkeypatch)
    client = connect()
    register(client, record_of_workspace("small"))
    promote(client, "small", Task(base="b", data="d", gates=LENIENT_GATES), "ann", "")
    reader = Reader(folder)
    before = laid(folder)
    for command in (
        ["predict", "small", "Say yes."],
        ["verify", "small"],
        ["why", "small"],
        ["compare", "small"],
        ["promote", "small", "--dry-run"],
        ["history", "small"],
    ):
        done = reader.run(*command)
        assert done.returncode == 0 and done.stdout.strip(), (command, done.stderr)
        assert "Traceback" not in done.stderr, (command, done.stderr)
    for command in (["sync", "small"], ["promote", "small"]):
        done = reader.run(*command)
        assert done.returncode == 1 and done.stderr.startswith("error: "), (command, done.stderr)
        assert "Permission denied" in done.stderr and len(done.stderr.splitlines()) == 1
    training = reader.run("small", module="stages.train")
    assert training.returncode == 1 and "Permission denied" in training.stderr.splitlines()[-1], training.stderr
    assert "Traceback" not in training.stderr
    assert laid(folder) == before


@pytest.mark.slow
def test_a_clone_without_a_store_says_so_at_once(workspace, folder):
    shutil.copytree(workspace, folder, ignore=shutil.ignore_patterns("ml"))
    reader = Reader(folder)
    for command in (["predict", "small", "hi"], ["sync"], ["verify"]):
        done = reader.run(*command)
        assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
        assert f"there is none, and {folder} may not be written to" in done.stderr
    # A server wants no lock: it is asked, and here does not answer.
    done = reader.run("verify", MLFLOW_TRACKING_URI="http://127.0.0.1:9", MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert done.returncode == 1 and "http://127.0.0.1:9 does not answer" in done.stderr, done.stderr
