"""`dvc repro` after its training was killed, asked to end, or shared by two processes."""

import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

from biasline.bitfit import BiasDelta
from tests.pipeline.test_repro import quick, read, runs

DELTA = "data/instruct/model/delta.safetensors"


def reproduced(project, until):
    """`dvc repro train@instruct`, begun, until so many steps are in a checkpoint."""
    drop = ("DVC_ROOT", "MLFLOW_TRACKING_URI", "PYTHONPATH")
    env = {key: value for key, value in os.environ.items() if key not in drop}
    env["PATH"] = f"{os.path.dirname(sys.executable)}{os.pathsep}{env['PATH']}"
    log = (project.folder.parent / "log").open("w+")
    command = ["dvc", "repro", "-f", "-s", "--no-run-cache", "train@instruct"]
    begun = subprocess.Popen(
        command, cwd=project.folder, env=env, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
    )
    deadline = time.monotonic() + 600
    while not any(int(path.stem[5:]) >= until for path in checkpoints(project)):
        assert begun.poll() is None and time.monotonic() < deadline, log.seek(0) or log.read()
        time.sleep(0.05)
    return begun


def checkpoints(project):
    return list(project.folder.glob(".biasline/checkpoints/*/step-*.safetensors"))


def forget(project):
    """The training is to be made again from its beginning."""
    shutil.rmtree(project.folder / ".biasline" / "checkpoints")


def long(project, run):
    """A task of 120 steps that writes a checkpoint after each."""
    quick(project)
    project.edit("params.yaml", "min_steps: 5", "min_steps: 120")
    project.edit("params.yaml", "    evaluate:\n      slices", f"    run: {run}\n    evaluate:\n      slices")


@pytest.mark.slow
def test_a_training_that_was_stopped_goes_on_and_ends_with_the_same_bytes(project):
    long(project, "{reuse: false, checkpoint_every: 0}")
    project.run("dvc repro train@instruct")
    expected, history = (
        (project.folder / DELTA).read_bytes(),
        (project.folder / "data/instruct/history.csv").read_text(),
    )

    # Killed when its outs are written and DVC does not have them yet: nothing is trained again.
    said = project.run("dvc repro -f -s --no-run-cache train@instruct").stdout
    assert "resumed from step 120, the last one" in said and (project.folder / DELTA).read_bytes() == expected
    project.run("dvc repro evaluate@instruct")
    assert not checkpoints(project)

    # Killed, and DVC with it.
    begun = reproduced(project, 40)
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    assert not (project.folder / DELTA).exists()
    said = project.run("dvc repro -f -s --no-run-cache train@instruct").stdout
    assert "resumed from step " in said and (project.folder / DELTA).read_bytes() == expected
    assert (project.folder / "data/instruct/history.csv").read_text() == history

    # Asked to end, as a machine does that is going down.
    forget(project)
    begun = reproduced(project, 40)
    [stage] = [one for one in psutil.Process(begun.pid).children(recursive=True) if one.cmdline()[1:2] == ["-m"]]
    stage.terminate()
    assert begun.wait() != 0
    assert project.python(ENDED).split()[-1] == "KILLED"
    said = project.run("dvc repro -f -s --no-run-cache train@instruct").stdout
    assert "resumed from step " in said and (project.folder / DELTA).read_bytes() == expected
    project.run("dvc repro evaluate@instruct register@instruct")
    assert len(runs(project)) == 1
    forget(project)

    # By two processes: nothing that is made depends on it but for rounding, and nothing is made again for it.
    project.edit("params.yaml", "checkpoint_every: 0", "processes: 2")
    assert "Running stage 'train@instruct'" not in project.run("dvc repro register@instruct").stdout
    said = project.run("dvc repro -f -s --no-run-cache train@instruct").stdout
    assert said.count("trainable:") == 1 and said.count("kept step") == 1
    (project.folder.parent / "one").write_bytes(expected)
    one, two = load_file(project.folder.parent / "one"), load_file(project.folder / DELTA)
    for name, values in one.items():
        torch.testing.assert_close(two[name], values, rtol=0, atol=1e-4)
    assert read(project, "data/instruct/model/train.json")["steps"] == 120
    # With the base spread over both, as for one that is larger than a card.
    forget(project)
    whole = BiasDelta.load(project.folder / DELTA).manifest
    project.edit("params.yaml", "processes: 2", "processes: 2, shard: true")
    project.run("dvc repro resolve@instruct")
    project.run("dvc repro -f -s --no-run-cache train@instruct")
    spread = BiasDelta.load(project.folder / DELTA)
    assert spread.manifest.frozen == whole.frozen and spread.manifest.base == whole.base
    for name, values in one.items():
        torch.testing.assert_close(spread.tensors[name], values, rtol=0, atol=1e-4)
    # A mistake is told by the process that finds it, without the launcher's own traceback.
    forget(project)
    project.edit("params.yaml", "processes: 2, shard: true", "processes: 2, launch: torchrun --nproc_per_node 1")
    project.run("dvc repro resolve@instruct")
    wrong = project.run("dvc repro -f -s --no-run-cache train@instruct", check=False)
    assert "run.processes is 2, and 1 were started" in wrong.stderr and wrong.returncode != 0


@pytest.mark.slow
def test_several_processes_do_not_outlive_what_started_them(project):
    """They are in sessions of their own, so that killing DVC and all that it started leaves them alive."""
    long(project, "{reuse: false, checkpoint_every: 0, processes: 2}")
    project.run("dvc repro train@instruct")
    expected = (project.folder / DELTA).read_bytes()
    forget(project)

    begun = reproduced(project, 40)
    ranks = [one for one in psutil.Process(begun.pid).children(recursive=True) if "stages.train" in one.cmdline()][-2:]
    os.killpg(begun.pid, signal.SIGKILL)
    begun.wait()
    _, alive = psutil.wait_procs(ranks, timeout=600)
    assert len(ranks) == 2 and not alive
    assert not (project.folder / DELTA).exists() and checkpoints(project)
    said = project.run("dvc repro -f -s --no-run-cache train@instruct").stdout
    assert "resumed from step " in said and (project.folder / DELTA).read_bytes() == expected

    # A machine that goes down asks all of them at once.
    forget(project)
    begun = reproduced(project, 40)
    for one in psutil.Process(begun.pid).children(recursive=True):
        one.terminate()
    assert begun.wait() != 0 and checkpoints(project)
    said = project.run("dvc repro -f -s --no-run-cache train@instruct").stdout
    assert "resumed from step " in said and (project.folder / DELTA).read_bytes() == expected

    # What one of them meets, and what all of them meet, is told once.
    [lock] = project.folder.glob(".biasline/checkpoints/*.lock")
    with FileLock(lock):
        busy = project.run("python -m stages.train instruct", check=False)
    project.edit("params.yaml", "biases: all", "biases: all\n      layers: '9'")
    project.run("dvc repro resolve@instruct")
    wrong = project.run("python -m stages.train instruct", check=False)
    for told, what in ((busy, "another process is training this very model"), (wrong, "layers")):
        errors = [line for line in told.stderr.splitlines() if line.startswith("error: ")]
        assert told.returncode == 1 and len(errors) == 1 and what in errors[0]
        assert "Traceback" not in told.stderr


ENDED = """
from biasline.tracking.store import connect
client = connect()
[run] = client.search_runs([client.get_experiment_by_name("instruct").experiment_id])
print(run.info.status)
"""
