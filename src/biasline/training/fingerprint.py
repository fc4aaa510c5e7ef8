"""The fingerprint: what a training depends on, as one hash. Equal fingerprints give equal deltas on one machine."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path

from biasline.bases.pin import Pin, file_sha256
from biasline.kinds.learning import LEARNINGS
from biasline.kinds.protocols import InData, InEvaluation, InExport, InServing, InTokens, InTracking, asked_by
from biasline.layout import TaskPlace
from biasline.params import METHOD_SPECS, Task, method_spec
from biasline.source_code import code_sha256, import_closure

# Modules that a training imports and that decide no number: what they give is part of the fingerprint (parameters), or
# they refuse, tell errors and progress, find modules, read and write JSON, know paths, or keep a training from harm.
_NO_NUMBERS = (
    "bitfit.engines",
    "declared",
    "errors",
    "jsonfile",
    "layout",
    "params",
    "progress",
    "source_code",
    "training.fingerprint",
    "training.runtime",
)

# What serves and trains many deltas at once, which the training and the evaluation of one does not use.
FLEET = (
    *("bitfit.bank", "bitfit.bank_tuning", "bitfit.deltas", "bitfit.rowwise", "bitfit.tenants"),
    *("params.tenants", "training.fleet", "training.own", "evaluation.tenants"),
)

# What a kind of task says of other stages: what token sets were made by is seen in them.
NOT_IN_TRAINING = asked_by(InData, InTokens, InEvaluation, InTracking, InServing, InExport)


def folder_sha256(folder: Path) -> str:
    """Hash over the names and contents of a folder's files, in name order; not of what Python writes beside them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    listed = [(path.relative_to(folder).as_posix(), file_sha256(path)) for path in files]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


@cache
def training_modules(method: str, kind: str, many: bool = False) -> Mapping[str, Path]:
    """The modules whose code decides what a method trains on a kind of task: dotted names below the package → files.

    Args:
        method: of training.
        kind: of task.
        many: whether the task is a fleet.
    """
    others = [f"training.methods.{name}" for name in METHOD_SPECS if name != method]
    others += [f"kinds.learning.{name}" for name in LEARNINGS if name != kind]
    without = (*_NO_NUMBERS, *(() if many else FLEET), *others)
    return import_closure(Path(__file__).with_name("train.py"), without=without, uncalled=NOT_IN_TRAINING)


@cache
def _code(method: str, kind: str, many: bool) -> str:
    return code_sha256(training_modules(method, kind, many), NOT_IN_TRAINING)


def fingerprint(task: Task, pin: Pin, place: TaskPlace, shared: Path | None = None) -> str:
    """16 hex digits over base pin, token sets, resolved train parameters, code and library versions.

    Args:
        task: the resolved task.
        pin: of the base.
        place: where its tokens lie.
        shared: of a fleet that keeps its shared delta, the folder that holds it, laid out as the task's own.
    """
    libraries = ["torch", "transformers", *method_spec(task.train.method).libraries]
    parts = {
        "base": pin.digest,
        "tokens": folder_sha256(place.tokens),
        "train": task.train.numbers(),
        "load": task.load.model_dump(),
        "code": _code(task.train.method, task.kind, task.tenants.many),
        **({"tenants": task.tenants.model_dump(exclude={"unknown", "max_failed"})} if task.tenants.many else {}),
        "versions": {name: version(name).partition("+")[0] for name in libraries},
    }
    if shared is not None:
        parts["shared"] = file_sha256(shared / place.delta.relative_to(place.folder))
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
