"""The train stage: token sets and base → a delta (or what another method trains), train.json and history.csv."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import torch
from accelerate import Accelerator

from biasline.bases.limits import Limits, limits_of
from biasline.bases.load import best_device, placed
from biasline.bases.pin import Pin, verified_folder
from biasline.bases.pooling import pools_by_mean
from biasline.bitfit import BiasDelta
from biasline.bitfit.pretrained import PretrainedModel
from biasline.errors import BiaslineError
from biasline.jsonfile import dump_json
from biasline.kinds.learning import find_learning
from biasline.layout import TaskPlace, own_trainings, replacing, write_text
from biasline.params import ResolvedTrain, Task, Train, method_spec
from biasline.params.method_spec import scale_count, tuned_count
from biasline.tokens.saved import read_summary, read_token_set
from biasline.training.batches import BalancedPlan, Plan
from biasline.training.fingerprint import fingerprint, folder_sha256
from biasline.training.head_start import SMALL, start_head
from biasline.training.loop import Report, Sets, fit
from biasline.training.methods import PreparedModel, Provenance, get_method, prepare_model
from biasline.training.own import Finished, Own, own_settings, tenants_of, train_own, write_own
from biasline.training.prepare import prepare
from biasline.training.ranks import of_all, of_first, same_error, together
from biasline.training.rates import resolve_learning_rates, unusual_learning_rates
from biasline.training.runtime.checkpoint import Checkpoints
from biasline.training.runtime.launch import joined, watched
from biasline.training.runtime.signals import noted_signals
from biasline.training.state import History


@dataclass(frozen=True)
class Start:
    """A training that is about to begin: what it is, for whoever reports on it."""

    fingerprint: str
    pin: Pin
    trainable: dict[str, float]
    steps: int


def train(task: Task, place: TaskPlace, started: Callable[[Start], Report], checkpoints: Path | None = None) -> str:
    """Run the stage; nothing is written unless all of it succeeds.

    Args:
        task: the resolved task.
        place: where its files lie.
        started: told what begins, once the base is loaded; gives the function that live metrics go to.
        checkpoints: the folder below which they are written, by fingerprint; without one there are none.

    Returns:
        one line that tells what happened; an empty one in any process but the first, which alone writes.
    """
    torch.set_num_threads(task.train.threads)
    alone, accelerator = watched(), joined(task.run)
    main = accelerator.is_main_process
    loaded = together(accelerator, lambda: load_training(task, place))
    start = of_first(accelerator, lambda: head_values(task, loaded, accelerator))
    ready = together(accelerator, lambda: _set_up(task, place, loaded, start, accelerator))
    name, prepared = ready.start.fingerprint, ready.prepared
    plans = of_all(accelerator, [f"{name}{' with run.shard' * task.run.shard}"])
    if len(set(plans)) > 1:
        odd = f"the processes would not train the same model in the same way: {', '.join(dict.fromkeys(plans))}"
        way_out = f"give each the same commit, base, data/{place.task}/tokens and data/{place.task}/task.json"
        raise same_error(accelerator, BiaslineError(odd, way_out))
    kept = Checkpoints(checkpoints / name, name, task.run.checkpoint_every) if checkpoints else None
    with ExitStack() as stack:

        def begun() -> Report:
            if not main:
                return _unheard
            if kept:
                stack.enter_context(kept.locked())
            return started(ready.start)

        report = together(accelerator, begun)
        together(accelerator, lambda: prepare(prepared.model, prepared.tuning.masters, task.run, accelerator))
        with noted_signals(alone) as stopping, memory_told(accelerator.device):
            history = fit(
                prepared.model,
                prepared.tuning,
                ready.plan,
                ready.sets,
                ready.settings,
                report,
                accelerator=accelerator,
                sharded=task.run.shard,
                checkpoints=kept,
                stopping=stopping,
            )
            settled, notes = together(accelerator, ready.settle)
            history.notes.extend(notes)
            for note in notes:
                accelerator.print(f"note: {note}", flush=True)
        finished = None
        if task.tenants.many:
            shared = of_first(accelerator, lambda: _saved(ready, settled))
            placed(loaded.model, "cpu")  # makes room for the one that is plain
            finished = train_tenants(task, place, loaded, ready.settings, shared, accelerator)
        accelerator.end_training()  # the first process is alone from here on: nothing may ask the others
        if not main:
            return ""
        return _write(task, place, loaded, ready, history, settled, finished)


@dataclass(frozen=True)
class _Ready:
    """A training of which nothing is done yet.

    Attributes:
        settle: what the kind of task chooses when all else is done, see `InTraining.settled`.
    """

    start: Start
    prepared: PreparedModel
    settings: ResolvedTrain
    sets: Sets
    plan: Plan
    provenance: Provenance
    settle: Callable[[], tuple[dict[str, str], list[str]]]


@dataclass(frozen=True)
class Loaded:
    """Base and rows of a training.

    Attributes:
        pin: of the base.
        summary: of the tokens.
        model: the base, frozen.
        head: names of the head's parameters that are trained.
        sets: what is trained on.
        name: the fingerprint.
        folder: of the base.
    """

    pin: Pin
    summary: Mapping[str, Any]
    model: PretrainedModel
    head: list[str]
    sets: Sets
    name: str
    folder: Path


def load_training(task: Task, place: TaskPlace, shared: Path | None = None) -> Loaded:
    """Read all that goes into a training, and refuse what cannot go together.

    Args:
        task: the resolved task.
        place: where its tokens lie.
        shared: of a fleet that keeps its shared delta, the folder that holds it, laid out as the task's own.

    Raises:
        BiaslineError: for tokens or a base that are missing or do not fit, and rows that the base cannot take.
    """
    if task.load.quantize == "4bit" and best_device().type == "cpu":
        # There bitsandbytes packs weights for answers, and takes no gradient through them.
        raise BiaslineError(
            "load.quantize: 4bit: on a CPU nothing can be trained through it", "load.quantize: 8bit, or an accelerator"
        )
    pin, folder = verified_folder(Path(task.base))
    summary = read_summary(place)
    if summary["tokenizer_sha256"] != pin.tokenizer_sha256:
        raise BiaslineError(
            f"{place.tokens}: made with the tokenizer of {summary['base']}, not with that of {pin.name}",
            f"dvc repro train@{place.task}",
        )
    name = fingerprint(task, pin, place, shared)
    learning = find_learning(task.kind)
    model, head = learning.load(pin, folder, task.load, task.train, summary.get("labels", []))
    get_method(task.train.method).check(task)
    _check_positions(task, limits_of(folder), summary)
    rows, valid = read_token_set(place, "train"), read_token_set(place, "valid")
    if not len(rows):
        raise BiaslineError(f"{place.tokens}: no row to train on", f"look at {place.quality_page}")
    _check_ids({"train": rows, "valid": valid}, model, pin, place)
    sets = Sets(rows, valid, learning.objective(task.train, summary, rows), model.config.pad_token_id)
    return Loaded(pin, summary, model, head, sets, name, folder)


def plan_of(loaded: Loaded, train: Train) -> Plan:
    """The steps of a training; of a fleet's shared delta such that each tenant has the same part."""
    plan = Plan.of(len(loaded.sets.train), train)
    if "tenants" not in loaded.summary:
        return plan
    tenants = tenants_of(loaded.summary["tenants"], loaded.sets)
    return BalancedPlan(**vars(plan), groups=tuple(tuple(one.train) for one in tenants if one.train))


