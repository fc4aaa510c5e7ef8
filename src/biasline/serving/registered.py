"""Registered versions: found by alias, their files and those of their runs; downloaded, read, counted and hashed."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from biasline.errors import BiaslineError
from biasline.layout import OWN_PACKED, TaskPlace, in_project
from biasline.serving.packaging import files_in, hashes_of
from biasline.tracking.publish import find_run
from biasline.tracking.record import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

    from biasline.serving.package import Package


def model_name(task: str) -> str:
    """Name of a task's registered model."""
    return f"biasline-{task}"


def has_model(client: "MlflowClient", task: str) -> bool:
    """Whether anything of a task was registered."""
    return bool(client.search_registered_models(f"name = '{model_name(task)}'"))


def versions_of(client: "MlflowClient", task: str) -> "Sequence[ModelVersion]":
    """All registered versions of a task."""
    return client.search_model_versions(f"name = '{model_name(task)}'")


def aliased(client: "MlflowClient", task: str, alias: str) -> "ModelVersion | None":
    """The version that an alias of a task's model points at; None where it points at nothing."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(model_name(task), alias)
    except MlflowException as error:
        # No such model, or no such alias. A store that is away is no answer.
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def read_package(version: "ModelVersion") -> "Package":
    """What a version holds.

    Raises:
        BiaslineError: naming the first file that is missing or is not what was packaged.
    """
    from biasline.serving.package import Package

    return Package.read(*package_files(version))


def package_files(version: "ModelVersion", scratch: Path | None = None) -> tuple[dict[str, Path], Path, dict[str, str]]:
    """What a version holds, see `files_in`.

    Args:
        version: a registered version.
        scratch: a folder for what has to be downloaded; without one that stays where MLflow puts it.
    """
    return files_in(package_folder(version, scratch))


def is_as_registered(version: "ModelVersion") -> bool:
    """Whether the files that a version has now are those that it was registered with."""
    found = hashes_of(package_folder(version), version.tags.get("biasline.metrics_sha256", ""))
    return version.tags.get("biasline.package") in found


def has_files(client: "MlflowClient", version: "ModelVersion") -> bool:
    """Whether the store has a version's files; their content is `verify`'s to check."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    kept = get_artifact_repository(client.get_model_version_download_uri(version.name, version.version))
    found = {item.path for folder in (None, "artifacts") for item in kept.list_artifacts(folder)}
    wanted = {"MLmodel", "python_env.yaml", "code", "artifacts/delta.safetensors"}
    if version.tags.get("biasline.tenants"):
        wanted.add(f"artifacts/{OWN_PACKED}")
    return wanted <= found


def run_of(client: "MlflowClient", version: "ModelVersion") -> "Run | None":
    """The run that a version was made by; where that was purged from the store, the one that `sync` published since.

    Returns:
        None where there is neither.
    """
    from mlflow.exceptions import MlflowException

    if version.run_id:
        try:
            return client.get_run(version.run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    return find_run(client, version.name.removeprefix(model_name("")), version.tags["biasline.fingerprint"])


def run_file(client: "MlflowClient", version: "ModelVersion", path: Path, scratch: Path) -> Path:
    """A file of the model's run: this machine's record of it, else the run's artifact.

    Args:
        client: client of the tracking store.
        version: a registered version.
        path: a path of the task's place.
        scratch: a folder for what has to be downloaded.

    Raises:
        BiaslineError: where the run has no such file.
    """
    if (here := _in_record(version, path)) is not None:
        return here
    name = version.name.removeprefix(model_name(""))
    wanted = path.relative_to(TaskPlace(name).folder).as_posix()
    run = run_of(client, version)
    kept = None if run is None else _in_store(client, run, wanted, scratch)
    if kept is None:
        told = f"its run has no {wanted}" if run is not None else f"its run was purged, and with it {wanted}"
        raise BiaslineError(
            f"{version.name} version {version.version}: {told}", f"`biasline sync {name}` where its record lies"
        )
    return kept


def run_copies(client: "MlflowClient", version: "ModelVersion", path: Path, scratch: Path) -> dict[str, Path]:
    """Every copy of a file of the model's run, by who has it: `store`, and `record` on this machine; those that are.

    Arguments as of `run_file`, which takes whichever is nearer.
    """
    run = run_of(client, version)
    wanted = path.relative_to(TaskPlace(version.name.removeprefix(model_name(""))).folder).as_posix()
    found = {
        "store": None if run is None else _in_store(client, run, wanted, scratch),
        "record": _in_record(version, path),
    }
    return {who: copy for who, copy in found.items() if copy is not None}


def _in_record(version: "ModelVersion", path: Path) -> Path | None:
    if not in_project():
        return None
    here = Record(version.name.removeprefix(model_name("")), version.tags["biasline.fingerprint"]).file(path)
    return here if here.is_file() else None


def _in_store(client: "MlflowClient", run: "Run", wanted: str, scratch: Path) -> Path | None:
    folder = Path(wanted).parent.as_posix()
    where = None if folder == "." else folder
    if wanted not in {item.path for item in client.list_artifacts(run.info.run_id, where)}:
        return None
    return Path(client.download_artifacts(run.info.run_id, wanted, dst_path=str(scratch)))


def package_folder(version: "ModelVersion", scratch: Path | None = None) -> Path:
    """The folder that a version was packaged into; arguments as of `package_files`."""
    import mlflow

    # A local store's own folder, with nothing written to it, as MLflow would for a model's name.
    place = mlflow.MlflowClient().get_model_version_download_uri(version.name, version.version)
    if place.startswith("file:"):
        return Path(mlflow.artifacts.download_artifacts(place))
    named = f"models:/{version.name}/{version.version}"
    return Path(mlflow.artifacts.download_artifacts(named, dst_path=None if scratch is None else str(scratch)))
