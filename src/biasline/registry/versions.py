"""Versions and aliases: one version per fingerprint, found before it is made, since MLflow would double it."""

import hashlib
import json
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from biasline.bases.match import check_base
from biasline.bases.pin import file_sha256, read_pin
from biasline.bitfit import BiasDelta
from biasline.data.kinds import KINDS
from biasline.errors import BiaslineError
from biasline.layout import TaskPlace, home
from biasline.params import DELTA_METHODS, Task
from biasline.tracking.record import Record
from biasline.tracking.store import store_lock, unless_made_meanwhile

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature
    from mlflow.models.model import ModelInfo

CANDIDATE, CHAMPION, PREVIOUS = "candidate", "champion", "previous"
_SHORTEST_NAME = 4

# What the packaged model needs: libraries, and files and rooms of this package.
_REQUIREMENTS = ("accelerate", "mlflow", "numpy", "polars", "pydantic", "safetensors", "scipy", "torch", "transformers")
_CODE = ("__init__.py", "errors.py", "custom.py", "glue.py", "layout.py", "params.py", "jsonfile.py")
_CODE += ("bases", "bitfit", "data", "tokens", "training", "evaluation", "progress.py")


def model_name(task: str) -> str:
    """Name of a task's registered model."""
    return f"biasline-{task}"


def find_version(
    client: "MlflowClient", task: str, fingerprint: str, package: str | None = None
) -> "ModelVersion | None":
    """The newest registered version of a fingerprint (and package, if given); None where there is none."""
    found = [
        version
        for version in client.search_model_versions(f"name = '{model_name(task)}'")
        if version.tags.get("biasline.fingerprint") == fingerprint
        and package in (None, version.tags.get("biasline.package"))
    ]
    return max(found, key=lambda version: int(version.version), default=None)


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


def named_version(client: "MlflowClient", task: str, run: str) -> "ModelVersion":
    """The newest registered version of a run.

    Args:
        run: a fingerprint or the beginning of one, a run's id or name, or its DVC experiment's name.

    Errors: `BiaslineError` where nothing or more than one run matches.
    """
    if len(run) < _SHORTEST_NAME:
        raise BiaslineError(f"run {run!r}: name {_SHORTEST_NAME} characters at least", "`make ui` shows the names")
    versions = client.search_model_versions(f"name = '{model_name(task)}'")
    matching = [version for version in versions if _is_called(client, version, run)]
    if len({version.run_id for version in matching}) != 1:
        known = ", ".join(version.tags["biasline.fingerprint"] for version in versions) or "none"
        word = "no registered version" if not matching else f"{len(matching)} registered versions"
        raise BiaslineError(f"{model_name(task)}: {word} of a run {run!r}", f"name one of: {known}")
    return max(matching, key=lambda version: int(version.version))


def _is_called(client: "MlflowClient", version: "ModelVersion", run: str) -> bool:
    if version.tags["biasline.fingerprint"].startswith(run) or version.run_id == run:
        return True
    found = client.get_run(version.run_id)
    return run in (found.info.run_name, found.data.tags.get("dvc.experiment"))


def package_files(version: "ModelVersion") -> tuple[dict[str, Path], Path, dict[str, str]]:
    """What a version holds, as `Package.read` takes it.

    Returns: its files by name (`delta`, `pin`, `task`), where its pin lay when it was packaged, and the sha256 of each
    file then.
    """
    import mlflow

    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{version.name}/{version.version}"))
    flavor = mlflow.models.Model.load(str(folder)).flavors["python_function"]
    files = {name: folder / place["path"] for name, place in flavor["artifacts"].items()}
    noted = flavor.get("config") or {}
    return files, Path(noted.get("pin_path", "")), noted.get("sha256", {})


