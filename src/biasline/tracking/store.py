"""The tracking store: SQLite at the home's root unless MLFLOW_TRACKING_URI says otherwise."""

import logging
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from biasline.errors import BiaslineError
from biasline.layout import home, local_state

if TYPE_CHECKING:
    from mlflow import MlflowClient


class StoreAway(BiaslineError):
    """The tracking store does not answer."""


def tracking_uri() -> str:
    """Where runs are kept: `MLFLOW_TRACKING_URI`, else `mlflow.db` at the home's root."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{home() / 'mlflow.db'}"


def shown_uri() -> str:
    """`tracking_uri` for people and logs: without a login."""
    return re.sub(r"//[^/@]*@", "//", tracking_uri())


def connect() -> "MlflowClient":
    """A client of the store; a local store is made where there is none.

    Errors: `StoreAway` where the server does not answer.
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
    try:
        # Making a client of a fresh SQLite store migrates it; two at once would trip over each other.
        with FileLock(_lock_path()):
            client = mlflow.MlflowClient()
            client.search_experiments(max_results=1)
    except (MlflowException, SQLAlchemyError) as error:
        raise StoreAway(
            f"the tracking store {shown_uri()} does not answer: {str(error).splitlines()[0][:160]}",
            "start the server, or unset MLFLOW_TRACKING_URI for the local store; then `biasline sync`",
        ) from None
    return client


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


def store_lock() -> FileLock:
    """Held while looking up and creating: MLflow has no compare-and-swap. Other machines do not see it."""
    return FileLock(_lock_path("names"))


@contextmanager
def unless_made_meanwhile() -> Iterator[None]:
    """Around creating what has a unique name: another machine may have been quicker, and `store_lock` is ours alone."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def experiment_id(client: "MlflowClient", task: str) -> str:
    """The MLflow experiment of a task, made where there is none."""
    found = client.get_experiment_by_name(task)
    if found is not None:
        if found.lifecycle_stage == "deleted":
            client.restore_experiment(found.experiment_id)
        return found.experiment_id
    # An SQLite store without a location would put artifacts below the current folder.
    local = tracking_uri().startswith("sqlite:")
    location = (home() / "mlartifacts" / task).as_uri() if local else None
    with unless_made_meanwhile():
        return client.create_experiment(task, artifact_location=location)
    return client.get_experiment_by_name(task).experiment_id


def _lock_path(name: str = "store") -> Path:
    folder = local_state()
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{name}.lock"
