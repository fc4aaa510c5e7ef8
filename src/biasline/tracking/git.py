"""What git says of the workspace. That it cannot say is never taken for "nothing changed"."""

import os
import subprocess
from pathlib import Path

_TIMEOUT_S = 30


class GitRefused(Exception):
    """There is a repository, but git does not answer about it: another's folder, a damaged one, no git, a timeout."""


def git(*arguments: str, where: Path | None = None) -> str | None:
    """Output of a git command, without the white space at its ends.

    Args:
        arguments: the command; one whose exit code 1 means "there is none" gives an empty text then.
        where: the folder that it is run in; the current one if left out.

    Returns:
        None where no git repository is.

    Raises:
        GitRefused: with git's own word.
    """
    folder = where or Path.cwd()
    # Paths as they are written; and words that do not depend on the user's language.
    command, environment = ["git", "-c", "core.quotePath=false", *arguments], {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise GitRefused(f"git {arguments[0]} gave no answer within {_TIMEOUT_S} s") from None
    except OSError as error:
        if _has_repository(folder):
            raise GitRefused(f"git cannot be run: {error.strerror}") from None
        return None
    if done.returncode in (0, 1):
        return done.stdout.decode(errors="replace").strip()
    if not _has_repository(folder):
        return None
    told = done.stderr.decode(errors="replace").strip() or f"git {arguments[0]} ended with exit code {done.returncode}"
    raise GitRefused(told.splitlines()[0])


def _has_repository(folder: Path) -> bool:
    """Whether the files say so; git itself calls a damaged repository none."""
    if os.environ.get("GIT_DIR"):
        return True
    return any((one / ".git").exists() for one in (folder, *folder.resolve().parents))


def commit() -> str | None:
    """The commit that the workspace is based on; empty before the first one, None where no repository is."""
    return git("rev-parse", "--verify", "--quiet", "HEAD")


def changed(*paths: str, where: Path | None = None) -> list[str]:
    """Which files git sees as changed, gone or unknown.

    Args:
        paths: files and folders, from the folder `where`.
        where: the current folder if left out.

    Returns:
        their names; none where no repository is.

    Raises:
        GitRefused: where git does not answer.
    """
    # What lies outside the repository git cannot speak of; its hash is among the tags.
    here = (where or Path.cwd()).resolve()
    inside = [path for path in paths if (here / path).resolve().is_relative_to(here)]
    if not inside:
        return []
    # Whatever the user has git leave out, what it does not know is in no commit.
    lines = git("status", "--porcelain", "--untracked-files=normal", "--", *inside, where=here) or ""
    return sorted(line.split(maxsplit=1)[1] for line in lines.splitlines())
