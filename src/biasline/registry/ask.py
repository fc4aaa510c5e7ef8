"""Answers of registered models: each version looked up, its files handed to what serves them."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from biasline.registry.versions import no_version
from biasline.serving.packaging import packaged_answers
from biasline.serving.registered import aliased, model_name, read_package
from biasline.tracking.store import connect

Rows = Sequence[dict[str, Any]]


def ask(
    rows: Mapping[str, Rows], alias: str, shared: bool, told: Callable[[str], None]
) -> Iterator[tuple[str, list[Any]]]:
    """Answers of each task's model to its rows.

    Args:
        rows: task → rows of its kind.
        alias: which version.
        shared: put the tasks' deltas on one base in memory, with this checkout's code; otherwise each task is asked
            through its packaged model.
        told: told what was loaded, and how long it took.

    Raises:
        BiaslineError: where a task has no such version.
    """
    client = connect()
    versions = {}
    for task in rows:
        version = aliased(client, task, alias)
        if version is None:
            raise no_version(task, alias)
        versions[task] = version
    if shared:
        from biasline.serving.engine.bases import answer_together

        packages = {task: read_package(version) for task, version in versions.items()}
        yield from answer_together(packages, rows, told)
        return
    import mlflow

    for task, asked in rows.items():
        # A copy: MLflow notes something beside what it loads, and loads from no folder with a % in its path.
        with tempfile.TemporaryDirectory() as scratch:
            folder = mlflow.artifacts.download_artifacts(f"models:/{model_name(task)}@{alias}", dst_path=scratch)
            yield task, packaged_answers(Path(folder), asked)
