"""Training one cell with the product's own loop, and what the product has no parameter for around it."""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.nn import functional

from benchmarks.machine import machine
from benchmarks.study.cells import CHANGES, Cell, Change
from benchmarks.study.rows import task
from biasline.bases.pin import verified_folder
from biasline.bitfit import BiasTuning
from biasline.evaluation.heads import head_outputs
from biasline.kinds.learning import find_learning
from biasline.layout import TaskPlace
from biasline.tokens.saved import read_summary, read_token_set
from biasline.training.batches import Plan
from biasline.training.head_start import start_head
from biasline.training.loop import Sets, fit
from biasline.training.loss import Batch, ClassLabels
from biasline.training.methods import Tuning, prepare_model
from biasline.training.prepare import prepare
from biasline.training.rates import resolve_learning_rates

_RANGES = 15


class Altered:
    """A tuning whose steps are longer or shorter for some roles, and that may keep a running mean of its values."""

    def __init__(self, tuning: Tuning, change: Change) -> None:
        self._tuning, self._average = tuning, change.average
        self._before = [master.detach().clone() for master in tuning.masters]
        self.mean = [master.detach().clone() for master in tuning.masters]
        self._steps = 0
        self._factors: list[torch.Tensor] = []
        if change.rates:
            assert isinstance(tuning, BiasTuning)
            sizes = [torch.full((entry.count,), change.rates.get(entry.role, 1.0)) for entry in tuning.selection.biases]
            self._factors = [torch.cat(sizes)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tuning, name)

    @torch.no_grad()
    def write(self) -> None:
        """As the tuning does, with the step that was just made changed."""
        masters = self._tuning.masters
        for master, before, factor in zip(masters, self._before, self._factors, strict=False):
            master.copy_(before + factor * (master - before))
        self._steps += 1
        decay = min(self._average, (1 + self._steps) / (10 + self._steps))
        for master, before, mean in zip(masters, self._before, self.mean, strict=True):
            before.copy_(master)
            mean.mul_(decay).add_(master, alpha=1 - decay)
        self._tuning.write()

    @torch.no_grad()
    def take_mean(self) -> None:
        """The running mean is what was trained."""
        for master, mean in zip(self._tuning.masters, self.mean, strict=True):
            master.copy_(mean)
        self._tuning.write()


class Smoothed(ClassLabels):
    """Labels that are right to some degree only, in training."""

    smoothing = 0.1

    def losses(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The loss of each row."""
        logits = model(**batch.inputs).logits.float()
        return functional.cross_entropy(logits, batch.labels, reduction="none", label_smoothing=self.smoothing)


def trained(cell: Cell) -> dict[str, Any]:
    """Train in the folder of the cell's rows; what the judging rows say."""
    change, asked, place = CHANGES[cell.change], task(cell.train), TaskPlace("x")
    torch.set_num_threads(asked.train.threads)
    pin, folder = verified_folder(Path(asked.base))
    summary, learning = read_summary(place), find_learning(asked.kind)
    model, head = learning.load(pin, folder, asked.load, asked.train, summary["labels"])
    rows, valid, judges = (read_token_set(place, split) for split in ("train", "valid", "test"))
    pad = model.config.pad_token_id
    objective = Smoothed() if change.smoothing else learning.objective(asked.train, summary, rows)
    sets = Sets(rows, valid, objective, pad)
    began = time.monotonic()
    if asked.train.head_start == "fitted":
        for name, value in start_head(model, head, sets, change.head).items():
            model.get_parameter(name).data.copy_(value)
    alone = told(model, judges, pad)
    settings = resolve_learning_rates(asked.train, model)
    prepared = prepare_model(model, head, settings)
    if not change.dropout:
        for module in prepared.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
    accelerator = Accelerator(cpu=True)
    prepare(prepared.model, prepared.tuning.masters, asked.run, accelerator)
    tuning = Altered(prepared.tuning, change) if change.rates or change.average else prepared.tuning
    plan = Plan.of(len(rows), settings)
    history = fit(prepared.model, tuning, plan, sets, settings, lambda *_: None, accelerator=accelerator)
    if change.average:
        tuning.take_mean()
    seconds = time.monotonic() - began
    looks = [
        {"step": row["step"], "loss": row["valid_loss"], "accuracy": row["valid_accuracy"]}
        for row in history.rows
        if row["valid_loss"] is not None
    ]
    return {
        **told(prepared.model, judges, pad),
        "alone": {name: value for name, value in alone.items() if name != "right"},
        "trainable": prepared.trainable,
        "steps": plan.total_steps,
        "kept_step": history.best_step,
        "looks": looks,
        "seconds": round(seconds, 1),
        "rows": {"train": len(rows), "valid": len(valid), "judges": len(judges)},
        "change": asdict(change),
        "train": cell.train,
        "machine": machine("torch", "transformers", "peft"),
    }


def told(model: Any, judges: Any, pad: int) -> Mapping[str, Any]:
    """Accuracy, Matthews correlation, mean loss and calibration error on the judging rows, and which are right."""
    from sklearn.metrics import matthews_corrcoef

    rows = judges.to_list()
    chances = torch.from_numpy(head_outputs(model.eval(), rows, pad, 64)).double().softmax(-1).numpy()
    labels = np.array([row["labels"] for row in rows])
    given, sure = chances.argmax(-1), chances.max(-1)
    right = given == labels
    places = np.minimum((sure * _RANGES).astype(int), _RANGES - 1)
    gaps = [abs(float((right[places == one] - sure[places == one]).sum())) for one in range(_RANGES)]
    return {
        "accuracy": float(right.mean()),
        "matthews": float(matthews_corrcoef(labels, given)),
        "loss": float(-np.log(chances[np.arange(len(labels)), labels].clip(1e-12)).mean()),
        "calibration_error": sum(gaps) / len(labels),
        "right": np.packbits(right).tobytes().hex(),
    }
