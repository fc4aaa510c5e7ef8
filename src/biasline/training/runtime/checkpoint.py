"""Checkpoints: what a training needs to go on after a crash, and nothing of the frozen base.

A checkpoint is one safetensors file, so kilobytes for biases: the trained values, the optimizer's state, the values to
keep so far, the step and the history as JSON, and in its header a hash of it all. What rows come next and what dropout
draws follows from the seed and the step. A run that goes on from one ends with the same bytes as one that was never
stopped. The last one of a training that is finished stays until DVC has its outs.
"""

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from biasline.errors import BiaslineError, first_line, shown
from biasline.jsonfile import load_json
from biasline.layout import TaskPlace, checkpoints
from biasline.training.ranks import of_first, tensors_of_first

_FORMAT = 2
# The state lies among the tensors: a header may not hold more than 100 MB.
_STATE = "state"
# A process that was told to end may need a moment.
_PATIENCE_S = 5.0
# The newest may be damaged: then the one before it is gone on from. Of a finished training one will do.
_KEPT, _KEPT_AT_LAST = 2, 1
# Full tuning writes gigabytes: so many times as long it computes in between.
_SHARE = 100


@dataclass(frozen=True)
class Snapshot:
    """A training between two steps.

    Attributes:
        step: optimizer steps done.
        state: what JSON holds exactly: numbers, texts, lists.
        tensors: name → values.
        finished: no step follows.
    """

    step: int
    state: dict[str, Any]
    tensors: dict[str, torch.Tensor]
    finished: bool = False


class Checkpoints:
    """The checkpoints of one training.

    Args:
        folder: where they lie; made when the first is written.
        fingerprint: of the training; a checkpoint of another is set aside.
        every: seconds between two of them, 0 for one after each step; more where they would take over a hundredth of
            the time.
    """

    def __init__(self, folder: Path, fingerprint: str, every: float = 0.0) -> None:
        self.folder, self.fingerprint, self.every = folder, fingerprint, every
        self._lock_file = folder.with_suffix(".lock")
        self._last, self._took, self._told = time.monotonic(), 0.0, False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others away from these checkpoints; where nothing can be written, there is nothing to keep them from.

        Raises:
            BiaslineError: where another process, of whichever task, trains under this fingerprint.
        """
        lock = FileLock(self._lock_file)
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=_PATIENCE_S)
        except Timeout:
            raise BiaslineError(
                f"another process is training this very model (fingerprint {self.fingerprint})",
                "wait for it, or stop it",
            ) from None
        except OSError:
            yield
            return
        try:
            yield
        finally:
            lock.release()

    @property
    def due(self) -> bool:
        """Whether it is time for the next one; a slow disk makes them rarer."""
        return time.monotonic() - self._last >= max(self.every, _SHARE * self._took if self.every else 0)

    def newest(self, like: Mapping[str, torch.Tensor]) -> Snapshot | None:
        """The newest whole checkpoint; none if there is none. What cannot be gone on from is set aside and told.

        Args:
            like: tensors that it must have, in these shapes and types.
        """
        for path in sorted(self.folder.glob("step-*.safetensors"), reverse=True):
            try:
                return self._read(path, like)
            except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
                aside = path.with_suffix(".set-aside")
                print(
                    f"warning: {shown(path)}: not gone on from ({first_line(error)}); set aside as {aside.name}",
                    file=sys.stderr,
                )
                with suppress(OSError):  # it stays where it is, then
                    path.replace(aside)
        return None

    def newest_of_first(self, accelerator: Accelerator, like: Mapping[str, torch.Tensor]) -> Snapshot | None:
        """The newest one that the first process finds, in every process: the others need not see its disk."""
        found = self.newest(like) if accelerator.is_main_process else None
        about = of_first(accelerator, lambda: found and replace(found, tensors={}))
        return about and replace(about, tensors=tensors_of_first(accelerator, found.tensors if found else {}))

    def save(self, snapshot: Snapshot) -> None:
        """Write a checkpoint, whole or not at all. A disk that is full is told once, and training goes on."""
        began = time.monotonic()
        tensors = {name: values.detach().to("cpu").contiguous() for name, values in snapshot.tensors.items()}
        state = {"format": _FORMAT, "fingerprint": self.fingerprint, "step": snapshot.step, **snapshot.state}
        state["finished"] = snapshot.finished
        tensors[_STATE] = torch.frombuffer(bytearray(json.dumps(state), "utf-8"), dtype=torch.uint8)
        draft = self.folder / ".draft"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as file:
                file.write(save(tensors, {"sha256": _sha256(tensors)}))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.folder / f"step-{snapshot.step:08}.safetensors")
            _flush_folder(self.folder)
            least = _KEPT_AT_LAST if snapshot.finished else _KEPT
            for old in sorted(self.folder.glob("step-*.safetensors"))[:-least]:
                old.unlink()
        except OSError as error:
            if not self._told:
                print(f"warning: {shown(self.folder)}: no checkpoint written ({error.strerror})", file=sys.stderr)
            self._told = True
            with suppress(OSError):
                draft.unlink()
        self._last = time.monotonic()
        self._took = self._last - began

    def clear(self) -> None:
        """The training is over and DVC has its outs: nothing of it is needed any more, unless it is made again now."""
        if not self.folder.exists():
            return
        with suppress(OSError, Timeout), FileLock(self._lock_file, timeout=0):  # what cannot be deleted does no harm
            for path in self.folder.glob("*"):
                path.unlink()
            self.folder.rmdir()
            self._lock_file.unlink()

    def _read(self, path: Path, like: Mapping[str, torch.Tensor]) -> Snapshot:
        with safe_open(path, framework="pt") as file:
            header = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        if _sha256(tensors) != header["sha256"]:
            raise ValueError("it is damaged")
        found = json.loads(tensors.pop(_STATE).numpy().tobytes())
        if found.pop("format") != _FORMAT:
            raise ValueError("another version of Biasline wrote it")
        if (whose := found.pop("fingerprint")) != self.fingerprint:
            raise ValueError(f"it is of the training {whose}")
        for name, values in like.items():
            if tensors[name].shape != values.shape or tensors[name].dtype != values.dtype:
                raise ValueError(f"{name} has the shape {list(tensors[name].shape)}, not {list(values.shape)}")
        return Snapshot(found.pop("step"), found, tensors, found.pop("finished"))


def clear_checkpoints(place: TaskPlace) -> None:
    """Delete the checkpoints of the training that made the workspace's model.

    For the stage that comes after training: DVC begins it once it has what training made, so that nothing needs them
    any more.

    Raises:
        BiaslineError: where nothing was trained.
    """
    fingerprint = load_json(place.train_report, f"dvc repro train@{place.task}")["fingerprint"]
    Checkpoints(checkpoints() / fingerprint, fingerprint).clear()


def _flush_folder(folder: Path) -> None:
    """Have the disk know the new name, where the system can be asked for that."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _sha256(tensors: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name]
        digest.update(f"{name} {values.dtype} {list(values.shape)}".encode())
        digest.update(values.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
