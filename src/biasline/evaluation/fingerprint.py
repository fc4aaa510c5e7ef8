"""What an evaluation is computed from, as one hash. Equal fingerprints give equal outs on one machine."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

from biasline.bases.pin import file_sha256, read_pin
from biasline.kinds.learning import LEARNINGS
from biasline.kinds.protocols import InData, InExport, InServing, InTokens, InTracking, InTraining, asked_by
from biasline.layout import TaskPlace
from biasline.params import CUSTOM, Task
from biasline.source_code import code_sha256, import_closure
from biasline.training.fingerprint import FLEET, folder_sha256

# Modules that an evaluation imports and that change nothing in its outs: texts of errors, paths, a bar on the screen;
# rooms by which kinds of tasks serve answers and draw pictures of them, which an evaluation never asks for.
_NO_NUMBERS = ("errors", "layout", "progress", "source_code", "serving", "figures")
LIBRARIES = (
    *("torch", "transformers", "tokenizers", "peft", "datasets"),
    *("numpy", "scipy", "polars", "scikit-learn", "sacrebleu", "rapidfuzz"),
)


# What a kind of task says of other stages.
_NOT_IN_EVALUATION = asked_by(InData, InTokens, InTraining, InTracking, InServing, InExport)


def evaluation_modules(kind: str, many: bool = False) -> dict[str, Path]:
    """The modules whose code decides an evaluation's outs: dotted names below the package → files.

    Args:
        kind: of task.
        many: whether the task is a fleet.
    """
    others = [f"kinds.{part}.{name}" for part in ("learning", "answering") for name in LEARNINGS if name != kind]
    without = (*_NO_NUMBERS, *(() if many else FLEET), *others)
    return import_closure(Path(__file__).with_name("evaluate.py"), without=without, uncalled=_NOT_IN_EVALUATION)


def evaluation_code(kind: str, many: bool = False) -> str:
    """Hash of what these modules do; arguments as `evaluation_modules`."""
    return code_sha256(evaluation_modules(kind, many), _NOT_IN_EVALUATION)


def evaluation_fingerprint(task: Task, place: TaskPlace) -> str:
    """16 hex digits over the model, the data in both forms, the base, all parameters, code and library versions.

    Raises:
        BiaslineError: without the base's pin.
    """
    parts = {
        "task": place.task,
        "params": task.model_dump(mode="json", exclude={"run"}),
        "base": read_pin(Path(task.base)).digest,
        "folders": {path.name: folder_sha256(path) for path in (place.clean, place.tokens, place.model)},
        "quality": file_sha256(place.quality) if place.quality.is_file() else "",
        # All of the folder, since a file of metrics may import others and read lists of words.
        "custom": folder_sha256(CUSTOM) if task.evaluate.metrics else "",
        "code": evaluation_code(task.kind, task.tenants.many),
        "versions": {name: version(name).partition("+")[0] for name in LIBRARIES},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
