"""The training loop, top to bottom in one function.

Ours rather than a Trainer's, so that three things are in plain sight: the loss is normalised by the supervised tokens
of the whole step, logits exist at supervised positions only, and the optimizer sees nothing but what the method trains.
"""

import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from biasline.bases.load import placed
from biasline.errors import BiaslineError
from biasline.params import ResolvedTrain
from biasline.training.batches import Plan, Rows, learning_rate_factor
from biasline.training.feed import Feed, Work
from biasline.training.loss import Batch, Objective, Way
from biasline.training.methods import Tuning
from biasline.training.ranks import ended, of_all, same_error, summed
from biasline.training.runtime.checkpoint import Checkpoints
from biasline.training.state import History, State
from biasline.training.validation import Keeper, look_at

LOG_EVERY = 10

# Called with a step, its metrics if it was logged, and whether an earlier process made it, before this one went on.
Report = Callable[[int, dict[str, float], bool], None]


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


def fit(
    model: nn.Module,
    tuning: Tuning,
    plan: Plan,
    sets: Sets,
    params: ResolvedTrain,
    report: Report,
    *,
    accelerator: Accelerator | None = None,
    sharded: bool = False,
    checkpoints: Checkpoints | None = None,
    stopping: Callable[[], int] = int,
) -> History:
    """Train what `tuning` holds; it ends with the kept values, written into the model.

    Args:
        model: the base, frozen but for what `tuning` trains.
        tuning: what is trained of it.
        plan: which rows make which step.
        sets: training and validation rows.
        params: the parameters of the training, with its rates.
        report: called after each step, with the row of history that was written, if one was; before that with the rows
            that a checkpoint brings.
        accelerator: devices and processes; each takes a share of a step's rows.
        sharded: the base is spread over them already, and must stay where it is.
        checkpoints: written now and then, and gone on from.
        stopping: the number of the signal that asks to end after this step, or 0.

    Raises:
        BiaslineError: where a loss or a gradient is not finite, naming the rows.
        SystemExit: when asked to end.
    """
    accelerator = accelerator or Accelerator()
    if not sharded:
        model = placed(model, accelerator.device)
    tuning.to(accelerator.device)
    masters, optimizer = tuning.masters, _optimizer(tuning, params)
    train, valid = (
        Feed(Rows(rows), sets.objective, sets.pad, params, accelerator, sharded) for rows in (sets.train, sets.valid)
    )
    state = State(masters, optimizer, Keeper(params.keep == "last"))

    def note(what: str) -> None:
        if what:
            state.history.notes.append(what)
            accelerator.print(f"note: {what}", flush=True)

    if checkpoints and (found := checkpoints.newest_of_first(accelerator, state.values())):
        state.restore(found)
        tuning.write()
        for row in state.history.rows:
            report(row["step"], _known(row), True)
        rest = ", the last one: delete its checkpoint to train again" if state.finished else ""
        accelerator.print(f"resumed from step {state.step}{rest}", flush=True)
    history, keeper, first = state.history, state.keeper, state.step
    began = time.monotonic() - history.seconds
    model.train()
    if history.way is None and not state.finished:
        # On the same rows in every process, or they might choose differently; not again when it goes on.
        note(sets.objective.check(model, train.sample(plan.indices(0))))
        history.way = sets.objective.way
        if params.patience and not len(valid):
            note("train.patience: there are no validation rows to look at, so that nothing ends the training early")
    if history.way is not None:
        sets.objective.way = Way(history.way)

    for step, work in train.steps(plan, range(first, first if state.finished else plan.total_steps)):
        # What dropout draws depends on the step alone, not on the steps before it.
        torch.manual_seed(((params.seed * 1_000_003 + step) * 1_009 + accelerator.process_index) % 2**63)
        optimizer.zero_grad()
        loss = torch.zeros((), device=accelerator.device)
        for number, batch in enumerate(work.batches):
            part = sets.objective.losses(model, batch).sum() / work.targets * batch.counts
            part.backward()
            loss += part.detach()
            tuning.collect(add=number > 0)  # now, in fp32: a base in bf16 would lose small gradients in the sum
        if not work.batches:
            tuning.collect()  # of no rows, as a process may have: zeros
        told = summed(accelerator, masters, loss, torch.tensor(float(stopping() > 0)).to(loss))
        norm = nn.utils.clip_grad_norm_(masters, params.max_grad_norm)
        seen_loss, asked, seen_norm = torch.stack([*told, norm.to(loss)]).tolist()  # the step's one wait for a device
        if not math.isfinite(seen_loss + seen_norm):
            odd = _culprits(model, tuning, masters, sets.objective, work, alone=not sharded)
            raise same_error(accelerator, _not_finite(step, seen_loss, of_all(accelerator, odd)))
        factor = learning_rate_factor(step, plan.total_steps, params.warmup, params.schedule)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        optimizer.step()
        tuning.write()
        history.targets += work.targets
        history.tokens += work.tokens
        history.losses.append(seen_loss)
        history.seconds = time.monotonic() - began

        done = state.step = step + 1
        state.finished = done == plan.total_steps
        look = len(valid) > 0 and (state.finished or done % params.evaluate_every == 0)
        if look:
            seen = look_at(model, sets.objective, valid.whole(), accelerator)
            if not math.isfinite(seen.loss):
                where = f"on the validation rows {', '.join(map(str, seen.odd))}"
                what = f"step {done}: the validation loss is {seen.loss}, {where}"
                raise same_error(accelerator, BiaslineError(what, "lower train.learning_rate"))
            asked += any(of_all(accelerator, [stopping() > 0]))  # it may have taken long
            if keeper.keeps(seen):
                history.best_step, history.best_loss = done, seen.loss
                state.keep()
            if not state.finished and 0 < params.patience <= keeper.waited and done >= params.min_steps:
                state.finished = True
                note(f"stopped at step {done} of {plan.total_steps}: {keeper.waited} looks without a better one")
        if logged := state.finished or look or done % LOG_EVERY == 0:
            clipped = max(1.0, seen_norm / params.max_grad_norm)
            norms = {role: norm * clipped for role, norm in tuning.gradient_norms().items()}
            looked = {"valid_loss": seen.loss if look else None}
            if sets.objective.labelled:
                looked["valid_accuracy"] = seen.accuracy if look else None
            history.add_row(done, plan.epoch(done), looked, params.learning_rate * factor, seen_norm, norms)
        report(done, _known(history.rows[-1]) if logged else {}, False)
        ends = state.finished or asked > 0
        if checkpoints and accelerator.is_main_process and (ends or checkpoints.due):
            checkpoints.save(state.snapshot())
        if state.finished:
            break
        if ends:
            of_all(
                accelerator, []
            )  # until the first one has saved, or its launcher would end it because others are gone
            raise ended(accelerator, 128 + (stopping() or signal.SIGTERM))

    if history.best_loss is None:
        history.best_step = state.step
        state.keep()
    state.put_back()
    tuning.write()
    model.eval()
    return history


