"""Several processes (gloo, on the CPU) give what one gives, and exchange what is trained and no more."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch

from biasline.errors import BiaslineError
from biasline.params import Run
from biasline.training.runtime.launch import joined, started_elsewhere

pytestmark = pytest.mark.e2e  # processes, or whole runs of stages

BIASES, WEIGHTS, STEPS = 704, 28_736, 8
START = "import sys; from biasline.params import Run; "
START += "from biasline.training.runtime.launch import started_elsewhere as start; "
START += "start(Run(processes=int(sys.argv[2])), 'tests.training.many', *sys.argv[1:])"


def ran(root, folder, processes, what):
    """What the first of so many processes wrote."""
    program = ["-c", START] if processes > 1 else ["-m", "tests.training.many"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    command = [sys.executable, *program, str(folder), str(processes), what]
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads((folder / f"{what}-{processes}.json").read_text())
    assert told["processes"] == processes
    return told


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.fixture(scope="module")
def alone(root, tmp_path_factory):
    return ran(root, tmp_path_factory.mktemp("alone"), 1, "bitfit")


def assert_equal(several, one, tolerance=1e-6):
    torch.testing.assert_close(torch.tensor(several["values"]), torch.tensor(one["values"]), rtol=0, atol=tolerance)
    for row, expected in zip(several["rows"], one["rows"], strict=True):
        known = {name: value for name, value in expected.items() if value is not None}
        assert {name: row[name] for name in known} == pytest.approx(known, rel=1e-4, abs=tolerance)
        for name in {"loss", "valid_loss"} & set(known):
            assert row[name] == pytest.approx(known[name], rel=1e-6)


@pytest.mark.slow
def test_two_processes_give_what_one_gives_and_exchange_the_biases(root, tmp_path, alone):
    two = ran(root, tmp_path, 2, "bitfit")
    assert_equal(two, alone)
    assert (two["calls"], two["bytes"]) == (STEPS, STEPS * 4 * (BIASES + 2))


@pytest.mark.slow
def test_four_processes_give_what_one_gives(root, tmp_path, alone):
    assert_equal(ran(root, tmp_path, 4, "bitfit"), alone)


@pytest.mark.slow
def test_a_base_that_is_spread_gives_what_a_whole_one_gives(root, tmp_path, alone):
    """Nor does any process hold more than its part of what is frozen."""
    two = ran(root, tmp_path, 2, "shard")
    assert_equal(two, alone)
    # Whole: biases, keys' as well (they lie in the fused ones), and after the last look the embedding and two norms.
    whole = BIASES + 2 * 32 + 100 * 32 + 2 * 32
    assert two["held"] == whole + (WEIGHTS - whole) / 2
    assert alone["held"] == WEIGHTS


@pytest.mark.slow
def test_full_tuning_exchanges_every_weight(root, tmp_path):
    one, two = ran(root, tmp_path, 1, "full"), ran(root, tmp_path, 2, "full")
    assert_equal(two, one)
    assert (two["calls"], two["bytes"]) == (STEPS, STEPS * 4 * (WEIGHTS + 2))


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "machines"), [("one-node.yaml", 1), ("many-nodes.yaml", 2), ("torchrun", 2)])
def test_the_launchers_of_the_docs_start_as_many_as_they_say(root, tmp_path, alone, launcher, machines):
    """With fewer processes and machines, one on loopback for each machine: gloo in the place of cards.

    The first process is on the machine of that number, whichever was started first.
    """
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)]), "GLOO_SOCKET_IFNAME": "lo"}
    port = free_port()
    if launcher == "torchrun":
        launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
        launch += ["--master_addr", "127.0.0.1", "--master_port", port]
        number = "--node_rank"
    else:
        config = root / "examples" / "launch" / launcher
        launch = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
        launch += ["--num_machines", str(machines), "--num_processes", "2"]
        launch += ["--main_process_ip", "127.0.0.1", "--main_process_port", port] if machines > 1 else []
        number = "--machine_rank"
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    running = []
    for rank in reversed(range(machines)):
        folder = tmp_path / str(rank)
        folder.mkdir()
        program = ["-m", "tests.training.many", str(folder), "2", "bitfit"]
        running.append(subprocess.Popen([*launch, number, str(rank), *program], cwd=root, env=env, **piped))
    for process in running:
        told, _ = process.communicate(timeout=600)
        assert process.returncode == 0, told
    two = json.loads((tmp_path / "0" / "bitfit-2.json").read_text())
    assert two["processes"] == 2
    assert_equal(two, alone)


def test_fewer_processes_than_asked_for_are_refused():
    with pytest.raises(BiaslineError, match="run.processes is 2, and 1 were started"):
        joined(Run(processes=2))


LEFT = """
import os, sys
from accelerate.state import AcceleratorState, PartialState
from biasline.errors import BiaslineError
from biasline.params import Run
from biasline.training.runtime.launch import joined
for given in eval(sys.argv[1]):
    AcceleratorState._reset_state(True)
    os.environ.update(given)
    try:
        found = joined(Run())
        print("RAN", found.num_processes, all(os.environ[name] == given[name] for name in given))
    except BiaslineError as error:
        print("REFUSED", error)
    for name in given:
        os.environ.pop(name, None)
