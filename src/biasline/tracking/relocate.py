"""A local store that is not where it was made: its checkout was copied, renamed, mounted elsewhere or restored.

MLflow notes absolute addresses of artifacts. Left alone, a copy of a checkout writes into the other one, and a renamed
one finds nothing. So the addresses follow the home, in the database itself: MLflow's pages and servers read it too.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from biasline.layout import home

_ARTIFACTS = "mlartifacts"
# Where MLflow's tables hold addresses below an experiment's.
_ADDRESSES = (
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def artifact_folder(experiment: str) -> Path:
    """Where the artifacts of an experiment of a local store lie."""
    return home() / _ARTIFACTS / experiment


def follow_home(database: Path) -> list[str]:
    """Have the addresses in a local store point below the home where they point below an earlier place of it.

    An address that someone chose outside every project stays as it is.

    Args:
        database: the store's SQLite file.

    Returns:
        what was done, or could not be, in words.
    """
    told = {}
    with closing(sqlite3.connect(database, timeout=20)) as connection:
        rows = connection.execute("SELECT experiment_id, name, artifact_location FROM experiments").fetchall()
        moved = [(number, name, place) for number, name, place in rows if _has_moved(name, place, database)]
        try:
            with connection:
                for number, name, place in moved:
                    _rewrite(connection, number, place, artifact_folder(name).as_uri())
        except sqlite3.OperationalError as error:  # "attempt to write a readonly database"
            return [f"the store was made elsewhere, and cannot be brought here: {error}; whoever may write here can"]
    for _, name, place in moved:
        if (old := _path(place)) is None:
            continue
        root = old.parents[1]
        there = f"; {home() / _ARTIFACTS} holds none: copy {root / _ARTIFACTS} here, or `biasline sync`"
        told[root] = f"the store was made in {root}: its artifacts are read and written below {home()} from now on" + (
            "" if artifact_folder(name).is_dir() else there
        )
    return list(told.values())


def _has_moved(name: str, place: str | None, database: Path) -> bool:
    """Whether an experiment's address is that of an earlier place of this checkout."""
    old, new = _path(place), artifact_folder(name)
    if old is None or old == new or old.parts[-2:] != new.parts[-2:]:
        return False
    if old.is_dir() and new.is_dir() and os.path.samefile(old, new):
        return False
    if not database.resolve().is_relative_to(home()):  # several checkouts may share it
        return not old.is_dir() and new.is_dir()
    return not old.is_dir() or new.is_dir() or (old.parents[1] / "dvc.yaml").is_file()


def _path(place: str | None) -> Path | None:
    """The folder that an address names; None where it is of another kind."""
    parts = urlsplit(place or "")
    return Path(unquote(parts.path)) if parts.scheme == "file" and not parts.netloc else None


def _rewrite(connection: sqlite3.Connection, experiment: int, old: str, new: str) -> None:
    connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (new, experiment))
    for table, column in _ADDRESSES:
        connection.execute(
            f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE substr({column}, 1, ?) = ?",
            (new, len(old) + 1, len(old) + 1, old + "/"),
        )
