"""Packaging: how a model is logged with its code and signature, found in its folder, and identified by a hash."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from ruamel.yaml import YAML

from biasline.bases.match import check_base
from biasline.bases.pin import file_sha256, read_pin
from biasline.bitfit import BiasDelta
from biasline.bitfit.deltas import pack
from biasline.errors import BiaslineError
from biasline.kinds.answering import find_answering
from biasline.kinds.learning import find_learning
from biasline.kinds.protocols import InData, InEvaluation, InExport, InTokens, InTracking, InTraining, Output, asked_by
from biasline.layout import OWN_PACKED, TaskPlace, home, in_project
from biasline.params import Task, read_task
from biasline.serving.predictor import asked_rows
from biasline.source_code import code_sha256, import_closure, module_name
from biasline.tracking.record import Record

if TYPE_CHECKING:
    from mlflow.models import ModelSignature
    from mlflow.models.model import ModelInfo

# What MLflow runs when it loads a packaged model.
_ENTRY = Path(__file__).with_name("pyfunc.py")
_PACKAGE = _ENTRY.parent.parent
# What a kind of task says of anything but its model and its answers: what only that imports is in no package.
_UNSERVED = asked_by(InData, InTokens, InTraining, InEvaluation, InTracking, InExport)
# The libraries that it needs; what it needs of this package is what it imports.
_REQUIREMENTS = ("accelerate", "mlflow", "numpy", "polars", "pydantic", "safetensors", "scipy", "torch", "transformers")


def log_package(record: Record, run_id: str) -> "ModelInfo":
    """Log the pyfunc to the run."""
    import mlflow

    place, task = TaskPlace(record.task), record.resolved()
    delta, pin = BiasDelta.load(record.file(place.delta)), read_pin(record.pin)
    check_base(delta.manifest.base, pin)
    with tempfile.TemporaryDirectory() as scratch, mlflow.start_run(run_id=run_id, log_system_metrics=False):
        files = {**_files(record, Path(scratch)), "task": record.file(place.resolved)}
        hashes = {name: file_sha256(path) for name, path in files.items()}
        noted = {"pin_path": str(home() / task.base), "sha256": hashes}
        return mlflow.pyfunc.log_model(
            name="model",
            python_model=str(_ENTRY),
            artifacts={name: path.as_uri() for name, path in files.items()},  # a plain path would be decoded
            model_config=noted,
            code_paths=[str(_code(Path(scratch)))],
            signature=signature(task),
            input_example=asked_rows(task, pl.read_parquet(record.file(place.predictions)).head(1)),
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in _REQUIREMENTS],
            metadata={"biasline.fingerprint": record.fingerprint, "biasline.task": record.task},
        )


def _files(record: Record, scratch: Path) -> dict[str, Path]:
    """What is packaged of a record beside the task, by name: the deltas of a fleet's tenants as one file."""
    place = TaskPlace(record.task)
    files = {"delta": record.file(place.delta), "pin": record.pin}
    if record.file(place.own).is_dir():
        files["tenants"] = scratch / OWN_PACKED
        pack(record.file(place.own), files["tenants"])
    return files


def files_in(folder: Path) -> tuple[dict[str, Path], Path, dict[str, str]]:
    """What a packaged model's folder holds, as `Package.read` takes it.

    Returns:
        its files by name (`delta`, `pin`, `task`, of a fleet `tenants`), where its base's pin lies, and the sha256 of
        each file when it was packaged.
    """
    flavor = _flavor(folder)
    files = {name: folder / place["path"] for name, place in flavor["artifacts"].items()}
    noted = flavor.get("config") or {}
    return files, _pin_place(files["task"], Path(noted.get("pin_path", ""))), noted.get("sha256", {})


def description_of(folder: Path) -> dict[str, Any]:
    """What a packaged model's `MLmodel` says of how it is loaded, and of what it takes and gives; all as texts.

    Without what is of one store or machine alone: ids, times, where files came from, and versions of what wrote it.
    """
    told, flavor = _described(folder), _flavor(folder)
    return {
        "artifacts": {name: place["path"] for name, place in flavor["artifacts"].items()},
        "sha256": (flavor.get("config") or {}).get("sha256", {}),
        "entry": Path(flavor["model_code_path"]).name,
        **{name: flavor.get(name) for name in ("code", "env", "loader_module", "streamable")},
        "other_flavors": sorted(set(told["flavors"]) - {"python_function"}),
        **{name: told.get(name) for name in ("metadata", "signature")},
    }


def _flavor(folder: Path) -> dict[str, Any]:
    return _described(folder)["flavors"]["python_function"]


def _described(folder: Path) -> dict[str, Any]:
    # Not by MLflow, which would decode a path with a % in it. As texts: a hash of digits and one "e" is no number.
    return YAML(typ="base", pure=True).load((folder / "MLmodel").read_text(encoding="utf-8"))


def _pin_place(task: Path, noted: Path) -> Path:
    """Where a package's pin lies in this checkout; else where it lay when it was packaged, maybe in another one."""
    if not in_project():
        return noted
    with suppress(ValueError, TypeError, KeyError, OSError):  # what is wrong with the task is told by whoever reads it
        here = home() / json.loads(task.read_text(encoding="utf-8"))["base"]
        return here if here.is_file() else noted
    return noted


