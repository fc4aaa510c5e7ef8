"""Where the store is: its URI, whatever the project's path is made of and wherever a command is run."""

import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from biasline.layout import home

_SQLITE = re.compile(r"sqlite(?:\+\w+)?:///(?P<path>[^?]*)(?P<query>\?.*)?")
# What MLflow takes as a name instead of as a folder.
_NAMES = ("databricks", "databricks-uc", "uc")


def tracking_uri() -> str:
    """Where runs are kept: `MLFLOW_TRACKING_URI`, else `mlflow.db` at the home's root.

    A relative path in it begins at the home, from whichever folder of it, or checkout made of it, a command is run.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not given:
        return sqlite_uri(home() / "mlflow.db")
    if found := _SQLITE.fullmatch(given):
        path = _file(found["path"])
        return given if path is None or path.is_absolute() else sqlite_uri(home() / path) + (found["query"] or "")
    parts = urlsplit(given)
    is_folder = given not in _NAMES if not parts.scheme else parts.scheme == "file" and not parts.netloc
    path = Path(unquote(parts.path) if parts.scheme else given)
    return (home() / path).as_uri() if is_folder and not path.is_absolute() else given


def sqlite_uri(path: Path) -> str:
    """The URI of an SQLite store.

    Args:
        path: of its file, absolute; any characters.
    """
    quoted = str(path).replace("%", "%25").replace("?", "%3F")
    # With the driver's name, because MLflow makes the folders of a plain `sqlite:///` as they are quoted.
    return f"{'sqlite' if quoted == str(path) else 'sqlite+pysqlite'}:///{quoted}"


def database() -> Path | None:
    """The file of an SQLite store; None where the store is something else."""
    found = _SQLITE.fullmatch(tracking_uri())
    return _file(found["path"]) if found else None


def _file(quoted: str) -> Path | None:
    """The file that an SQLite URI names; None where that is memory, or SQLite's own kind of URI."""
    path = unquote(quoted)
    return None if path in ("", ":memory:") or path.startswith("file:") else Path(path)


def shown_uri() -> str:
    """`tracking_uri` for people and logs: without a login."""
    return re.sub(r"//[^/@]*@", "//", tracking_uri())
