"""The tracking store: SQLite at the home's root unless MLFLOW_TRACKING_URI says otherwise."""

import logging
import os
import sqlite3
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from biasline.errors import BiaslineError
from biasline.layout import in_project, local_state
from biasline.tracking.locks import file_lock
from biasline.tracking.relocate import artifact_folder, follow_home
from biasline.tracking.uris import database, shown_uri, tracking_uri

if TYPE_CHECKING:
    from filelock import FileLock
    from mlflow import MlflowClient


class StoreAway(BiaslineError):
    """The tracking store does not answer."""


def connect() -> "MlflowClient":
    """A client of the store; a local store is made where there is none, and one that was moved is made to follow.

    Whoever may write nothing here can read, with a client like any other.

    Raises:
        StoreAway: where the server does not answer, or a local store can be neither read nor made.
    """
    # Before mlflow is imported: it reads these once.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # a script may read what we print
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    warnings.filterwarnings("ignore", module="mlflow")
    import mlflow
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
    uri = tracking_uri()
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    file = database()
    _check_access(file)
    try:
        # Making a client of a fresh SQLite store migrates it; two at once would trip over each other.
        with _held_if_writable("store"):
            client = mlflow.MlflowClient()
            client.search_experiments(max_results=1)
            for line in follow_home(file) if file is not None and in_project() else ():
                print(f"note: {line}", file=sys.stderr)
    except (MlflowException, SQLAlchemyError, sqlite3.Error) as error:
        raise StoreAway(
            f"the tracking store {shown_uri()} does not answer: {str(error).splitlines()[0][:160]}", _way_back(file)
        ) from None
    return client


def _check_access(file: Path | None) -> None:
    """Refuse at once what MLflow would try again and again for an hour."""
    if file is None:
        return
    folder = next(folder for folder in file.parents if folder.exists())
    if file.exists() and not os.access(file, os.R_OK):
        raise StoreAway(f"the tracking store {shown_uri()}: may not be read", _way_back(file))
    if not file.exists() and not os.access(folder, os.W_OK | os.X_OK):
        raise StoreAway(
            f"the tracking store {shown_uri()}: there is none, and {folder} may not be written to",
            "whoever may makes it by `biasline sync`; or name another in MLFLOW_TRACKING_URI",
        )


def _way_back(file: Path | None) -> str:
    if file is None:
        return "start the server, or unset MLFLOW_TRACKING_URI for the local store; then `biasline sync`"
    return "mend the file or its permissions; if it is lost, delete it, and `biasline sync` rebuilds it from records"


def store_is_away(error: Exception) -> bool:
    """Whether an error is the store's not answering, and not its refusal of what was asked."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException

    if isinstance(error, (StoreAway, RequestException)):
        return True
    if not isinstance(error, MlflowException):
        return False
    try:
        connect()
    except StoreAway:
        return True
    return False


def lock(name: str) -> "FileLock":
    """A lock of this checkout, see `file_lock`."""
    return file_lock(local_state() / f"{name}.lock")


def store_lock() -> "FileLock":
    """Held while looking up and creating: MLflow has no compare-and-swap."""
    return lock("names")


@contextmanager
def _held_if_writable(name: str) -> Iterator[None]:
    """Hold a lock; whoever may not write here only reads, and needs none."""
    try:
        held = lock(name)
    except BiaslineError:
        yield
        return
    with held:
        yield


@contextmanager
def unless_made_meanwhile() -> Iterator[None]:
    """Around creating what has a unique name: another machine may have been quicker, and `store_lock` is ours alone."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def upsert(write: Callable[..., object], *arguments: str) -> None:
    """Set a tag or an alias, also while another machine sets the same one.

    MLflow looks for the row and inserts it where there is none. Of two that do so at one moment, the slower breaks the
    table's key; when it writes again, it finds the row and updates it.

    Args:
        write: a client's method, such as `client.set_model_version_tag`.
        arguments: what to call it with.
    """
    from mlflow.exceptions import MlflowException

    try:
        write(*arguments)
    except MlflowException as error:
        # Each database says it in its own words, and MLflow passes them on: as BAD_REQUEST or INTERNAL_ERROR.
        if not any(word in str(error).lower() for word in ("unique", "duplicate")):
            raise
        write(*arguments)


def find_experiment(client: "MlflowClient", task: str) -> str | None:
    """The MLflow experiment of a task; None where there is none."""
    found = client.get_experiment_by_name(task)
    return None if found is None else found.experiment_id


def experiment_id(client: "MlflowClient", task: str) -> str:
    """The MLflow experiment of a task, made where there is none."""
    found = client.get_experiment_by_name(task)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return found.experiment_id
    # An SQLite store without a location would put artifacts below the current folder.
    location = artifact_folder(task).as_uri() if database() is not None else None
    with unless_made_meanwhile():
        return client.create_experiment(task, artifact_location=location)
    return client.get_experiment_by_name(task).experiment_id
