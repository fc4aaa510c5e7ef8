"""The search: Optuna suggests points, few of which are trained to the end; any number of processes share it."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from biasline.bases.pin import Pin
from biasline.errors import BiaslineError, first_line, full_disk_is_told
from biasline.layout import TaskPlace, local_state
from biasline.params import Task, changed
from biasline.search.space import Space
from biasline.search.trainee import Judged, Trainee
from biasline.search.verdict import Finished, Verdict, judge
from biasline.source_code import code_sha256
from biasline.tracking.trials import TrialRuns
from biasline.training.fingerprint import fingerprint

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

# Shares of a trial's own steps after which it is held against the others, and one in how many goes on.
_RUNGS, _REDUCTION = (1 / 16, 1 / 4), 4
# Trials that are stopped at a rung before any goes on: there is nothing yet to hold them against.
_FIRST = 4
# Trials that are trained to the end beside the task's own parameters: where fewer are, the best of those that were
# stopped are trained again.
_FINALS = 3
# What all trials may cost together, in trainings of the task's own parameters.
_BUDGET = 6.0
_STARTUP = 8
# Attributes of a trial: steps that it has had, or may have up to its next look; of which trial it is the whole; its
# run in MLflow.
_STEPS, _AGAIN, _RUN = "steps", "again", "run"


@dataclass(frozen=True)
class Outcome:
    """What a search ended with.

    Attributes:
        verdict: the best beside the task's own parameters.
        trials: how many were begun, by all processes and at any time.
        running: how many of them others are still at.
        ended: why it ended before there were as many as asked for; empty where there are.
        cost: steps of all trials, in trainings of the task's own parameters.
        labelled: whether scores are of labels.
        points: each trial as plain data: number, what was drawn, steps, whether it finished, value.
        importance: parameter → share of what the trials differ by after the first rung.
    """

    verdict: Verdict
    trials: int
    running: int
    ended: str
    cost: float
    labelled: bool
    points: list[dict[str, Any]]
    importance: dict[str, float]


def tune(
    task: Task,
    place: TaskPlace,
    trials: int,
    minutes: float,
    say: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Search, or go on with a search of the same task, data, base and code that was begun before.

    Args:
        task: the resolved task, with the parameters of training that are to be improved on.
        place: where its tokens lie.
        trials: how many points in all.
        minutes: after which no further trial begins; 0: as many as it takes.
        say: told of each trial in a line.

    Raises:
        BiaslineError: where there is nothing to search or to judge by, the task's own parameters do not train, or
            nothing can be written.
    """
    trainee = Trainee(task, place)
    loaded = trainee.loaded
    space = Space.of(trainee.settings(task.train), task.train, loaded.model, loaded.head, trainee.passes)
    folder = local_state() / "tune" / place.task / _name(task, loaded.pin, place)
    with full_disk_is_told(folder):
        folder.mkdir(parents=True, exist_ok=True)
        return _Search(trainee, space, folder, loaded.pin, say).run(trials, minutes)