def _optimizer(tuning: Tuning, params: ResolvedTrain) -> torch.optim.Optimizer:
    """AdamW with a group for what is tuned, one for scales and one for a new head, each with its peak rate.

    No weight decay: biases are trained in absolute values, and decay would pull them to zero.
    """
    peaks = {
        "tuned": params.learning_rate,
        "scales": params.scale_learning_rate,
        "head": params.head_learning_rate,
    }
    groups = [{"params": masters, "peak": peaks[name]} for name, masters in tuning.groups.items() if masters]
    return torch.optim.AdamW(groups, weight_decay=0.0)


def _known(row: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in row.items() if value is not None and key != "step"}


def _culprits(
    model: nn.Module, tuning: Tuning, masters: list[nn.Parameter], objective: Objective, work: Work, alone: bool
) -> list[int]:
    """Numbers of the rows, of this process, whose loss or gradients are not finite.

    Args:
        model: the model.
        tuning: what is trained of it.
        masters: what the optimizer works on.
        objective: what the loss is taken over.
        work: the rows of the step.
        alone: whether a process may make passes that the others do not; else rows are told by the pass.
    """

    def odd(batch: Batch) -> bool:
        for part in (*model.parameters(), *masters):
            part.grad = None
        loss = objective.losses(model, batch).sum() / work.targets
        loss.backward()
        tuning.collect()
        return not all(
            torch.isfinite(part).all()
            for part in (loss, *(master.grad for master in masters if master.grad is not None))
        )

    found: list[int] = []
    for batch in work.batches:
        if odd(batch):
            single = [batch.part(slice(number, number + 1)) for number in range(len(batch.rows) * alone)]
            found += [row for one in single if odd(one) for row in one.rows] or batch.rows
    return found


def _not_finite(step: int, loss: float, rows: list[int]) -> BiaslineError:
    what = "the gradient is not finite" if math.isfinite(loss) else f"the loss is {loss}"
    where = f"on the rows {', '.join(map(str, rows))}" if rows else "over all of its rows together"
    return BiaslineError(f"step {step + 1}: {what} {where}", "lower train.learning_rate, or look at those rows")
