"""Trainings of many tenants side by side: each as it would be alone, from a delta that they share.

A step of the fleet is one step of each tenant that has a slot: its own rows in its own order, its own number of steps,
rate, clip norm, looks and end. The rows of all share forward passes, which have the more rows of equal length for it.
A tenant that is done leaves its slot to the next one. No dropout: what it draws would depend on who shares a pass.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from biasline.bitfit import Bank, BankTuning, BiasDelta
from biasline.bitfit.bank_tuning import Group
from biasline.bitfit.pretrained import PretrainedModel
from biasline.errors import BiaslineError
from biasline.params import ResolvedTrain
from biasline.training.batches import Plan, Rows, cut, learning_rate_factor, pass_tokens
from biasline.training.loop import Sets
from biasline.training.loss import Batch, Way
from biasline.training.validation import Keeper, Look


@dataclass(frozen=True)
class Tenant:
    """Whose rows are whose.

    Attributes:
        name: of the tenant.
        train, valid: places of its rows in the training and the validation set; of the latter there may be none.
    """

    name: str
    train: Sequence[int]
    valid: Sequence[int] = ()


@dataclass(frozen=True)
class Trained:
    """What a tenant's training ended with.

    Attributes:
        tenant: its name.
        delta: the kept values; None where the training failed.
        steps: how many were made.
        kept_step: after which the values are those that were kept.
        start_loss, loss: of the shared delta and of the kept values on the tenant's validation rows; None without any.
        start_accuracy, accuracy: likewise; None where targets are no labels.
        failed: why there is no delta, naming the rows.
    """

    tenant: str
    delta: BiasDelta | None
    steps: int
    kept_step: int
    start_loss: float | None
    loss: float | None
    start_accuracy: float | None
    accuracy: float | None
    failed: str = ""


@dataclass
class _Course:
    """A tenant's training while it is under way."""

    tenant: Tenant
    plan: Plan
    keeper: Keeper
    kept: torch.Tensor | None = None
    step: int = 0
    kept_step: int = 0
    start: Look | None = None
    best: Look | None = None
    finished: bool = False
    failed: str = ""

    def ended(self, delta: BiasDelta | None) -> Trained:
        start, best = self.start, self.best
        return Trained(
            self.tenant.name,
            delta,
            self.step,
            self.kept_step,
            start.loss if start else None,
            best.loss if best else None,
            start.accuracy if start else None,
            best.accuracy if best else None,
            self.failed,
        )


@dataclass(frozen=True)
class _Pass:
    """Rows of several slots in one forward pass."""

    batch: Batch
    slots: list[int]
    targets: list[int] = field(default_factory=list)

    @property
    def of_targets(self) -> torch.Tensor:
        """The slot of each target, (targets,), in the order of the losses."""
        return torch.repeat_interleave(torch.tensor(self.slots), torch.tensor(self.targets))


def fit_fleet(
    model: PretrainedModel,
    start: BiasDelta,
    tenants: Sequence[Tenant],
    sets: Sets,
    params: ResolvedTrain,
    slots: int,
    report: Callable[[int, int], None] = lambda *_: None,
) -> Iterator[Trained]:
    """Train each tenant from a shared delta, as many at a time as there are slots.

    Args:
        model: the base, plain; it stays what it is.
        start: the shared delta: what each tenant's is trained from, and what it is trained of.
        tenants: in the order in which they get a slot.
        sets: the rows of all.
        params: the parameters of each one's training: a tenant has as many epochs, and at least `min_steps`.
        slots: how many tenants are trained at a time.
        report: called after each step of the fleet with the number of tenants that are done and under way.

    Returns:
        what each ended with, in the order in which they end.

    Raises:
        BiaslineError: for a tenant without training rows, and where the delta does not fit the model.
    """
    for tenant in tenants:
        if not tenant.train:
            raise BiaslineError(f"tenant {tenant.name!r}: no row to train on", "leave it to the shared delta")
    before = model.training
    training = _Fleet(model, start, sets, params, min(slots, len(tenants)) or 1)
    queue, done = deque(tenants), 0
    try:
        while queue or training.courses:
            training.admit(queue)
            training.step()
            for trained in training.leaving():
                done += 1
                yield trained
            report(done, len(training.courses))
    finally:
        training.end()
        model.train(before)


