"""A version's files in the store: downloaded, read, counted and hashed."""

from pathlib import Path
from typing import TYPE_CHECKING

from biasline.layout import OWN_PACKED
from biasline.serving.packaging import files_in, hashes_of

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

    from biasline.serving.package import Package


def read_package(version: "ModelVersion") -> "Package":
    """What a version holds.

    Raises:
        BiaslineError: naming the first file that is missing or is not what was packaged.
    """
    from biasline.serving.package import Package

    return Package.read(*package_files(version))


def package_files(version: "ModelVersion") -> tuple[dict[str, Path], Path, dict[str, str]]:
    """What a version holds, see `files_in`."""
    return files_in(_downloaded(version))


def is_as_registered(version: "ModelVersion") -> bool:
    """Whether the files that a version has now are those that it was registered with."""
    found = hashes_of(_downloaded(version), version.tags.get("biasline.metrics_sha256", ""))
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


def _downloaded(version: "ModelVersion") -> Path:
    import mlflow

    # A local store's own folder, with nothing written to it, as MLflow would for a model's name.
    place = mlflow.MlflowClient().get_model_version_download_uri(version.name, version.version)
    named = f"models:/{version.name}/{version.version}"
    return Path(mlflow.artifacts.download_artifacts(place if place.startswith("file:") else named))