def register_version(client: "MlflowClient", record: Record, run_id: str) -> "ModelVersion":
    """The version of a record's model: packaged, logged to its run and registered unless that was done before.

    A version is named by its fingerprint and by what is packaged with it: the same delta with other generation
    settings, other code or another evaluation is another version, so that what is judged is what is served.

    Errors: `BiaslineError` where the record's delta was trained on another base than its pin names.
    """
    with store_lock():
        package = package_sha256(record)
        found = find_version(client, record.task, record.fingerprint, package)
        if found is not None:
            return found
        place = TaskPlace(record.task)
        model = _log_model(record, run_id)
        name = model_name(record.task)
        if not client.search_registered_models(f"name = '{name}'"):
            with unless_made_meanwhile():
                client.create_registered_model(name, description=f"Bias-only models of the task `{record.task}`.")
        card = record.file(place.card)
        tags = {
            "biasline.fingerprint": record.fingerprint,
            "biasline.package": package,
            "biasline.metrics_sha256": metrics_sha256(record.file(place.metrics)),
            "biasline.delta_sha256": file_sha256(record.file(place.delta)),
            "biasline.test_sha256": (record.read(place.metrics) or {}).get("test_sha256", ""),
            "git.commit": record.lineage.get("git.commit", ""),
        }
        return client.create_model_version(
            name,
            model.model_uri,
            run_id=run_id,
            model_id=model.model_id,  # a server refuses a model's URI without it
            tags={key: value for key, value in tags.items() if value},
            description=_described(client, record, run_id, card),
        )


def _described(client: "MlflowClient", record: Record, run_id: str, card: Path) -> str:
    """The card, below links to the run and the commit."""
    run = client.get_run(run_id)
    commit = record.lineage.get("git.commit", "")
    lines = [
        f"Run [{run.info.run_name}](./#/experiments/{run.info.experiment_id}/runs/{run_id})"
        + (f", commit `{commit}`" if commit else "")
        + f"; `biasline why {record.task}@{record.fingerprint[:8]}` tells all of it.",
        "",
    ]
    return "\n".join(lines) + (card.read_text(encoding="utf-8") if card.is_file() else "")


def point(client: "MlflowClient", task: str, alias: str, version_number: str) -> None:
    """Point an alias at a version, unless it does so already."""
    now = aliased(client, task, alias)
    if now is None or now.version != version_number:
        client.set_registered_model_alias(model_name(task), alias, version_number)


def _log_model(record: Record, run_id: str) -> "ModelInfo":
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
            artifacts={name: str(path) for name, path in files.items()},
            model_config=noted,
            code_paths=[str(_code(Path(scratch)))],
            signature=_signature(task),
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in _REQUIREMENTS],
            metadata={"biasline.fingerprint": record.fingerprint, "biasline.task": record.task},
        )


def package_sha256(record: Record) -> str:
    """Hash of what a version holds: delta, pin, task, the code beside them, and the evaluation that it is judged by."""
    place, package = TaskPlace(record.task), Path(__file__).parent.parent
    task = record.resolved().model_dump(include={"kind", "load", "tokens", "evaluate"})
    code = [package / name for name in _CODE] + [Path(__file__).with_name("model.py")]
    files = [file for path in code for file in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]
    parts = {
        "task": task,
        "files": [file_sha256(path) for path in (record.file(place.delta), record.pin, *files)],
        "metrics": metrics_sha256(record.file(place.metrics)),
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


def registered_note(record: Record) -> dict[str, str | None]:
    """registered.json: name, fingerprint and hash of the delta (None for methods that make none).

    Nothing that differs between two stores.
    """
    delta = record.file(TaskPlace(record.task).delta)
    has_delta = record.resolved().train.method in DELTA_METHODS
    if has_delta and not delta.is_file():
        raise BiaslineError(f"{delta}: not there", f"dvc repro --force train@{record.task}")
    return {
        "name": model_name(record.task),
        "fingerprint": record.fingerprint,
        "delta_sha256": file_sha256(delta) if has_delta else None,
    }
