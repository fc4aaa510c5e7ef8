"""How the processes of one training are started and find together."""

import logging
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from biasline.errors import BiaslineError, first_line
from biasline.params import Run
from biasline.training.runtime.signals import heeded

if TYPE_CHECKING:
    from accelerate import Accelerator

# How long a process waits for another: where each trains tenants of its own, they end at different times.
_PATIENCE = timedelta(hours=2)
# The number of the process that started the others.
_STARTED = "BIASLINE_STARTED"
# What every launcher of torch's tells a process, and some shells say of something else.
_PLACES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_PLUGINS = tuple(
    f"ACCELERATE_USE_{name}" for name in ("DEEPSPEED", "FSDP", "MEGATRON_LM", "PARALLELISM_CONFIG", "SAGEMAKER")
)
# Set by torchrun, and by mpirun and its like, in the processes that they start.
_ELASTIC, _MPI_SIZES = "TORCHELASTIC_RUN_ID", ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")


def launched() -> bool:
    """Whether this is one of several processes of a training, by what a launcher has set for it.

    Each launcher of torch's sets two variables; a cluster's own tools may set the first alone, for something else.
    """
    return _STARTED in os.environ or {"WORLD_SIZE", "LOCAL_RANK"} <= set(os.environ)


def started_elsewhere(run: Run, module: str, *arguments: str) -> bool:
    """Start the processes of a training, and wait for them; False where this is one of them, or the only one.

    Args:
        run: how many there are, and what starts them.
        module: what each of them runs, as `python -m`.
        *arguments: the module's.

    Raises:
        SystemExit: with the exit code where one of them failed; it has told why.
    """
    if launched() or (run.processes == 1 and not run.launch):
        return False
    os.environ[_STARTED] = str(os.getpid())  # a launcher that tells nothing would otherwise start one, and so on
    if run.launch:
        try:
            command = [*shlex.split(_filled_in(run.launch)), "-m", module, *arguments]
            os.execvp(command[0], command)
        except ValueError as error:
            raise BiaslineError(f"run.launch: {first_line(error)}", "mend its quotes") from None
        except OSError as error:
            raise BiaslineError(f"run.launch: {command[0]}: {error.strerror}", "name a program that is there") from None
    for name in ("WORLD_SIZE", "RANK"):
        os.environ.pop(name, None)
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    os.environ.setdefault("OMP_NUM_THREADS", "1")  # until each process is told its own number
    if sys.platform == "linux":
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # nothing leaves this machine
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the processes tell it better
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=run.processes,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        run_id=str(os.getpid()),
        max_restarts=0,
        signals_to_handle=",".join(number.name for number in heeded()),
    )
    try:
        elastic_launch(config, sys.executable)("-m", module, *arguments)
    except ChildFailedError as error:
        raise SystemExit(max(1, error.get_first_failure()[1].exitcode)) from None
    except SignalException as error:
        raise SystemExit(128 + error.sigval) from None
    return True


def _filled_in(command: str) -> str:
    """A command with the environment's variables."""
    filled = os.path.expandvars(command)
    if missing := re.search(r"\$\{?([A-Za-z_]\w*)", filled):
        raise BiaslineError(f"run.launch: {missing[1]} is not set in the environment", "set it on each machine")
    return filled


def watched() -> Callable[[], bool]:
    """A function that tells whether the launcher that started this process is gone.

    What a launcher starts is in sessions of its own, and outlives it where it is killed.
    """
    parent = os.getppid()
    ours = os.environ.get(_STARTED) == str(parent)  # and not a cluster's, which may well go away
    return lambda: ours and os.getppid() != parent


def joined(run: Run) -> "Accelerator":
    """This process among the others.

    Raises:
        BiaslineError: where there are more or fewer than params say: some launchers start one and say nothing.
    """
    import torch
    from accelerate import Accelerator
    from accelerate.utils import InitProcessGroupKwargs

    from biasline.training.ranks import together

    try:
        with _alone(run):
            waits = InitProcessGroupKwargs(timeout=_PATIENCE)
            accelerator = Accelerator(cpu=not torch.accelerator.is_available(), kwargs_handlers=[waits])
    except (ImportError, ValueError, RuntimeError, OSError) as error:
        raise BiaslineError(
            f"the processes of this training do not find together: {' '.join(str(error).split())[:300]}",
            "mend what started them, and the variables that it sets (WORLD_SIZE, MASTER_ADDR, ACCELERATE_…)",
        ) from None

    def check() -> None:
        if accelerator.num_processes != run.processes:
            raise BiaslineError(
                f"run.processes is {run.processes}, and {accelerator.num_processes} were started",
                "make run.launch start as many",
            )

    together(accelerator, check)
    return accelerator


@contextmanager
def _alone(run: Run) -> Iterator[None]:
    """Have a training of one process not heed what the environment says of several.

    A shell may hold a launcher's variables that are of something else. Where a launcher has started this process, they
    stay: how many there are is checked afterwards.

    Raises:
        BiaslineError: where this is one of several processes, each of which would train alone.
    """
    launched = run.launch or _STARTED in os.environ or _ELASTIC in os.environ
    if run.processes > 1 or launched:
        yield
        return
    several = [name for name in _MPI_SIZES if os.environ.get(name, "1") not in ("", "1")]
    several += ["RANK"] if os.environ.get("RANK", "0") not in ("", "0") else []
    if several:
        raise BiaslineError(
            f"run.processes is 1, and {several[0]} is {os.environ[several[0]]} in the environment",
            "set run.processes to as many as a launcher starts, or unset the variable",
        )
    on = [name for name in _PLUGINS if os.environ.get(name, "").lower() in ("1", "true", "yes", "on")]
    found = {name: os.environ.pop(name) for name in (*_PLACES, *on) if name in os.environ}
    if found:
        print(f"note: {', '.join(found)} in the environment: not heeded, since run.processes is 1", flush=True)
    try:
        yield
    finally:
        os.environ.update(found)
