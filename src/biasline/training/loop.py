"""The training loop, top to bottom on one screen.

Ours rather than a Trainer's, so that three things are in plain sight: the loss is normalised by the supervised tokens
of the whole step, logits exist at supervised positions only, and the optimizer sees nothing but what the method trains.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from biasline.errors import BiaslineError
from biasline.params import Train
from biasline.training.batches import Plan, learning_rate_factor
from biasline.training.loss import Batch, Objective
from biasline.training.methods import Tuning
from biasline.training.validation import Keeper, look_at

LOG_EVERY = 10

Report = Callable[[int, dict[str, float]], None]


@dataclass
class History:
    """What training went through.

    Attributes:
        rows: one dict per logged step: step, epoch, tokens and targets so far, loss, learning_rate, grad_norm (and per
            role, as of that step), valid_loss and, of labels, valid_accuracy (or None).
        best_step: the step whose values were kept.
        best_loss: their validation loss; None without a validation set.
        tokens: of all rows that a step was made of, without padding.
        targets: what the loss was taken over, in all: supervised tokens, or labelled rows.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    best_step: int = 0
    best_loss: float | None = None
    tokens: int = 0
    targets: int = 0


@dataclass(frozen=True)
class Sets:
    """What is trained on.

    Attributes:
        train, valid: token sets with `row`, `input_ids`, `labels`; `valid` may be empty.
        objective: what the loss is taken over.
        pad: token id to pad with.
    """

    train: Any
    valid: Any
    objective: Objective
    pad: int


def fit(model: nn.Module, tuning: Tuning, plan: Plan, sets: Sets, params: Train, report: Report) -> History:
    """Train what `tuning` holds; it ends with the kept values, written into the model.

    Args:
        model: the base, frozen but for what `tuning` trains.
        plan: which rows make which step.
        sets: training and validation rows.
        report: called with (step, metrics) whenever a row of history is written.

    Errors: `BiaslineError` where the loss is not finite, naming the rows of the batch.
    """
    accelerator = Accelerator()
    torch.manual_seed(params.seed)
    model = model.to(accelerator.device)
    tuning.to(accelerator.device)
    masters = [master for group in tuning.groups for master in group]
    # No weight decay: biases are trained in absolute values, and decay would pull them to zero.
    peaks = [params.learning_rate, params.head_learning_rate]
    groups = [{"params": group, "peak": peak} for group, peak in zip(tuning.groups, peaks, strict=True) if group]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    history, best, window = History(), _copies(masters), _Window()
    keeper, size = Keeper(accelerator, params.keep == "last"), params.micro_batch_size
    model.train()

    for step in range(plan.total_steps):
        optimizer.zero_grad()
        examples = sets.train[plan.indices(step)]
        batches = _micro_batches(examples, sets, size, accelerator)
        step_targets = sets.objective.targets(examples)
        if step == 0 and batches:
            sets.objective.check(model, batches[0])
        for batch in batches:
            loss = sets.objective.losses(model, batch).sum() / step_targets
            if not torch.isfinite(loss):
                raise BiaslineError(
                    f"step {step + 1}: the loss is {loss.item()} on the rows {', '.join(map(str, batch.rows))}",
                    "lower train.learning_rate, or look at those rows",
                )
            accelerator.backward(loss)
            window.loss += loss.item()
        tuning.collect()
        for master in masters:
            master.grad = accelerator.reduce(master.grad, "sum")
        norm = nn.utils.clip_grad_norm_(masters, params.max_grad_norm)
        factor = learning_rate_factor(step, plan.total_steps, params.warmup, params.schedule)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        optimizer.step()
        tuning.write()
        history.targets += step_targets
        history.tokens += sum(map(len, examples["input_ids"]))
        window.steps += 1

        done = step + 1
        last = done == plan.total_steps
        look = len(sets.valid) > 0 and (last or done % params.evaluate_every == 0)
        if look:
            seen = look_at(model, sets.objective, _micro_batches(sets.valid[:], sets, size, accelerator), accelerator)
            if not math.isfinite(seen.loss):
                raise BiaslineError(f"step {done}: the validation loss is {seen.loss}", "lower train.learning_rate")
            if keeper.keeps(seen):
                history.best_step, history.best_loss, best = done, seen.loss, _copies(masters)
            last |= 0 < params.patience <= keeper.waited and done >= params.min_steps
        if last or look or done % LOG_EVERY == 0:
            row = {
                "step": done,
                "epoch": plan.epoch(done),
                "tokens": history.tokens,
                "targets": history.targets,
                "loss": float(accelerator.reduce(torch.tensor(window.loss, device=accelerator.device))) / window.steps,
                "learning_rate": params.learning_rate * factor,
                "grad_norm": float(norm),
                "valid_loss": seen.loss if look else None,
            }
            if sets.objective.labelled:
                row["valid_accuracy"] = seen.accuracy if look else None
            row |= {f"grad_norm.{role}": value for role, value in tuning.gradient_norms().items()}
            history.rows.append(row)
            report(done, {key: value for key, value in row.items() if value is not None and key != "step"})
            window = _Window()
        if last:
            break

    if history.best_loss is None:
        history.best_step, best = done, _copies(masters)
    for master, values in zip(masters, best, strict=True):
        master.data.copy_(values)
    tuning.write()
    model.eval()
    return history


def _copies(masters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [master.detach().clone() for master in masters]


@dataclass
class _Window:
    """Losses since the last row of history."""

    loss: float = 0.0
    steps: int = 0


def _micro_batches(columns: dict[str, list[Any]], sets: Sets, size: int, accelerator: Accelerator) -> list[Batch]:
    """This rank's share of some rows as batches of rows of like length, on the device.

    Every rank gets every n-th row of the length order: like work, and the sum over ranks is the whole step.
    """
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    rows.sort(key=lambda row: (len(row["input_ids"]), row["row"]))
    rows = rows[accelerator.process_index :: accelerator.num_processes]
    return [
        sets.objective.collate(rows[start : start + size], sets.pad).to(accelerator.device)
        for start in range(0, len(rows), size)
    ]