def _name(task: Task, pin: Pin, place: TaskPlace) -> str:
    """16 hex digits over all that a search depends on: the training, and how points are chosen and judged."""
    code = code_sha256({path.stem: path for path in Path(__file__).parent.glob("*.py")})
    parts = [fingerprint(task, pin, place), task.run.recompute, code, version("optuna")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


class _Search:
    """One process's part in a search."""

    def __init__(self, trainee: Trainee, space: Space, folder: Path, pin: Pin, say: Callable[[str], None]) -> None:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._trainee, self._space, self._folder, self._say = trainee, space, folder, say
        self._whole = trainee.steps(space.train)
        self._together = FileLock(folder / "study.lock")
        with self._together:
            storage = JournalStorage(JournalFileBackend(str(folder / "trials.log")))
            self.study: Study = optuna.create_study(storage=storage, study_name=folder.name, load_if_exists=True)
            if not self.study.trials:
                self.study.enqueue_trial(space.usual)
            self._runs = TrialRuns(trainee.place.task, folder.name, pin.name)

    def run(self, trials: int, minutes: float) -> Outcome:
        """Try points until there are enough of them, or the time is over."""
        ends = time.monotonic() + 60 * minutes if minutes else float("inf")
        try:
            while (held := self._next(trials, in_time=time.monotonic() < ends)) is not None:
                trial, lock = held
                try:
                    self._try(trial)
                finally:
                    lock.release()
        finally:
            self._runs.end(others=self._running())
        return self._outcome(trials, in_time=time.monotonic() < ends)

    def _next(self, trials: int, in_time: bool) -> "tuple[Trial, FileLock] | None":
        """A trial that a process which is no more left behind, or a new one; its lock says that someone is at it."""
        from optuna.trial import Trial, TrialState

        with self._together:
            known = self.study.get_trials(deepcopy=False)
            if not in_time and any(one.state.is_finished() for one in known):
                return None
            for one in known:
                if one.state is not TrialState.RUNNING or (lock := self._held(one.number)) is None:
                    continue
                if self._now(one.number).state is TrialState.RUNNING:  # and was not finished just now
                    return Trial(self.study, one._trial_id), lock
                lock.release()
            begun = [one for one in known if one.state is not TrialState.WAITING and _AGAIN not in one.user_attrs]
            if len(begun) >= trials or self._spent() >= _BUDGET:
                stopped = self._best_stopped(known)
                if stopped is None:
                    return None
                self.study.enqueue_trial(stopped.params, user_attrs={_AGAIN: stopped.number})
            trial = self.study.ask()
            lock = self._held(trial.number)
            assert lock is not None
            return trial, lock

    def _best_stopped(self, known: "list[FrozenTrial]") -> "FrozenTrial | None":
        """The stopped trial that came furthest, and was best there, if it should be trained to the end after all."""
        from optuna.trial import TrialState

        ends = sum(
            one.state is TrialState.COMPLETE or (one.state is TrialState.RUNNING and _AGAIN in one.user_attrs)
            for one in known
        )
        again = {one.user_attrs.get(_AGAIN) for one in known}
        left = [
            one
            for one in known
            if one.state is TrialState.PRUNED and one.intermediate_values and one.number not in again
        ]
        left = [one for one in left if self._spent() + self._steps(one.params) / self._whole <= _BUDGET]
        if ends > _FINALS or not left:
            return None
        return min(left, key=lambda one: (-max(one.intermediate_values), _last(one), one.number))

    def _steps(self, drawn: Mapping[str, Any]) -> int:
        """Steps of a trial that is trained to its end."""
        return self._trainee.steps(changed(self._space.train, self._space.changes(drawn), "a trial"))

    def _held(self, number: int) -> FileLock | None:
        lock = FileLock(self._folder / f"trial-{number}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return None
        return lock

    def _try(self, trial: "Trial") -> None:
        """Train one point, and tell the study what came of it."""
        from optuna.samplers import TPESampler
        from optuna.trial import TrialState

        # By its number alone, so that a trial which is done again is the same.
        seed = self._space.train.seed * 1_009 + trial.number
        self.study.sampler = TPESampler(seed=seed, n_startup_trials=_STARTUP)
        drawn = self._space.draw(trial)
        changes = self._space.changes(drawn)
        train, whole = changed(self._space.train, changes, "a trial"), _AGAIN in trial.user_attrs
        steps, told = self._trainee.steps(train), self._told(changes)
        if whole:
            told = f"trial {trial.user_attrs[_AGAIN]} to the end: {told}"
        rungs = {max(1, round(share * steps)): number for number, share in enumerate(_RUNGS)}
        looks = [] if whole else sorted(step for step in rungs if step < steps)
        trial.set_user_attr(_STEPS, steps if whole or trial.number == 0 else [*looks, steps][0])
        done = 0

        def goes_on(step: int, judged: Judged) -> bool:
            nonlocal done
            done, rung = step, rungs[step]
            with self._together:
                if rung not in self._now(trial.number).intermediate_values:  # as it is where a trial is done again
                    trial.report(judged.value, rung)
                if trial.number == 0:
                    return True
                left = (steps - step) / self._whole
                if self._spent() + left > _BUDGET or not self._keeps_up(trial.number, rung):
                    return False
                # What it will cost up to its next look is spent: others must not count on it.
                trial.set_user_attr(_STEPS, next((look for look in looks if look > step), steps))
                return True

        run = self._runs.begin(trial.number, drawn | {"steps": steps}, trial.user_attrs.get(_RUN, ""))
        if run:
            trial.set_user_attr(_RUN, run)
        try:
            judged = self._trainee.train(train, looks, goes_on)
        except BiaslineError as error:
            if trial.number == 0:
                self._runs.finish(run, {}, "FAILED")
                raise
            self.study.tell(trial, state=TrialState.PRUNED)
            self._runs.finish(run, {}, "FAILED")
            self._say(f"trial {trial.number}: {told}: {first_line(error)}")
            return
        except Exception:
            self.study.tell(trial, state=TrialState.FAIL)  # or it would be tried again and again
            self._runs.finish(run, {}, "FAILED")
            raise
        if judged is None:
            trial.set_user_attr(_STEPS, done)
            self.study.tell(trial, state=TrialState.PRUNED)
            self._runs.finish(run, {}, "KILLED")
            self._say(f"trial {trial.number}: {told}: stopped at step {done} of {steps}")
            return
        trial.set_user_attr(_STEPS, steps)
        np.save(self._scores(trial.number), np.stack([judged.scores, judged.counts]))
        self.study.tell(trial, judged.value)
        self._runs.finish(run, {"valid_score": judged.score, "valid_loss": judged.loss}, "FINISHED")
        self._say(f"trial {trial.number}: {told}: {judged.told}")

    def _now(self, number: int) -> "FrozenTrial":
        return next(one for one in self.study.get_trials() if one.number == number)

    def _keeps_up(self, number: int, rung: int) -> bool:
        """Whether a trial is among the best part of those that came as far (Li et al. 2020, successive halving)."""
        reached = [one.intermediate_values[rung] for one in self.study.get_trials() if rung in one.intermediate_values]
        before = sorted(reached)[: max(1, len(reached) // _REDUCTION)]
        return len(reached) > _FIRST and self._now(number).intermediate_values[rung] <= before[-1]

    def _spent(self) -> float:
        """Steps of all trials so far, and those that running ones may have up to their next look, in trainings."""
        return sum(one.user_attrs.get(_STEPS, 0) for one in self.study.get_trials(deepcopy=False)) / self._whole

    def _running(self) -> int:
        from optuna.trial import TrialState

        return sum(one.state is TrialState.RUNNING for one in self.study.get_trials(deepcopy=False))

    def _scores(self, number: int) -> Path:
        return self._folder / f"trial-{number}.npy"

    def _told(self, changes: Mapping[str, Any]) -> str:
        return ", ".join(f"{name} {value}" for name, value in changes.items()) or "the parameters as they are"

    def _outcome(self, asked: int, in_time: bool) -> Outcome:
        from optuna.trial import TrialState

        known = self.study.get_trials()
        if known[0].state is not TrialState.COMPLETE:
            raise BiaslineError(
                "another process is still at trial 0, the parameters as they are", "run this again once it is done"
            )
        finished = [
            Finished(one.number, self._space.changes(one.params), *np.load(self._scores(one.number)))
            for one in known
            if one.state is TrialState.COMPLETE
        ]
        points = [
            {
                "number": one.number,
                **one.params,
                "steps": one.user_attrs[_STEPS],
                "finished": one.state is TrialState.COMPLETE,
                "value": _last(one),
            }
            for one in known
            if one.params and _STEPS in one.user_attrs
        ]
        begun = sum(one.state is not TrialState.WAITING and _AGAIN not in one.user_attrs for one in known)
        ended = "" if begun >= asked else "the time is over" if not in_time else f"{_BUDGET:g} trainings are spent"
        labelled = self._trainee.loaded.sets.objective.labelled
        verdict, running = judge(finished), self._running()
        return Outcome(verdict, begun, running, ended, self._spent(), labelled, points, self._importance())

    def _importance(self) -> dict[str, float]:
        """What the trials differ by after the first rung, which all of them came to, parameter by parameter."""
        import optuna
        from optuna.importance import FanovaImportanceEvaluator, get_param_importances

        flat = optuna.create_study()
        reached = [one for one in self.study.get_trials() if 0 in one.intermediate_values]
        for one in reached:
            made = optuna.trial.create_trial(
                params=one.params, distributions=one.distributions, value=one.intermediate_values[0]
            )
            flat.add_trial(made)
        if len({one.intermediate_values[0] for one in reached}) < _FIRST:
            return {}
        try:
            found = get_param_importances(flat, evaluator=FanovaImportanceEvaluator(seed=0))
        except RuntimeError:  # all but alike, which it says in this way
            return {}
        return {name: float(share) for name, share in found.items()}


def _last(trial: "FrozenTrial") -> float | None:
    """The last that was found of a trial: at its end, or where it was stopped."""
    if trial.value is not None:
        return float(trial.value)
    return float(trial.intermediate_values[max(trial.intermediate_values)]) if trial.intermediate_values else None
