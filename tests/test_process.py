import subprocess
import sys

import pytest

from biasline.process import exit_on_error

pytestmark = pytest.mark.e2e  # processes, or whole runs of stages

# What is registered first is run last.
CHILD = """
import atexit, gc, sys
passes = []
gc.callbacks.append(lambda phase, info: passes.append(phase == "start"))
atexit.register(lambda: print(sum(passes), gc.get_freeze_count() > 100_000))
if "seldom" in sys.argv:
    from biasline.process import collect_seldom
    collect_seldom()
import transformers.modeling_utils
"""


def _passes(*arguments: str) -> tuple[int, bool]:
    done = subprocess.run([sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, check=True)
    passes, frozen = done.stdout.split()
    return int(passes), frozen == "True"


@pytest.mark.slow
def test_imports_are_not_searched_for_garbage_again_and_again() -> None:
    plain, plain_frozen = _passes()
    seldom, frozen = _passes("seldom")
    assert plain > 200
    assert seldom < plain / 20
    assert (plain_frozen, frozen) == (False, True)


def _from_server_that_is_gone():
    from mlflow.tracking import MlflowClient

    MlflowClient("http://127.0.0.1:9").get_run("a")


def _from_run_that_is_not_there(folder):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    client.create_experiment("t", artifact_location=(folder / "files").as_uri())
    client.get_run("a" * 32)


def _from_file_that_is_not_there(folder):
    import mlflow

    mlflow.artifacts.download_artifacts((folder / "gone").as_uri())


def _from_refusal(folder):
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    client.create_registered_model("m")
    client.set_registered_model_alias("m", "no spaces please", "1")


@pytest.mark.parametrize(
    ("fails", "refused", "way"),
    [
        (lambda _: _from_server_that_is_gone(), False, "`biasline sync` once it answers"),
        (_from_run_that_is_not_there, False, "`biasline sync` makes again what it has lost"),
        (_from_file_that_is_not_there, False, "`biasline sync` makes it again from its record"),
        (_from_refusal, True, "mend what it names; its own log may say more"),
    ],
)
def test_a_stores_word_says_whether_it_answered(tmp_path, monkeypatch, capsys, fails, refused, way):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(SystemExit, match="1"):
        exit_on_error(lambda: fails(tmp_path))
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith("error: the tracking store: ") and told.endswith(f" → {way}")
    assert ("it refused: " in told) is refused


def test_what_the_system_does_not_permit_is_one_line(tmp_path, capsys):
    def refuse():
        raise PermissionError(13, "Permission denied", str(tmp_path / "x.lock"))

    with pytest.raises(SystemExit, match="1"):
        exit_on_error(refuse)
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'x.lock'}: Permission denied → ")


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_freed_memory_goes_back_to_the_system():
    """Small blocks that a block in use keeps in the middle of the heap are not given back by themselves."""
    script = (
        "import re, sys; from pathlib import Path; from biasline.process import release_memory\n"
        "def own(): return int(re.search(r'RssAnon:\\s+(\\d+)', Path('/proc/self/status').read_text()).group(1))\n"
        "blocks = [bytes(4000) for _ in range(20_000)]; last = blocks[-1]; before = own(); del blocks[:]\n"
        "release_memory(); print(before - own())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 60_000  # kB, of 80 MB