def packaged_answers(folder: Path, rows: Sequence[dict[str, Any]]) -> list[Any]:
    """Answers of a packaged model, loaded from its folder as MLflow loads it.

    Args:
        folder: a copy of the package, since MLflow notes something beside what it loads; without a % in its path.
        rows: rows of the task's kind.
    """
    import mlflow

    _, pin, _ = files_in(folder)
    model = mlflow.pyfunc.load_model(str(folder), model_config={"pin_path": str(pin)})
    try:
        return list(model.predict(list(rows)))
    except mlflow.MlflowException as error:  # what the model refuses it says so, for servers
        raise BiaslineError(error.message) from None


@cache
def packaged_modules() -> Mapping[str, Path]:
    """The modules of this package that a packaged model runs, its entry point among them: dotted names → files."""
    return import_closure(_ENTRY, uncalled=_UNSERVED)


@cache
def _packaged_code() -> str:
    return code_sha256(packaged_modules())


def package_sha256(record: Record) -> str:
    """Hash of what a version holds: delta, pin, task, what the code beside them does, and its evaluation's metrics."""
    metrics = metrics_sha256(record.file(TaskPlace(record.task).metrics))
    with tempfile.TemporaryDirectory() as scratch:
        return _sha256_of(record.resolved(), _files(record, Path(scratch)), metrics, _packaged_code())


def hashes_of(folder: Path, metrics: str) -> set[str]:
    """What `package_sha256` gives for the files that a packaged model's folder has now.

    Versions that were packaged by earlier code count the bytes of each file of code: so there are two.

    Args:
        folder: the packaged model's.
        metrics: sha256 of the evaluation that it was packaged with; empty where there was none.
    """
    files, *_ = files_in(folder)
    task = read_task(files.pop("task"))
    entry = folder / Path(_flavor(folder)["model_code_path"]).name  # it had another name in earlier versions
    code = {path.relative_to(folder).as_posix(): path for path in (folder / "code").rglob("*.py")}
    found = {_sha256_of(task, {**files, **code, entry.name: entry}, metrics)}
    package = folder / "code" / _PACKAGE.name
    modules = {module_name(path, package): path for path in package.rglob("*.py")}
    with suppress(SyntaxError):  # code that was damaged
        found.add(_sha256_of(task, files, metrics, code_sha256({**modules, module_name(_ENTRY, _PACKAGE): entry})))
    return found


def _sha256_of(task: Task, files: Mapping[str, Path], metrics: str, code: str = "") -> str:
    parts = {
        # What its file says and nothing else: a default that came later changes no package.
        "task": task.model_dump(
            include={"kind", "load", "tokens", "evaluate"} | ({"tenants"} if task.tenants.many else set()),
            exclude_unset=True,
        ),
        "files": {name: file_sha256(files[name]) for name in sorted(files)},
        "metrics": metrics,
        **({"code": code} if code else {}),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def metrics_sha256(path: Path) -> str:
    """Hash of a metrics.json; empty where nothing was evaluated."""
    return file_sha256(path) if path.is_file() else ""


def signature(task: Task) -> "ModelSignature":
    """What the packaged model takes and gives; generation settings are its parameters.

    Columns are of any type, though texts are wanted: of what `inputs` brings, MLflow would make texts for a string
    column, so that a number or a null were answered, and a column of None and NaN, as optional fields come, would break
    it. What is no text is refused by the model itself, which names row and column.
    """
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import AnyType

    learning, outputs = find_learning(task.kind), find_answering(task.kind).outputs
    first, *further = learning.columns.given
    named = [ColSpec(AnyType(), task.tenants.column)] if task.tenants.many else []
    optional = (ColSpec(AnyType(), name, required=False) for name in further)
    inputs = Schema([*named, ColSpec(AnyType(), first), *optional])
    given = Schema([ColSpec(_type_of(told), name) for name, told in outputs.items()] or [ColSpec("string")])
    if learning.headed:
        return ModelSignature(inputs, given)
    drawn = task.evaluate
    params = ParamSchema(
        [
            ParamSpec("max_new_tokens", "long", drawn.max_new_tokens),
            ParamSpec("temperature", "double", drawn.temperature),
            ParamSpec("top_p", "double", drawn.top_p),
            ParamSpec("seed", "long", drawn.seed),
        ]
    )
    return ModelSignature(inputs, given, params)


def _type_of(told: Output) -> Any:
    """MLflow's word for a type that a kind of task tells."""
    from mlflow.types import DataType
    from mlflow.types.schema import Array, Map, Object, Property

    if isinstance(told, list):
        return Array(_type_of(told[0]))
    if isinstance(told, dict):
        return Object([Property(name, _type_of(inner)) for name, inner in told.items()])
    outer, _, inner = told.rpartition(" of ")
    return Map(_type_of(inner)) if outer == "map" else DataType[inner]


def _code(scratch: Path) -> Path:
    """A copy of the part of this package that the entry point imports."""
    target = scratch / _PACKAGE.name
    for source in packaged_modules().values():
        if source != _ENTRY:
            copy = target / source.relative_to(_PACKAGE)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
    return target