def head_values(task: Task, loaded: Loaded, accelerator: Accelerator) -> dict[str, torch.Tensor]:
    """The first values of a new head; none where they are random, or the head is (or may be) the base's own."""
    if task.train.head_start == "random" or task.train.head == "train" or task.run.shard or not loaded.head:
        return {}
    placed(loaded.model, accelerator.device)
    small = loaded.sets.objective.labelled and not method_spec(task.train.method).needs_head
    return start_head(loaded.model, loaded.head, loaded.sets, SMALL if small else 1.0)


def _set_up(
    task: Task, place: TaskPlace, loaded: Loaded, start: Mapping[str, torch.Tensor], accelerator: Accelerator
) -> _Ready:
    """Choose what is trained."""
    pin, summary, model, name = loaded.pin, loaded.summary, loaded.model, loaded.name
    learning = find_learning(task.kind)
    for part, value in start.items():
        model.get_parameter(part).data.copy_(value)
    by_mean = pools_by_mean(model.base_model)
    settings = resolve_learning_rates(task.train, model)
    prepared = prepare_model(model, loaded.head, settings)
    trainable = prepared.trainable
    notes = [*prepared.notes, *unusual_learning_rates(task.train, model)]
    asked = [name for name in sorted(task.train.unused) if getattr(task.train, name) != getattr(Train(), name)]
    notes += [f"train.{name} counts for nothing here: method {task.train.method} does not use it" for name in asked]
    if task.load.dtype == "float16":
        notes.append("load.dtype float16: small gradients may be lost in it; bfloat16 has more room")
    for note in notes:
        accelerator.print(f"note: {note}")
    scales = scale_count(trainable)
    counted = f", {scales:,} scales" * bool(scales) + f" and {trainable['head']:,} of the head" * bool(
        trainable["head"]
    )
    what = "biases" if trainable["biases"] else "in an adapter" if "adapter" in trainable else "of the base"
    accelerator.print(
        f"trainable: {tuned_count(trainable):,} {what} ({trainable['share']:.4%} of {prepared.total:,} "
        f"parameters){counted}: {prepared.what}, on {pin.name}; fingerprint {name}",
        flush=True,
    )
    plan = plan_of(loaded, task.train)
    about = {
        "task": place.task,
        **({"pooling": "mean"} if by_mean else {}),
        **({"template": summary["template"]} if "template" in summary else {}),
        "tokenizer_sha256": pin.tokenizer_sha256,
        "tokens_sha256": folder_sha256(place.tokens),
        "fingerprint": name,
    }
    provenance = Provenance(pin, summary.get("labels", []), summary.get("score", {}), about)
    return _Ready(
        Start(name, pin, trainable, plan.total_steps),
        prepared,
        settings,
        loaded.sets,
        plan,
        provenance,
        lambda: learning.settled(prepared.model, loaded.sets.valid, summary, task.train),
    )


