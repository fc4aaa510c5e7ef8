"""One base in memory that answers for many tasks: their deltas are swapped in place, under a lock."""

import copy
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from biasline.bases.pooling import pools_by_mean
from biasline.errors import BiaslineError
from biasline.kinds.learning import find_learning
from biasline.serving.package import Package
from biasline.serving.predictor import Predictor

Rows = Sequence[dict[str, Any]]


class SharedBase:
    """One base in memory and the deltas of many tasks, applied and reverted as tasks are requested.

    A language model and models with a head share the Transformer itself; what the latter have besides is their head,
    which their delta brings.

    Any number of threads may call `answer`. Requests are served one after the other: a delta must not be swapped while
    another task's rows are in the forward pass.

    Args:
        packages: task → package; all of one base, in one dtype.

    Attributes:
        loads: how often weights were read: once, and once more for each task whose head is the base's own.
        load_s: seconds that took.

    Raises:
        BiaslineError: where two packages are of different bases or dtypes, or one is of a fleet.
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
        for package in self._packages.values():
            package.refuse_fleet("ask it by itself: rows of all of its tenants are answered together")
        started = time.perf_counter()
        folder = self._packages[names[0]].base()
        self.loads = 0
        self._predictors: dict[str, Predictor] = {}
        # Both hold from one `using` to the next; only the holder of the lock reads or writes them.
        self._lock = threading.Lock()
        self._applied: str | None = None
        body: nn.Module | None = None
        # A language model first: any model with a head can stand on its Transformer, not the other way round.
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

    def answer(self, task: str, rows: Rows, params: dict[str, Any] | None = None) -> list[Any]:
        """Answers of a task's model to its rows, see `Predictor`. Safe to call from several threads.

        Args:
            task: one of the packages' names.
            rows: rows of the task's kind.
            params: generation settings that take the place of the task's.

        Raises:
            BiaslineError: for an unknown task, and for rows and params that the predictor refuses.
        """
        with self.using(task) as (predictor, _):
            return predictor(rows, params)

    @contextmanager
    def using(self, task: str) -> Iterator[tuple[Predictor, float]]:
        """The predictor of a task, its delta applied and no other, and the seconds that the swap took.

        It is this thread's alone inside the block and must not be used after it. Blocks do not nest: the lock is not
        reentrant, because an inner block would swap the outer one's delta.

        Raises:
            BiaslineError: for an unknown task.
        """
        if task not in self._packages:
            raise BiaslineError(f"{task}: no such task on this base", f"known are {', '.join(sorted(self._packages))}")
        with self._lock:
            started = time.perf_counter()
            self._swap(task)
            yield self._predictors[task], time.perf_counter() - started

    def _swap(self, task: str) -> None:
        if self._applied == task:
            return
        if self._applied is not None:
            self._packages[self._applied].delta.revert(self._predictors[self._applied].model)
        self._applied = None
        self._packages[task].delta.apply(self._predictors[task].model)
        self._applied = task

    def _standing_on(self, body: nn.Module | None, package: Package) -> Any:
        """A model of the package's kind around a Transformer that is loaded; None where weights have to be read."""
        if body is None:
            return None
        if not package.headed:
            return next(one.model for name, one in self._predictors.items() if not self._packages[name].headed)
        if getattr(body, "pooler", None) is not None and pools_by_mean(body) != package.by_mean:
            return None
        import transformers

        learning = find_learning(package.task.kind)
        config: Any = copy.deepcopy(body.config)
        labels = learning.output_names(package.delta.manifest.labels)
        config.id2label, config.label2id = dict(enumerate(labels)), {name: i for i, name in enumerate(labels)}
        with torch.device("meta"):
            model = getattr(transformers, learning.auto_class).from_config(config)
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


def answer_together(
    packages: Mapping[str, Package], rows: Mapping[str, Rows], report: Callable[[str], None]
) -> Iterator[tuple[str, list[Any]]]:
    """Answers of several tasks, each base loaded once.

    Args:
        packages: task → package, of any bases.
        rows: task → rows of its kind.
        report: called with a line about each load and each swap, and how long it took.

    Returns:
        (task, answers), base by base.
    """
    for group in _by_base(packages):
        base, pin = SharedBase(group), next(iter(group.values())).pin
        often = "once" if base.loads == 1 else f"{base.loads} times (a head of its own has to be read)"
        report(f"{pin.name}: loaded {often} in {base.load_s:.2f} s")
        for task in group:
            with base.using(task) as (predictor, seconds):
                report(f"{task}: {predictor.model.config.model_type} delta swapped in {1000 * seconds:.1f} ms")
                answers = predictor(rows[task])
            yield task, answers


def _by_base(packages: Mapping[str, Package]) -> list[dict[str, Package]]:
    groups: dict[tuple[str, str], dict[str, Package]] = {}
    for task, package in packages.items():
        groups.setdefault((package.pin.digest, package.task.load.model_dump_json()), {})[task] = package
    return list(groups.values())
