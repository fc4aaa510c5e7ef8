"""The one error that users see: what is wrong, where, and the way out."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class BiaslineError(Exception):
    """A wrong input or a refused action, told in one line and never as a traceback.

    Args:
        message: what is wrong, naming the file, row, key or tensor, and what was expected.
        hint: the way out, as a command or an edit; printed behind the message.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(f"{message} → {hint}" if hint else message)


def first_line(error: BaseException) -> str:
    """A foreign error in one line of bearable length."""
    return str(error).splitlines()[0][:300] if str(error) else type(error).__name__


def first_few(names: Iterable[str], most: int = 3) -> str:
    """Names, the first few of many."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def shown(path: Path) -> str:
    """The path as a person would type it: relative to the current folder where it lies below it."""
    try:
        return path.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return str(path)


@contextmanager
def full_disk_is_told(path: Path) -> Iterator[None]:
    """Turn what the system refuses while writing below `path` into an error that names the place."""
    try:
        yield
    except Exception as error:
        # Libraries in Rust tell the system's word in a text of their own: "… File too large (os error 27)".
        if not isinstance(error, OSError) and "(os error " not in str(error):
            raise
        told = getattr(error, "strerror", None) or first_line(error)
        way_out = (
            "have someone do it who may write there, or mend the permissions"
            if isinstance(error, PermissionError)
            else "free some space or mend the folder's permissions, then run the same command again"
        )
        raise BiaslineError(f"{shown(path)}: cannot be written: {told}", way_out) from error