"""


def test_one_process_does_not_heed_what_a_shell_says_of_several(root):
    """And says so. Each of these ended in a traceback, or waited for ever."""
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}
    given = [
        {"WORLD_SIZE": "2", "RANK": "0"},
        {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", **address},
        {"LOCAL_RANK": "0"},
        {"LOCAL_RANK": "0", "ACCELERATE_USE_DEEPSPEED": "true"},
        {"ACCELERATE_USE_DEEPSPEED": "true"},
        {"LOCAL_RANK": "no number"},
        {"WORLD_SIZE": "2", "RANK": "1"},
        {"OMPI_COMM_WORLD_SIZE": "4"},
        {"ACCELERATE_TORCH_DEVICE": "nonsense"},
    ]
    env = {name: value for name, value in os.environ.items() if "RANK" not in name and name != "WORLD_SIZE"}
    env |= {"PYTHONPATH": str(root / "src")}
    done = subprocess.run(
        [sys.executable, "-c", LEFT, repr(given)], env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert [line for line in told if not line.startswith("note")][:6] == ["RAN 1 True"] * 6
    assert told[0] == "note: WORLD_SIZE, RANK in the environment: not heeded, since run.processes is 1"
    assert "note: LOCAL_RANK, ACCELERATE_USE_DEEPSPEED in the environment: not heeded" in done.stdout
    refused = [line for line in told if line.startswith("REFUSED")]
    assert "run.processes is 1, and RANK is 1 in the environment" in refused[0]
    assert "run.processes is 1, and OMPI_COMM_WORLD_SIZE is 4 in the environment" in refused[1]
    assert "do not find together" in refused[2] and len(refused) == 3


@pytest.mark.slow
def test_more_processes_than_asked_for_are_refused(root, tmp_path):
    """A launcher's variables count where a launcher has set them: two that would train alone are not let."""
    code = "from biasline.params import Run; from biasline.training.runtime.launch import joined; joined(Run())"
    (tmp_path / "one.py").write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", free_port()]
    env = os.environ | {"PYTHONPATH": str(root / "src"), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    env["ACCELERATE_USE_CPU"] = "true"
    done = subprocess.run(
        [*command, str(tmp_path / "one.py")], env=env, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode != 0
    assert "run.processes is 1, and 2 were started" in done.stderr


def test_a_launcher_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr("os.environ", dict(os.environ))
    with pytest.raises(BiaslineError, match="run.launch: no-such-thing: No such file"):
        started_elsewhere(Run(processes=2, launch="no-such-thing --now"), "stages.train", "x")


def test_a_variable_that_is_not_set_is_told(monkeypatch):
    monkeypatch.setattr("os.environ", {"MAIN_IP": "127.0.0.1"})
    with pytest.raises(BiaslineError, match="run.launch: MACHINE_RANK is not set"):
        started_elsewhere(
            Run(processes=2, launch="torchrun --node_rank ${MACHINE_RANK} --m $MAIN_IP"), "stages.train", "x"
        )


def test_one_process_starts_no_others():
    assert not started_elsewhere(Run(), "stages.train", "x")


def test_a_launcher_that_starts_one_process_and_tells_it_nothing_is_refused(monkeypatch):
    """And is not started again by what it starts, and so on."""
    calls = []
    monkeypatch.setattr("os.execvp", lambda *args: calls.append(args))
    monkeypatch.setattr("os.environ", dict(os.environ))
    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", lambda *_: lambda *_: None)
    run = Run(processes=2, launch="nice -n 5 python")
    started_elsewhere(run, "stages.train", "x")
    assert calls == [("nice", ["nice", "-n", "5", "python", "-m", "stages.train", "x"])]
    assert not started_elsewhere(run, "stages.train", "x") and len(calls) == 1
    with pytest.raises(BiaslineError, match="1 were started"):
        joined(run)


def test_a_command_whose_quotes_do_not_match_is_told(monkeypatch):
    monkeypatch.setattr("os.environ", dict(os.environ))
    with pytest.raises(BiaslineError, match="run.launch: No closing quotation"):
        started_elsewhere(Run(processes=2, launch='torchrun "oops'), "stages.train", "x")


@pytest.mark.slow
def test_a_process_without_rows_in_the_first_step_makes_its_logits_as_the_others_do(root, tmp_path):
    """One row a step, and a model that scales its logits."""
    one, two = ran(root, tmp_path, 1, "scaled"), ran(root, tmp_path, 2, "scaled")
    assert_equal(two, one)
