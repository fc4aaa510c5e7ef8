"""The fingerprint: what a training depends on, as one hash. Equal fingerprints give equal deltas on one machine."""

import hashlib
import json
from importlib.metadata import version
from pathlib import Path

from biasline.bases.pin import Pin, file_sha256
from biasline.layout import TaskPlace
from biasline.params import Task, method_spec

# What decides the trained values: `bases` chooses pooling and head.
_ROOMS = ("bases", "bitfit", "training")


def folder_sha256(folder: Path, pattern: str = "*") -> str:
    """Hash over the names and contents of a folder's files, in name order."""
    files = sorted(path for path in folder.rglob(pattern) if path.is_file())
    listed = [(path.relative_to(folder).as_posix(), file_sha256(path)) for path in files]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


def fingerprint(task: Task, pin: Pin, place: TaskPlace) -> str:
    """16 hex digits over base pin, token sets, resolved train parameters, code and library versions."""
    package = Path(__file__).parent.parent
    libraries = ["torch", "transformers", *method_spec(task.train.method).libraries]
    parts = {
        "base": pin.digest,
        "tokens": folder_sha256(place.tokens),
        "train": task.train.model_dump(exclude=task.train.unused),
        "load": task.load.model_dump(),
        "code": {room: folder_sha256(package / room, "*.py") for room in _ROOMS},
        "versions": {name: version(name).partition("+")[0] for name in libraries},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
