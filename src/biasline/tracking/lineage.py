"""Where a run comes from: git, DVC, library versions, hardware; and how it is made again."""

import getpass
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from biasline.bases.pin import file_sha256
from biasline.errors import BiaslineError
from biasline.layout import PARAMS
from biasline.params import CUSTOM, Task, parse_params
from biasline.tracking.git import GitRefused, changed, commit, git

# What decides how a model is made: a change here that is not committed makes a run "dirty".
_LOCK = Path("requirements.lock")
MAKING = ("src", "stages", "dvc.yaml", str(PARAMS), str(_LOCK))
NO_REPOSITORY = "all of it, in no git repository"
_LIBRARIES = ("torch", "transformers", "accelerate", "peft", "datasets", "polars", "pandera", "mlflow", "dvc")


def lineage(*inputs: str) -> dict[str, str]:
    """Tags that answer "which code, which experiment, which machine"; a value that is unknown is left out.

    Args:
        inputs: files and folders beside the code that a run is made from; the run is dirty where they are.
    """
    tags = {
        **_git_tags(inputs),
        "lock.sha256": file_sha256(_LOCK) if _LOCK.is_file() else "",
        "dvc.experiment": os.environ.get("DVC_EXP_NAME", ""),
        "dvc.stage": os.environ.get("DVC_STAGE", ""),
        "user": someone(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu.count": str(os.cpu_count()),
        "cpu.model": _cpu_model(),
        "gpu": _gpu(),
        **{f"version.{name}": version(name) for name in _LIBRARIES},
    }
    return {name: value for name, value in tags.items() if value}


def made_again(name: str, task: Task) -> dict[str, str]:
    """The command that makes a run again, as a tag; where files besides params.yaml are not committed, those as well.

    Args:
        name: the task's.
        task: its parameters; what params.yaml has otherwise than the commit is set on the command line.
    """
    inputs = (task.data, task.base, str(Path(task.base).with_suffix("")), str(CUSTOM))
    try:
        made_at = commit()
        if not made_at:
            return {}
        found = changed(*(path for path in MAKING if path != str(PARAMS)), *inputs)
        text = git("show", f"HEAD:./{PARAMS}") if git("ls-tree", "HEAD", "--", str(PARAMS)) else ""
    except GitRefused as error:
        return {"git.changed": not_known(error)}
    tags = {"git.changed": ", ".join(found)} if found else {}
    try:
        committed = parse_params(text or "", f"{PARAMS} of {made_at[:8]}").tasks.get(name)
        ours = parse_params(PARAMS.read_bytes(), str(PARAMS)).tasks.get(name)
    except (BiaslineError, OSError):
        return tags
    if committed is None or ours is None:
        return tags
    before, now = (dict(_leaves(one.model_dump(mode="json"))) for one in (committed, ours))
    settings = {key: json.dumps(value, ensure_ascii=False) for key, value in now.items() if value != before.get(key)}
    # What DVC's command line cannot say: a key that went, and text that its parser would take apart.
    odd = set(before) - set(now) or any("\\" in value or "${" in value for value in settings.values())
    if odd or (settings and name[0].isdigit()):
        return tags | {"git.changed": ", ".join([*found, str(PARAMS)])}
    told = "".join(f" -S {shlex.quote(f'++tasks.{name}.{key}={value}')}" for key, value in settings.items())
    return tags | {
        "made.by": f"git checkout {made_at} && {f'dvc exp run{told}' if told else 'dvc repro'} register@{name}"
    }


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no group, under its dotted name."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _git_tags(inputs: Sequence[str]) -> dict[str, str]:
    """Commit, branch and whether it is dirty; without what git does not say."""
    tags = {}
    try:
        if found := commit():
            tags = {"git.commit": found, "git.branch": git("rev-parse", "--abbrev-ref", "HEAD") or ""}
            tags["git.dirty"] = "true" if changed(*MAKING, *inputs) else "false"
    except GitRefused as error:
        tags["git.changed"] = not_known(error)
    return tags


def not_known(error: GitRefused) -> str:
    """What to say in the place of the files that changed."""
    return f"not known, since git says: {error}"


def uncommitted_now(where: Path) -> list[str]:
    """What decides how models are made and is in no commit at this moment.

    Args:
        where: the project's folder.

    Returns:
        names of files; where there is no repository, or git does not answer, one entry that says so.
    """
    try:
        if git("rev-parse", "--git-dir", where=where) is None:
            return [NO_REPOSITORY]
        return changed(*MAKING, where=where)
    except GitRefused as error:
        return [not_known(error)]


def uncommitted_when_made(tags: Mapping[str, str]) -> str:
    """What was in no commit when a run was made, by its tags; empty where all was."""
    if found := tags.get("git.changed"):
        return found
    if "git.commit" not in tags:
        return NO_REPOSITORY
    # What `git.changed` leaves out, since the command that makes a run again tells it.
    return str(PARAMS) if tags.get("git.dirty") == "true" else ""


def someone() -> str:
    """The login name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _gpu() -> str:
    """The accelerator's name; asked only where torch is loaded anyway."""
    torch = sys.modules.get("torch")
    return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else ""
