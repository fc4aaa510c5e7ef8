"""A search's trials as runs in MLflow: one run for the search, and one below it for each trial."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from biasline.errors import first_line
from biasline.tracking.store import connect, experiment_id

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Beside the experiment of the task, whose runs are models.
_EXPERIMENT = "{task} (tune)"
_SEARCH = "biasline.search"


class TrialRuns:
    """Reports trials. A store that is away is told once, and the search goes on.

    Args:
        task: the task's name.
        search: the name of the search; one that was begun before is gone on with.
        base: the base's name.
    """

    def __init__(self, task: str, search: str, base: str) -> None:
        self._client: MlflowClient | None = None
        try:
            self._client = connect()
            self._experiment = experiment_id(self._client, _EXPERIMENT.format(task=task))
            found = self._client.search_runs([self._experiment], f"tags.{_SEARCH} = '{search}'", max_results=1)
            if found:
                self._parent = found[0].info.run_id
                self._client.update_run(self._parent, status="RUNNING")
            else:
                tags = {_SEARCH: search, "biasline.task": task, "biasline.base": base}
                made = self._client.create_run(self._experiment, tags=tags, run_name=f"search {search}")
                self._parent = made.info.run_id
        except Exception as error:
            self._lose(error)

    def begin(self, number: int, params: Mapping[str, Any], before: str = "") -> str:
        """Begin the run of a trial; its id, empty where the store is away.

        Args:
            number: the trial's.
            params: its parameters.
            before: the run that it had in a process that is no more, and has again.
        """
        from mlflow.entities import Param

        if self._client is None:
            return ""
        try:
            if before:
                self._client.update_run(before, status="RUNNING")
                return before
            tags = {"mlflow.parentRunId": self._parent}
            made = self._client.create_run(self._experiment, tags=tags, run_name=f"trial {number}")
            self._client.log_batch(made.info.run_id, params=[Param(name, str(value)) for name, value in params.items()])
            return made.info.run_id
        except Exception as error:
            self._lose(error)
            return ""

    def finish(self, run: str, metrics: Mapping[str, float], status: str) -> None:
        """End the run of a trial, with what the validation rows said."""
        if self._client is None or not run:
            return
        try:
            for name, value in metrics.items():
                self._client.log_metric(run, name, value)
            self._client.set_terminated(run, status)
        except Exception as error:
            self._lose(error)

    def end(self, others: int) -> None:
        """This process is done with the search; its run ends where no other trial is running."""
        if not others:
            self.finish(getattr(self, "_parent", ""), {}, "FINISHED")

    def _lose(self, error: Exception) -> None:
        self._client = None
        print(f"warning: trials are not tracked: {first_line(error)}", file=sys.stderr)
