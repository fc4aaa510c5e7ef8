"""Locks between the processes of one checkout. Other machines do not see them."""

from pathlib import Path

from filelock import FileLock

from biasline.errors import full_disk_is_told


def file_lock(path: Path, timeout: float = -1) -> FileLock:
    """A lock, to be held by whoever writes.

    Args:
        path: its file, made where there is none.
        timeout: seconds to wait for it; without end if negative.

    Raises:
        BiaslineError: where it may not be written.
    """
    with full_disk_is_told(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return FileLock(path, timeout=timeout)