def _saved(ready: _Ready, settled: dict[str, str]) -> BiasDelta:
    """What was trained, as whoever loads it has it."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / get_method(ready.settings.method).spec.artifact
        ready.prepared.save(path, ready.provenance.settled(settled))
        return BiasDelta.load(path)


def _write(
    task: Task,
    place: TaskPlace,
    loaded: Loaded,
    ready: _Ready,
    history: History,
    settled: dict[str, str],
    finished: Finished | None,
) -> str:
    """Write the outs, all or none; returns one line that tells what they are."""
    beside = ""
    with replacing(place.model) as draft:
        draft.mkdir()
        ready.prepared.save(draft / get_method(ready.settings.method).spec.artifact, ready.provenance.settled(settled))
        told = _told(ready, history) | ({"settled": settled} if settled else {})
        if finished is not None:
            own = write_tenants(task, loaded, finished, draft)
            told["tenants"], beside = own.counts, f"; {own}"
        size = sum(path.stat().st_size for path in draft.rglob("*") if path.is_file())
        (draft / place.train_report.name).write_text(dump_json({**told, "bytes": size}), encoding="utf-8")
    write_text(place.history, _history_csv(history))
    loss = f"{history.best_loss:.4f}" if history.best_loss is not None else "not measured"
    made = place.delta if place.delta.is_file() and finished is None else place.model
    return f"kept step {history.best_step} of {told['steps']} (validation loss {loss}); {made}: {size:,} bytes{beside}"


def train_tenants(
    task: Task,
    place: TaskPlace,
    loaded: Loaded,
    settings: ResolvedTrain,
    shared: BiasDelta,
    accelerator: Accelerator,
) -> Finished:
    """The own trainings of a fleet's tenants.

    Args:
        task: the resolved task.
        place: where its files lie.
        loaded: base and rows.
        settings: of the shared delta's training.
        shared: that delta.
        accelerator: the processes.
    """
    labels = loaded.summary.get("labels", [])
    model, _ = find_learning(task.kind).load(loaded.pin, loaded.folder, task.load, task.train, labels)
    tenants, kept = tenants_of(loaded.summary["tenants"], loaded.sets), own_trainings(place.task)
    own = own_settings(task, settings)
    with memory_told(best_device()):
        return train_own(task, loaded.pin, model, shared, tenants, loaded.sets, own, kept, accelerator)


def write_tenants(task: Task, loaded: Loaded, finished: Finished, draft: Path) -> Own:
    """Write what came of the tenants' own trainings into a draft of the model's folder; says how it went."""
    own = write_own(task, tenants_of(loaded.summary["tenants"], loaded.sets), finished, draft)
    for line in own.told:
        print(f"note: {line}", flush=True)
    return own


@contextmanager
def memory_told(device: torch.device) -> Iterator[None]:
    """Say what to do where memory runs out."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        if not isinstance(error, torch.OutOfMemoryError) and "DefaultCPUAllocator" not in str(error):
            raise
        raise BiaslineError(
            f"training ran out of memory on {device}",
            "lower train.micro_batch_tokens, set run.recompute: true or load.dtype: bfloat16, or spread the base with "
            "run.shard: true",
        ) from None


