"""Answers of the untuned base, kept: they depend on the base, the rows and the settings, and on no training."""

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from biasline.bases.pin import Pin
from biasline.evaluation.fingerprint import LIBRARIES, evaluation_code
from biasline.evaluation.generate import Answer, Drawing
from biasline.layout import in_project, local_state, write_text
from biasline.params import Task


@dataclass(frozen=True)
class Said:
    """What a model says to test rows.

    Attributes:
        answers: of each row.
        nll, tokens, hits: of the right answer of each row of the token set, as `score_likelihood` gives them.
    """

    answers: list[Answer]
    nll: np.ndarray
    tokens: np.ndarray
    hits: np.ndarray


def key_of(
    task: Task,
    pin: Pin,
    device: torch.device,
    prompts: Sequence[Sequence[int]],
    columns: Mapping[str, Sequence[Any]],
    stops: Sequence[int],
) -> str:
    """A hash over all that an untuned base's answers come from.

    Args:
        task: whose evaluation it is.
        pin: of the base.
        device: where it runs.
        prompts: tokens of each question.
        columns: the token set's `row`, `input_ids` and `labels`.
        stops: tokens that end an answer.
    """
    parts = {
        "base": [pin.digest, pin.tokenizer_class],
        "load": task.load.model_dump(mode="json"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "machine": [platform.machine(), torch.backends.cpu.get_cpu_capability()],
        "threads": torch.get_num_threads(),
        "drawing": asdict(Drawing.of(task.evaluate)),
        "batch_size": task.evaluate.batch_size,
        "stops": list(stops),
        "prompts": list(prompts),
        "columns": {name: list(columns[name]) for name in ("row", "input_ids", "labels")},
        "code": evaluation_code(task.kind),
        "versions": {name: version(name) for name in LIBRARIES},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def recalled(key: str) -> Said | None:
    """What a base said before, asked the same; None where it was not, or what was kept is damaged."""
    if not in_project():
        return None
    try:
        told = json.loads(_path(key).read_text(encoding="utf-8"))
        answers = [Answer(str(text), bool(ended)) for text, ended in told["answers"]]
        nll = np.array(told["nll"], dtype=np.float64)
        tokens, hits = (np.array(told[name], dtype=np.int64) for name in ("tokens", "hits"))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Said(answers, nll, tokens, hits) if len(nll) == len(tokens) == len(hits) else None


def keep(key: str, said: Said) -> None:
    """Keep what a base said, below the project's local state; outside of a project nothing is kept."""
    if not in_project():
        return
    told = {"answers": said.answers}
    told |= {name: getattr(said, name).tolist() for name in ("nll", "tokens", "hits")}
    _path(key).parent.mkdir(parents=True, exist_ok=True)
    write_text(_path(key), json.dumps(told) + "\n")


def _path(key: str) -> Path:
    return local_state() / "untuned" / f"{key}.json"
