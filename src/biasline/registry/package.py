"""The packaged model: what a version holds, how it is logged, read and told apart."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
from ruamel.yaml import YAML

from biasline.bases.match import check_base
from biasline.bases.pin import file_sha256, read_pin
from biasline.bitfit import BiasDelta
from biasline.data.kinds import KINDS, asked_of
from biasline.layout import TaskPlace, home
from biasline.params import Task, read_task
from biasline.tracking.record import Record

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature
    from mlflow.models.model import ModelInfo

# What the packaged model needs: libraries, and files and rooms of this package.
_REQUIREMENTS = ("accelerate", "mlflow", "numpy", "polars", "pydantic", "safetensors", "scipy", "torch", "transformers")
_CODE: tuple[str, ...] = ("__init__.py", "errors.py", "custom.py", "glue.py", "layout.py", "params.py", "jsonfile.py")
_CODE += ("bases", "bitfit", "data", "tokens", "training", "evaluation", "progress.py")


def log_package(record: Record, run_id: str) -> "ModelInfo":
    """Log the pyfunc to the run."""
    import mlflow

    place, task = TaskPlace(record.task), record.resolved()
    delta, pin = BiasDelta.load(record.file(place.delta)), read_pin(record.pin)
    check_base(delta.manifest.base, pin)
    files = {"delta": record.file(place.delta), "pin": record.pin, "task": record.file(place.resolved)}
    noted = {"pin_path": str(home() / task.base), "sha256": {name: file_sha256(path) for name, path in files.items()}}
    with tempfile.TemporaryDirectory() as scratch, mlflow.start_run(run_id=run_id, log_system_metrics=False):
        return mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("model.py")),
            artifacts={name: path.as_uri() for name, path in files.items()},  # a plain path would be decoded
            model_config=noted,
            code_paths=[str(_code(Path(scratch)))],
            signature=_signature(task),
            input_example=asked_of(pl.read_parquet(record.file(place.predictions)).head(1), task.kind),
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in _REQUIREMENTS],
            metadata={"biasline.fingerprint": record.fingerprint, "biasline.task": record.task},
        )


def package_files(version: "ModelVersion") -> tuple[dict[str, Path], Path, dict[str, str]]:
    """What a version holds, as `Package.read` takes it.

    Returns:
        its files by name (`delta`, `pin`, `task`), where its base's pin lies, and the sha256 of each file when it was
        packaged.
    """
    return files_in(_downloaded(version))


def files_in(folder: Path) -> tuple[dict[str, Path], Path, dict[str, str]]:
    """As `package_files`, of a package that was downloaded."""
    # Not by MLflow, which would decode a path with a % in it. As texts: a hash of digits and one "e" is no number.
    described = YAML(typ="base", pure=True).load((folder / "MLmodel").read_text(encoding="utf-8"))
    flavor = described["flavors"]["python_function"]
    files = {name: folder / place["path"] for name, place in flavor["artifacts"].items()}
    noted = flavor.get("config") or {}
    return files, _pin_place(files["task"], Path(noted.get("pin_path", ""))), noted.get("sha256", {})


def _pin_place(task: Path, noted: Path) -> Path:
    """Where a package's pin lies in this checkout; else where it lay when it was packaged, maybe in another one."""
    with suppress(ValueError, TypeError, KeyError, OSError):  # what is wrong with the task is told by whoever reads it
        here = home() / json.loads(task.read_text(encoding="utf-8"))["base"]
        return here if here.is_file() else noted
    return noted


def _downloaded(version: "ModelVersion") -> Path:
    import mlflow

    # A local store's own folder, with nothing written to it, as MLflow would for a model's name.
    place = mlflow.MlflowClient().get_model_version_download_uri(version.name, version.version)
    named = f"models:/{version.name}/{version.version}"
    return Path(mlflow.artifacts.download_artifacts(place if place.startswith("file:") else named))


def has_files(client: "MlflowClient", version: "ModelVersion") -> bool:
    """Whether the store has a version's files; their content is `verify`'s to look at."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    kept = get_artifact_repository(client.get_model_version_download_uri(version.name, version.version))
    found = {item.path for folder in (None, "artifacts") for item in kept.list_artifacts(folder)}
    return {"MLmodel", "python_env.yaml", "code", "artifacts/delta.safetensors"} <= found


def package_sha256(record: Record) -> str:
    """Hash of what a version holds: delta, pin, task, the code beside them, and the evaluation that it is judged by."""
    place, source = TaskPlace(record.task), Path(__file__).parent
    files = {"delta": record.file(place.delta), "pin": record.pin}
    with tempfile.TemporaryDirectory() as scratch:
        code = {f"code/{path.relative_to(scratch).as_posix()}": path for path in _code(Path(scratch)).rglob("*.py")}
        files |= code | {"model.py": source / "model.py"}
        return _sha256_of(record.resolved(), files, metrics_sha256(record.file(place.metrics)))


def downloaded_sha256(version: "ModelVersion") -> str:
    """`package_sha256` of the files that a version has now."""
    folder = _downloaded(version)
    files, *_ = package_files(version)
    code = {path.relative_to(folder).as_posix(): path for path in (folder / "code").rglob("*.py")}
    task = read_task(files.pop("task"))
    told = version.tags.get("biasline.metrics_sha256", "")
    return _sha256_of(task, {**files, **code, "model.py": folder / "model.py"}, told)


def _sha256_of(task: Task, files: Mapping[str, Path], metrics: str) -> str:
    parts = {
        # What its file says and nothing else: a default that came later changes no package.
        "task": task.model_dump(include={"kind", "load", "tokens", "evaluate"}, exclude_unset=True),
        "files": {name: file_sha256(files[name]) for name in sorted(files)},
        "metrics": metrics,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def metrics_sha256(path: Path) -> str:
    """Hash of a metrics.json; empty where nothing was evaluated."""
    return file_sha256(path) if path.is_file() else ""


def _signature(task: Task) -> "ModelSignature":
    """What the packaged model takes and gives; generation settings are its parameters.

    Columns are of any type, though texts are wanted: of what `inputs` brings, MLflow would make texts for a string
    column, so that a number or a null were answered, and a column of None and NaN, as optional fields come, would break
    it. What is no text is refused by the model itself, which names row and column.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    first, second = KINDS[task.kind].prompt
    further = (second, *KINDS[task.kind].context)
    inputs = Schema([ColSpec(AnyType(), first), *(ColSpec(AnyType(), name, required=False) for name in further)])
    if task.kind == "regression":
        return ModelSignature(inputs, Schema([ColSpec("double", "score")]))
    if task.kind == "classification":
        return ModelSignature(inputs, Schema([ColSpec("string", "label"), ColSpec("double", "probability")]))
    drawn = task.evaluate
    params = ParamSchema(
        [
            ParamSpec("max_new_tokens", "long", drawn.max_new_tokens),
            ParamSpec("temperature", "double", drawn.temperature),
            ParamSpec("top_p", "double", drawn.top_p),
            ParamSpec("seed", "long", drawn.seed),
        ]
    )
    return ModelSignature(inputs, Schema([ColSpec("string")]), params)


def _code(scratch: Path) -> Path:
    """A copy of the part of this package that `model.py` imports."""
    package = Path(__file__).parent.parent
    target = scratch / package.name
    target.mkdir()
    for name in _CODE:
        source = package / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source, target / name)
    return target