class _Fleet:
    """The slots of a bank, each with a tenant's training."""

    def __init__(self, model: PretrainedModel, start: BiasDelta, sets: Sets, params: ResolvedTrain, slots: int) -> None:
        self._model, self._start, self._sets, self._params = model.eval(), start, sets, params
        self._bank = Bank(model, slots)
        self._tuning = BankTuning(self._bank, max_norm=params.max_grad_norm)
        self._train, self._valid = Rows(sets.train), Rows(sets.valid)
        self._free = deque(range(1, slots + 1))
        self.courses: dict[int, _Course] = {}
        self._checked = False

    def admit(self, queue: "deque[Tenant]") -> None:
        """Give the free slots to the tenants that wait; how good the shared delta is for each is looked at first."""
        new = []
        while queue and self._free:
            slot, tenant = self._free.popleft(), queue.popleft()
            self._bank.put(slot, self._start)
            self._tuning.begin(slot)
            plan = Plan.of(len(tenant.train), self._params)
            self.courses[slot] = _Course(tenant, plan, Keeper(self._params.keep == "last"))
            new.append(slot)
        if not self._checked and self.courses:
            self._check(next(iter(self.courses.values())).tenant)
        for slot, look in self._looks(new).items():
            self.courses[slot].start = look

    def step(self) -> None:
        """One step of every tenant that is under way."""
        rows = {
            slot: [course.tenant.train[place] for place in course.plan.indices(course.step)]
            for slot, course in self.courses.items()
        }
        shares = torch.zeros(self._bank.slots + 1)
        for slot, places in rows.items():
            shares[slot] = 1 / max(1, self._sets.objective.targets([self._train[place] for place in places]))
        told = torch.zeros(self._bank.slots + 1)
        for work in self._passes(self._train, rows):
            with self._bank.rows(work.slots):
                losses = self._sets.objective.losses(self._model, work.batch)
                # Inside: where activations are computed again in the backward pass, it is with the same rows.
                (losses * shares[work.of_targets].to(losses.device)).sum().backward()
            told.index_add_(0, work.of_targets, losses.detach().cpu())
        norms = self._tuning.step({slot: self._rates(course) for slot, course in self.courses.items()})
        for slot, course in self.courses.items():
            if not math.isfinite(norms[slot] + float(told[slot])):
                numbers = sorted(self._train[place]["row"] for place in rows[slot])
                what = f"step {course.step + 1}: loss or gradient not finite on the rows"
                course.failed = f"{what} {', '.join(map(str, numbers))}"
                continue
            course.step += 1
            course.finished = course.step == course.plan.total_steps
        due = [slot for slot, course in self.courses.items() if not course.failed and self._due(course)]
        for slot, look in self._looks(due).items():
            self._judge(slot, look)

    def leaving(self) -> Iterator[Trained]:
        """Those that are done, whose slots become free."""
        for slot, course in list(self.courses.items()):
            if not (course.finished or course.failed):
                continue
            if course.kept is None:
                course.kept_step = course.step
            delta = None if course.failed else self._bank.take(slot, course.kept)
            del self.courses[slot]
            self._bank.clear(slot)
            self._free.append(slot)
            yield course.ended(delta)

    def end(self) -> None:
        """Nothing is trained any more."""
        self._tuning.end()

    def _due(self, course: _Course) -> bool:
        return course.finished or course.step % self._params.evaluate_every == 0

    def _judge(self, slot: int, look: Look) -> None:
        """Keep the values of this step, or not; and whether any more follow."""
        course = self.courses[slot]
        if not math.isfinite(look.loss):
            numbers = ", ".join(map(str, look.odd))
            course.failed = f"step {course.step}: loss not finite on the validation rows {numbers}"
            return
        if course.keeper.keeps(look):
            course.kept, course.kept_step, course.best = self._bank.values(slot), course.step, look
        if 0 < self._params.patience <= course.keeper.waited and course.step >= self._params.min_steps:
            course.finished = True

    def _rates(self, course: _Course) -> Mapping[Group, float]:
        params = self._params
        factor = learning_rate_factor(course.step, course.plan.total_steps, params.warmup, params.schedule)
        return {
            "tuned": params.learning_rate * factor,
            "scales": params.scale_learning_rate * factor,
            "head": params.head_learning_rate * factor,
        }

    def _passes(self, rows: Rows, chosen: Mapping[int, Sequence[int]]) -> Iterator[_Pass]:
        """Rows of all slots by forward pass, those of like length together."""
        found = [
            (int(rows.lengths[place]), rows[place]["row"], slot, place) for slot in chosen for place in chosen[slot]
        ]
        ordered = sorted(found)
        device = self._model.device
        for piece in cut([length for length, *_ in ordered], pass_tokens(self._params, device), device):
            examples = [rows[place] for *_, place in ordered[piece]]
            batch = self._sets.objective.collate(examples, self._sets.pad).to(device)
            counts = [self._sets.objective.targets([example]) for example in examples]
            yield _Pass(batch, [slot for _, _, slot, _ in ordered[piece]], counts)

    @torch.no_grad()
    def _looks(self, slots: Sequence[int]) -> dict[int, Look]:
        """What the validation rows of some slots say, of those that have any."""
        places = {slot: self.courses[slot].tenant.valid for slot in slots}
        judged: dict[int, list[tuple[int, tuple[torch.Tensor, ...]]]] = {}
        for work in self._passes(self._valid, {slot: some for slot, some in places.items() if some}):
            with self._bank.rows(work.slots):
                parts = self._sets.objective.judged(self._model, work.batch)
            by_row = zip(*(torch.split(part.cpu().double(), work.targets) for part in parts), strict=True)
            for slot, number, each in zip(work.slots, work.batch.rows, by_row, strict=True):
                judged.setdefault(slot, []).append((number, each))
        return {slot: self._look(rows) for slot, rows in judged.items()}

    def _look(self, rows: Sequence[tuple[int, tuple[torch.Tensor, ...]]]) -> Look:
        """Of one slot: each row's number, and its losses, hits and weights."""
        losses, hits, weights = (torch.cat([parts[which] for _, parts in rows]) for which in range(3))
        credit = hits * weights / weights.sum()
        accuracy = float(credit.sum()) if self._sets.objective.labelled else None
        odd = tuple(number for number, parts in rows if not parts[0].isfinite().all())
        return Look(float(losses.mean()), accuracy, credit, odd)

    def _check(self, tenant: Tenant) -> None:
        """Choose how logits are made, on the plain base."""
        objective, rows = self._sets.objective, self._train
        few = [rows[place] for place in rows.by_length(list(tenant.train))[:2]]
        objective.check(self._model, objective.collate(few, self._sets.pad).to(self._model.device))
        outputs: nn.Module | None = self._model.get_output_embeddings()
        if outputs is not None and self._bank.used_in(outputs):
            # Its input would be targets of all rows in one line, in which rows cannot be told apart.
            objective.way = Way.PLAIN
        self._checked = True
