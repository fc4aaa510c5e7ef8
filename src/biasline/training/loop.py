"""The training loop, top to bottom on one screen.

Ours rather than a Trainer's, so that three things are in plain sight: the loss is normalised by the supervised tokens
of the whole step, logits exist at supervised positions only, and the optimizer sees nothing but biases.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from biasline.bitfit import BiasTuning
from biasline.errors import BiaslineError
from biasline.params import Train
from biasline.tokens.mask import IGNORED
from biasline.training.batches import Plan, learning_rate_factor
from biasline.training.loss import Batch, check_against_plain, collate, supervised_logits, token_losses

LOG_EVERY = 10

Report = Callable[[int, dict[str, float]], None]


@dataclass
class History:
    """What training went through.

    Attributes:
        rows: one dict per logged step: step, epoch, loss, learning_rate, grad_norm, valid_loss (or None).
        best_step: the step whose biases were kept.
        best_loss: their validation loss; None without a validation set.
        supervised_tokens: tokens that the loss was taken over, in all.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    best_step: int = 0
    best_loss: float | None = None
    supervised_tokens: int = 0


def fit(
    model: nn.Module, tuning: BiasTuning, plan: Plan, train: Any, valid: Any, pad: int, params: Train, report: Report
) -> History:
    """Train the chosen biases; `tuning` ends with the kept ones, written into the model.

    Args:
        model: the frozen base whose biases `tuning` holds.
        plan: which rows make which step.
        train, valid: token sets with `row`, `input_ids`, `labels`; `valid` may be empty.
        pad: token id to pad with.
        report: called with (step, metrics) whenever a row of history is written.

    Errors: `BiaslineError` where the loss is not finite, naming the rows of the batch.
    """
    accelerator = Accelerator()
    torch.manual_seed(params.seed)
    model = model.to(accelerator.device)
    tuning.master.data = tuning.master.data.to(accelerator.device)
    tuning.master.grad = torch.zeros_like(tuning.master.data)
    # No weight decay: biases are trained in absolute values, and decay would pull them to zero.
    optimizer = torch.optim.AdamW([tuning.master], lr=params.learning_rate, weight_decay=0.0)
    history, best, window = History(), tuning.master.detach().clone(), _Window()
    model.train()

    for step in range(plan.total_steps):
        examples = train[plan.indices(step)]
        batches = _micro_batches(examples, pad, params.micro_batch_size, accelerator)
        step_tokens = sum(label != IGNORED for labels in examples["labels"] for label in labels)
        if step == 0 and batches:
            check_against_plain(model, batches[0])
        for batch in batches:
            loss = token_losses(*supervised_logits(model, batch)).sum() / step_tokens
            if not torch.isfinite(loss):
                raise BiaslineError(
                    f"step {step + 1}: the loss is {loss.item()} on the rows {', '.join(map(str, batch.rows))}",
                    "lower train.learning_rate, or look at those rows",
                )
            accelerator.backward(loss)
            window.loss += loss.item()
        tuning.collect()
        gradient = tuning.master.grad = accelerator.reduce(tuning.master.grad, "sum")
        norm = nn.utils.clip_grad_norm_([tuning.master], params.max_grad_norm)
        factor = learning_rate_factor(step, plan.total_steps, params.warmup, params.schedule)
        optimizer.param_groups[0]["lr"] = params.learning_rate * factor
        optimizer.step()
        tuning.write()
        history.supervised_tokens += step_tokens
        window.steps += 1

        done = step + 1
        last = done == plan.total_steps
        look = len(valid) > 0 and (last or done % params.evaluate_every == 0)
        if look:
            valid_loss = evaluate_loss(model, valid, pad, params.micro_batch_size, accelerator)
            if history.best_loss is None or valid_loss < history.best_loss or params.keep == "last":
                history.best_step, history.best_loss = done, valid_loss
                best = tuning.master.detach().clone()
        if last or look or done % LOG_EVERY == 0:
            row = {
                "step": done,
                "epoch": plan.epoch(done),
                "loss": float(accelerator.reduce(torch.tensor(window.loss, device=accelerator.device))) / window.steps,
                "learning_rate": params.learning_rate * factor,
                "grad_norm": float(norm),
                "valid_loss": valid_loss if look else None,
            }
            history.rows.append(row)
            shares = {f"grad_norm.{role}": value for role, value in tuning.norms(gradient).items()}
            report(done, {key: value for key, value in row.items() if value is not None and key != "step"} | shares)
            window = _Window()

    if history.best_loss is None:
        history.best_step, best = plan.total_steps, tuning.master.detach().clone()
    tuning.master.data.copy_(best)
    tuning.write()
    model.eval()
    return history


def evaluate_loss(model: nn.Module, examples: Any, pad: int, batch_size: int, accelerator: Accelerator) -> float:
    """Mean negative log-likelihood per supervised token of a token set."""
    training = model.training
    model.eval()
    total = tokens = 0.0
    with torch.no_grad():
        for batch in _micro_batches(examples[:], pad, batch_size, accelerator):
            losses = token_losses(*supervised_logits(model, batch))
            total, tokens = total + losses.sum().item(), tokens + losses.numel()
    model.train(training)
    both = accelerator.reduce(torch.tensor([total, tokens], dtype=torch.float64, device=accelerator.device), "sum")
    value = float(both[0] / both[1])
    return value if math.isfinite(value) else math.inf


@dataclass
class _Window:
    """Losses since the last row of history."""

    loss: float = 0.0
    steps: int = 0


def _micro_batches(columns: dict[str, list[Any]], pad: int, size: int, accelerator: Accelerator) -> list[Batch]:
    """This rank's share of some rows as batches of rows of like length, on the device.

    Every rank gets every n-th row of the length order: like work, and the sum over ranks is the whole step.
    """
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    rows.sort(key=lambda row: (len(row["input_ids"]), row["row"]))
    rows = rows[accelerator.process_index :: accelerator.num_processes]
    return [collate(rows[start : start + size], pad).to(accelerator.device) for start in range(0, len(rows), size)]
