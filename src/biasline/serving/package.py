"""What a registered version holds, read from its files: task, delta and the pin of the base. Loads models of it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from biasline.bases.load import best_device, placed
from biasline.bases.match import check_base
from biasline.bases.pin import Pin, file_sha256, locate, verify
from biasline.bitfit import BiasDelta, Deltas, Tenants
from biasline.errors import BiaslineError, shown
from biasline.kinds.learning import find_learning
from biasline.params import Task, read_task
from biasline.serving.predictor import Predictor

_DIGEST = 16


@dataclass(frozen=True)
class Package:
    """What a registered version holds: the task, its delta, and the pin of the base.

    Attributes:
        pin_path: where the pin lay when it was packaged; a base in a folder beside it is found from there.
        tenants: of a fleet, whose deltas are whose; `delta` is the one that they share.
    """

    task: Task
    delta: BiasDelta
    pin: Pin
    pin_path: Path
    tenants: Deltas | None = None

    @classmethod
    def read(cls, artifacts: Mapping[str, Path], pin_path: Path, sha256: Mapping[str, str] | None = None) -> "Package":
        """From the files called `task`, `delta` and `pin`, and of a fleet `tenants`.

        Args:
            artifacts: the files by these names.
            pin_path: where the pin lay when it was packaged: a hint for the machine that packaged it alone.
            sha256: of each file by its name, as noted when it was packaged; versions from before that have none.

        Raises:
            BiaslineError: naming the first file that is missing or is not what was packaged, or where the delta belongs
                to another base.
        """
        for name, expected in (sha256 or {}).items():
            _check_packaged(name, artifacts[name], expected)
        pin = Pin.model_validate(json.loads(artifacts["pin"].read_text(encoding="utf-8")))
        delta = BiasDelta.load(artifacts["delta"])
        check_base(delta.manifest.base, pin)
        tenants = Deltas(artifacts["tenants"]) if "tenants" in artifacts else None
        return cls(read_task(artifacts["task"]), delta, pin, pin_path, tenants)

    def base(self) -> Path:
        """The base's folder, held against the pin."""
        folder = locate(self.pin, self.pin_path)
        verify(self.pin, folder)
        return folder

    def refuse_fleet(self, way_out: str) -> None:
        """For what knows a single delta.

        Raises:
            BiaslineError: where the package is of a fleet.
        """
        if self.tenants is not None:
            raise BiaslineError(f"a fleet of {len(self.tenants)} tenants, each with a delta of its own", way_out)

    @property
    def headed(self) -> bool:
        """Whether it has a head of its own, not that of a language model."""
        return find_learning(self.task.kind).headed

    @property
    def by_mean(self) -> bool:
        """Whether its head was trained on a mean over the tokens."""
        return self.delta.manifest.about.get("pooling") == "mean"

    def load(self, folder: Path) -> Any:
        """The base as the kind of model that the task wants, without the delta."""
        task, labels = self.task, self.delta.manifest.labels
        # As it was trained, whatever `auto` would choose now.
        train = task.train.model_copy(update={"pooling": "mean" if self.by_mean else "model"})
        model, _ = find_learning(task.kind).load(self.pin, folder, task.load, train, labels)
        return placed(model, best_device())

    def predictor(self, unknown: bool = False) -> Predictor:
        """The base with the delta applied; of a fleet, with those that rows ask for.

        Args:
            unknown: whether the shared delta answers for tenants that are not known, whatever `tenants.unknown` says.
        """
        folder = self.base()
        model = self.load(folder)
        if self.tenants is not None:
            lenient = unknown or self.task.tenants.unknown == "shared"
            tenants = Tenants(model, self.delta, self.tenants, unknown=lenient)
            return Predictor.of(self.task, self.delta.manifest, model, self.pin, folder, tenants)
        self.delta.apply(model)
        return Predictor.of(self.task, self.delta.manifest, model, self.pin, folder)


def _check_packaged(name: str, path: Path, expected: str) -> None:
    """Hold one file against what was noted of it: a delta checks itself, a task and a pin do not."""
    way_out = "restore the model's artifacts, or take another version"
    if not path.is_file():
        raise BiaslineError(f"{shown(path)}: the packaged {name} is missing", way_out)
    if (found := file_sha256(path)) != expected:
        raise BiaslineError(
            f"{shown(path)}: the packaged {name} has sha256 {found[:_DIGEST]}, packaged was {expected[:_DIGEST]}",
            way_out,
        )
