"""Where a run comes from: git, DVC, library versions, hardware."""

import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

# What decides how a model is made: a change here that is not committed makes a run "dirty".
MAKING = ("src", "stages", "dvc.yaml", "params.yaml", "requirements.lock")
_LIBRARIES = ("torch", "transformers", "accelerate", "datasets", "polars", "pandera", "mlflow", "dvc")


def lineage(*inputs: str) -> dict[str, str]:
    """Tags that answer "which code, which experiment, which machine"; a value that is unknown is left out.

    Args:
        inputs: files and folders beside the code that a run is made from; the run is dirty where they are.
    """
    tags = {
        "git.commit": _git("rev-parse", "HEAD"),
        "git.branch": _git("rev-parse", "--abbrev-ref", "HEAD"),
        "git.dirty": _dirty(inputs),
        "dvc.experiment": os.environ.get("DVC_EXP_NAME", ""),
        "dvc.stage": os.environ.get("DVC_STAGE", ""),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu.count": str(os.cpu_count()),
        **{f"version.{name}": version(name) for name in _LIBRARIES},
    }
    return {name: value for name, value in tags.items() if value}


def _dirty(inputs: Sequence[str]) -> str:
    if not _git("rev-parse", "HEAD"):
        return ""
    # What lies outside the repository git cannot speak of; its hash is among the tags.
    here = Path.cwd().resolve()
    inside = [path for path in inputs if Path(path).exists() and Path(path).resolve().is_relative_to(here)]
    return "true" if _git("status", "--porcelain", "--", *MAKING, *inside) else "false"


def _git(*arguments: str) -> str:
    """Output of a git command in the workspace; empty where git or a repository is missing."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
