"""Looks at rows of users as runs in MLflow, in an experiment beside that of the task, whose runs are models."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biasline.jsonfile import load_json
from biasline.tracking.store import experiment_id, find_experiment

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


def last_look(client: "MlflowClient", task: str, fingerprint: str, report: str) -> tuple[str, int, Any] | None:
    """The latest look that was logged of a training.

    Args:
        client: client of the tracking store.
        task: name of the task.
        fingerprint: of the training.
        report: the name of its report among the artifacts, JSON.

    Returns:
        the run's name, when it was made (milliseconds since 1970), and the report; None where there is none.
    """
    experiment = find_experiment(client, _EXPERIMENT.format(task=task))
    if experiment is None:
        return None
    wanted = f"tags.`biasline.fingerprint` = '{fingerprint}' and attributes.status = 'FINISHED'"
    for run in client.search_runs([experiment], wanted, order_by=["attributes.start_time DESC"], max_results=1):
        if any(item.path == report for item in client.list_artifacts(run.info.run_id)):
            with tempfile.TemporaryDirectory() as scratch:
                path = Path(client.download_artifacts(run.info.run_id, report, dst_path=scratch))
                return str(run.info.run_name), run.info.start_time, load_json(path, "")
    return None
