"""One thin script per DVC stage, run as `python -m stages.NAME TASK` from the workspace's root.

This package puts its own checkout's `src` first: a queued experiment runs in a temporary checkout, and must run the
code that lies there, not the code that is installed.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

# Before torch is imported. Spinning threads cost up to ten times the time beside another job; the bytes are the same.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def run_stage(stage: Callable[[str], str]) -> None:
    """Run a stage for the task named on the command line and print the line that it returns, if any."""
    from biasline.errors import BiaslineError
    from biasline.process import collect_seldom, exit_on_error

    collect_seldom()

    def run() -> None:
        if len(sys.argv) != 2:
            raise BiaslineError(f"{Path(sys.argv[0]).stem}: expected one argument, the task's name")
        if told := stage(sys.argv[1]):
            print(told, flush=True)

    exit_on_error(run)
