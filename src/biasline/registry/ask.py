"""Asking registered models: one as it was packaged, or several on one base in memory."""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biasline.registry.aliases import aliased
from biasline.registry.package import files_in, package_files
from biasline.registry.versions import model_name, no_version
from biasline.tracking.store import connect

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

    from biasline.evaluation.serving import Package

Rows = Sequence[dict[str, Any]]


def ask(
    rows: Mapping[str, Rows], alias: str, shared: bool, told: Callable[[str], None]
) -> Iterator[tuple[str, list[Any]]]:
    """Answers of each task's model to its rows.

    Args:
        rows: task → rows of its kind.
        alias: which version.
        shared: put the tasks' deltas on one base in memory, with this checkout's code; otherwise each task is asked
            through its packaged model, code and all.
        told: told what was loaded and swapped, and how long it took.

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
    if not shared:
        import mlflow

        for task, asked in rows.items():
            # A copy: MLflow notes something beside what it loads, and loads from no folder with a % in its path.
            with tempfile.TemporaryDirectory() as scratch:
                folder = mlflow.artifacts.download_artifacts(f"models:/{model_name(task)}@{alias}", dst_path=scratch)
                _, pin, _ = files_in(Path(folder))
                model = mlflow.pyfunc.load_model(folder, model_config={"pin_path": str(pin)})
                yield task, list(model.predict(list(asked)))
        return
    packages = {task: _package(version) for task, version in versions.items()}
    for group in _by_base(packages):
        yield from _ask_together(group, rows, told)


def _ask_together(
    packages: Mapping[str, "Package"], rows: Mapping[str, Rows], told: Callable[[str], None]
) -> Iterator[tuple[str, list[Any]]]:
    from biasline.evaluation.serving import SharedBase

    base = SharedBase(packages)
    pin = next(iter(packages.values())).pin
    often = "once" if base.loads == 1 else f"{base.loads} times (a head of its own has to be read)"
    told(f"{pin.name}: loaded {often} in {base.load_s:.2f} s")
    for task in packages:
        predictor, seconds = base.ask(task)
        told(f"{task}: {predictor.model.config.model_type} delta swapped in {1000 * seconds:.1f} ms")
        yield task, predictor(rows[task])


def _by_base(packages: Mapping[str, "Package"]) -> list[dict[str, "Package"]]:
    groups: dict[tuple[str, str], dict[str, Package]] = {}
    for task, package in packages.items():
        groups.setdefault((package.pin.digest, package.task.load.model_dump_json()), {})[task] = package
    return list(groups.values())


def _package(version: "ModelVersion") -> "Package":
    from biasline.evaluation.serving import Package

    return Package.read(*package_files(version))