def _unheard(*_: object) -> None:
    """What this process could report, the first one reports."""


def _check_positions(task: Task, limits: Limits, summary: Mapping[str, Any]) -> None:
    """Rows, and what a method puts before them, take places of their own where a base has so many."""
    extra = get_method(task.train.method).extra_positions(task.train)
    longest = max(numbers["longest"] for numbers in summary["splits"].values())
    if limits.positions is not None and longest + (extra.count if extra else 0) > limits.positions:
        raise BiaslineError(
            f"rows of {longest} tokens{f', {extra.what}' if extra else ''}: the base has {limits.positions} positions",
            f"lower tokens.max_length{f' or {extra.parameter}' if extra else ''}",
        )


def _check_ids(sets: Mapping[str, Any], model: PretrainedModel, pin: Pin, place: TaskPlace) -> None:
    """Whether the base has an embedding for each token: without one, a model fails somewhere inside."""
    known = model.get_input_embeddings().weight.shape[0]
    for name, rows in sets.items():
        highest = pc.max(pc.list_flatten(rows.with_format("arrow")[:]["input_ids"])).as_py()
        if highest is not None and highest >= known:
            raise BiaslineError(
                f"{place.tokens}: the {name} split has a token with id {highest}, base {pin.name} has embeddings for "
                f"{known} tokens",
                "take a base whose embeddings were resized for its tokenizer",
            )


def _told(ready: _Ready, history: History) -> dict[str, object]:
    settings, prepared, pin = ready.settings, ready.prepared, ready.start.pin
    return {
        "fingerprint": ready.start.fingerprint,
        "method": settings.method,
        "learning_rate": settings.learning_rate,
        **({"head_learning_rate": settings.head_learning_rate} if prepared.trainable["head"] else {}),
        "base": {"name": pin.name, "digest": pin.digest, "parameters": prepared.total},
        "trainable": prepared.trainable,
        "roles": prepared.roles,
        "injected": prepared.injected,
        "notes": [*prepared.notes, *history.notes],
        "rows": len(ready.sets.train),
        "steps": history.rows[-1]["step"],
        "epochs": history.rows[-1]["epoch"],
        "tokens": history.tokens,
        "targets": history.targets,
        "kept_step": history.best_step,
        "valid_loss": history.best_loss,
        "train_loss": history.rows[-1]["loss"],
        "last_valid_loss": history.rows[-1]["valid_loss"],
    }


def _history_csv(history: History) -> str:
    """history.csv for `dvc plots`; an empty cell where nothing was measured. Seconds vary from run to run."""
    names = [name for name in history.rows[0] if name != "seconds"]
    lines = [",".join(names)]
    lines += [",".join("" if row[name] is None else json.dumps(row[name]) for name in names) for row in history.rows]
    return "\n".join(lines) + "\n"
