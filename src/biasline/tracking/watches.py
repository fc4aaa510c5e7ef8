"""Looks at rows of users as runs in MLflow, in an experiment beside that of the task, whose runs are models."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from biasline.tracking.store import experiment_id

if TYPE_CHECKING:
    from mlflow import MlflowClient

_EXPERIMENT = "{task} (watch)"


def log_look(
    client: "MlflowClient", task: str, metrics: Mapping[str, float], tags: Mapping[str, str], folder: Path
) -> str:
    """Make a run of a look, and say its name.

    Args:
        client: client of the tracking store.
        task: name of the task.
        metrics: name → value.
        tags: name → text.
        folder: whose files are its artifacts.
    """
    from mlflow.entities import Metric

    made = client.create_run(experiment_id(client, _EXPERIMENT.format(task=task)), tags={"biasline.task": task, **tags})
    run, at = made.info.run_id, made.info.start_time
    client.log_batch(run, metrics=[Metric(name, value, at, 0) for name, value in metrics.items()])
    client.log_artifacts(run, str(folder))
    client.set_terminated(run)
    return str(made.info.run_name)
