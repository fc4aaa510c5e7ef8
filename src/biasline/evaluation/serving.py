"""From packaged files to answers: one task on a base of its own, or many tasks on one base."""

import copy
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from biasline.bases.load import best_device, load_causal_lm, load_classifier
from biasline.bases.match import check_base
from biasline.bases.pin import Pin, file_sha256, locate, verify
from biasline.bases.pooling import pools_by_mean
from biasline.bitfit import BiasDelta
from biasline.errors import BiaslineError, shown
from biasline.evaluation.predict import Predictor
from biasline.params import Task, read_task

_DIGEST = 16


@dataclass(frozen=True)
class Package:
    """What a registered version holds: the task, its delta, and the pin of the base.

    Attributes:
        pin_path: where the pin lay when it was packaged; a base in a folder beside it is found from there.
    """

    task: Task
    delta: BiasDelta
    pin: Pin
    pin_path: Path

    @classmethod
    def read(cls, artifacts: Mapping[str, Path], pin_path: Path, sha256: Mapping[str, str] | None = None) -> "Package":
        """From the files called `task`, `delta` and `pin`.

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
        return cls(read_task(artifacts["task"]), delta, pin, pin_path)

    def base(self) -> Path:
        """The base's folder, held against the pin."""
        folder = locate(self.pin, self.pin_path)
        verify(self.pin, folder)
        return folder

    @property
    def headed(self) -> bool:
        """Whether it has a head of its own, not that of a language model."""
        return self.task.kind != "instruction"

    @property
    def by_mean(self) -> bool:
        """Whether its head was trained on a mean over the tokens."""
        return self.delta.manifest.about.get("pooling") == "mean"

    def load(self, folder: Path) -> Any:
        """The base as the kind of model that the task wants, without the delta."""
        task, labels = self.task, self.delta.manifest.labels
        if self.headed:
            chosen = task.train
            pooling = "mean" if self.by_mean else "model"
            model, _ = load_classifier(self.pin, folder, task.load, labels, chosen.seed, chosen.head, pooling=pooling)
        else:
            model = load_causal_lm(self.pin, folder, task.load)
        return model.to(best_device())

    def predictor(self) -> Predictor:
        """The base with the delta applied."""
        folder = self.base()
        model = self.load(folder)
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


class SharedBase:
    """One base in memory and the deltas of many tasks, put on and taken off as tasks are asked.

    A language model and classifiers share the Transformer itself; what a classifier has besides is its head, which
    its delta brings.

    Args:
        packages: task → package; all of one base, in one dtype.

    Attributes:
        loads: how often weights were read: once, and once more for each task whose head is the base's own.
        load_s: seconds that took.
    """

    def __init__(self, packages: Mapping[str, Package]) -> None:
        self._packages = dict(packages)
        names = list(self._packages)
        for name in names[1:]:
            one, other = self._packages[names[0]], self._packages[name]
            if (one.pin.digest, one.task.load) != (other.pin.digest, other.task.load):
                raise BiaslineError(
                    f"{name}: its base is {other.pin.name} in {other.task.load.dtype}, that of {names[0]} is "
                    f"{one.pin.name} in {one.task.load.dtype}",
                    "ask tasks of one base together",
                )
        started = time.perf_counter()
        folder = self._packages[names[0]].base()
        self.loads = 0
        self._predictors: dict[str, Predictor] = {}
        self._on: str | None = None
        body: nn.Module | None = None
        # A language model first: any classifier can stand on its Transformer, not the other way round.
        for name in sorted(names, key=lambda name: self._packages[name].headed):
            package = self._packages[name]
            model = self._standing_on(body, package)
            if model is None:
                model = package.load(folder)
                self.loads += 1
                if body is None:
                    body = model.base_model
            self._predictors[name] = Predictor.of(package.task, package.delta.manifest, model, package.pin, folder)
        self.load_s = time.perf_counter() - started

    def ask(self, task: str) -> tuple[Predictor, float]:
        """The predictor of a task, its delta in place and no other, and the seconds that the swap took."""
        started = time.perf_counter()
        if self._on != task:
            if self._on is not None:
                self._packages[self._on].delta.revert(self._predictors[self._on].model)
            self._on = None
            self._packages[task].delta.apply(self._predictors[task].model)
            self._on = task
        return self._predictors[task], time.perf_counter() - started

    def _standing_on(self, body: nn.Module | None, package: Package) -> Any:
        """A model of the package's kind around a Transformer that is loaded; None where weights have to be read."""
        if body is None:
            return None
        if not package.headed:
            return next(one.model for name, one in self._predictors.items() if not self._packages[name].headed)
        if getattr(body, "pooler", None) is not None and pools_by_mean(body) != package.by_mean:
            return None
        from transformers import AutoModelForSequenceClassification

        config: Any = copy.deepcopy(body.config)
        labels = package.delta.manifest.labels or ["score"]
        config.id2label, config.label2id = dict(enumerate(labels)), {name: i for i, name in enumerate(labels)}
        with torch.device("meta"):
            model = AutoModelForSequenceClassification.from_config(config)
        if type(model.base_model) is not type(body):
            return None
        if (getattr(model.base_model, "pooler", None) is None) != (getattr(body, "pooler", None) is None):
            return None
        setattr(model, model.base_model_prefix, body)
        own = [name for name, part in model.named_parameters() if part.is_meta]
        if not set(own) <= set(package.delta.manifest.head):
            return None
        reference = next(body.parameters())
        for name in own:
            path, _, attribute = name.rpartition(".")
            zeros = torch.zeros_like(model.get_parameter(name), device=reference.device, dtype=reference.dtype)
            setattr(model.get_submodule(path), attribute, nn.Parameter(zeros, requires_grad=False))
        return model.eval()
