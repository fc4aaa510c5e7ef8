"""The own deltas of a fleet's tenants: each trained from the shared one, and which of the two serves whom.

A finished training is kept in a file named by all that it was made of: the shared delta, the tenant's own rows, the
parameters, the code. So a run that was stopped goes on where it was, and rows that one tenant got make no other's
training anew.
"""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import polars as pl
import torch
from accelerate import Accelerator

from biasline.bases.load import best_device, placed
from biasline.bases.pin import Pin, file_sha256
from biasline.bitfit import BiasDelta
from biasline.bitfit.deltas import file_of, write_index
from biasline.bitfit.pretrained import PretrainedModel
from biasline.errors import BiaslineError
from biasline.jsonfile import dump_json
from biasline.kinds.learning import find_learning
from biasline.layout import replacing, write_parquet, write_text
from biasline.params import ResolvedTrain, Task
from biasline.progress import progress
from biasline.source_code import code_sha256, import_closure
from biasline.training.batches import Plan
from biasline.training.fleet import Tenant, Trained, fit_fleet
from biasline.training.loop import Sets
from biasline.training.loss import Objective
from biasline.training.ranks import of_all, of_first, same_error, together

_ON_ACCELERATOR = 64
# Of a fleet's finished trainings, so many times as many as it has tenants stay: a change is often taken back.
_KEPT = 3
_NAMED = 5
# How a tenant words its answers takes more steps to learn than which of the shared labels its texts have.
_STEPS_OF_ANSWERS, _STEPS_OF_A_HEAD = 100, 40
_FIELDS = ("steps", "kept_step", "start_loss", "loss", "start_accuracy", "accuracy")


@dataclass(frozen=True)
class Own:
    """What came of the tenants' own trainings.

    Attributes:
        counts: tenants in all, and how many of them have an `own` delta that serves, `shared`, `failed`.
        told: lines for whoever runs the stage.
    """

    counts: dict[str, int]
    told: list[str]

    def __str__(self) -> str:
        """In short."""
        return f"{self.counts['own']:,} of {self.counts['count']:,} tenants have a delta of their own that serves"


def tenants_of(names: Sequence[str], sets: Sets) -> list[Tenant]:
    """The tenants with the places of their rows, in the order of their names; of some there may be no rows."""
    places: list[dict[int, list[int]]] = []
    for rows in (sets.train, sets.valid):
        found: dict[int, list[int]] = {}
        for place, number in enumerate(rows["tenant"]):
            found.setdefault(number, []).append(place)
        places.append(found)
    return [
        Tenant(name, tuple(places[0].get(number, ())), tuple(places[1].get(number, ())))
        for number, name in enumerate(names)
    ]


def own_settings(task: Task, settings: ResolvedTrain) -> ResolvedTrain:
    """The parameters of a tenant's own training: those of the shared one, but shorter and looked at more often."""
    own = task.tenants.model_dump(include={"epochs", "min_steps", "batch_size", "evaluate_every"})
    if own["min_steps"] is None:
        own["min_steps"] = _STEPS_OF_A_HEAD if find_learning(task.kind).headed else _STEPS_OF_ANSWERS
    if task.tenants.learning_rate is not None:
        own["learning_rate"] = task.tenants.learning_rate
    return settings.model_copy(update=own)


@dataclass(frozen=True)
class Finished:
    """Own trainings that are done.

    Attributes:
        trained: by tenant; of those that have too few rows there is none.
        told: lines for whoever runs the stage.
    """

    trained: Mapping[str, Trained]
    told: list[str]


def train_own(
    task: Task,
    pin: Pin,
    model: PretrainedModel,
    shared: BiasDelta,
    tenants: Sequence[Tenant],
    sets: Sets,
    settings: ResolvedTrain,
    kept: Path,
    accelerator: Accelerator,
) -> Finished:
    """Train the tenants' own deltas; each of several processes takes its part of them.

    Args:
        task: the resolved task.
        pin: of the base.
        model: the base, plain.
        shared: the delta that they start from.
        tenants: of all, in the order in which they are trained.
        sets: the rows of all.
        settings: of each one's training.
        kept: a folder of finished trainings, made when the first is.
        accelerator: the processes.

    Returns:
        the trainings of all, in the first process.

    Raises:
        BiaslineError: where more of them failed than `tenants.max_failed` allows.
    """
    large = [tenant for tenant in tenants if is_trained(tenant, task)]
    keys = _keys(task, pin, shared, large, sets, settings)
    done: dict[str, Trained] = {}
    if accelerator.is_main_process:
        done = {tenant.name: found for tenant in large if (found := _kept(kept / keys[tenant.name]))}
    # The first process says which are done: on other machines there may be none of its files.
    known = of_first(accelerator, lambda: set(done))
    waiting = [tenant for tenant in large if tenant.name not in known]
    mine = dealt(waiting, settings, accelerator.num_processes)[accelerator.process_index]
    allowed = math.floor(task.tenants.max_failed * len(large))

    def part() -> list[Trained]:
        return list(_fitted(task, model, shared, mine, sets, settings, kept, keys, allowed)) if mine else []

    fitted = together(accelerator, part)
    # What a process of this machine has trained is in the files; only what is not there goes from one to another.
    ended = of_all(accelerator, [replace(trained, delta=None) for trained in fitted])
    lacking: set[str] = set()
    if accelerator.is_main_process:
        done |= {trained.tenant: trained for trained in fitted}
        others = [trained for trained in ended if trained.tenant not in done]
        done |= {one.tenant: one if one.failed else _kept(kept / keys[one.tenant]) or one for one in others}
        lacking = {one.tenant for one in done.values() if not (one.delta or one.failed)}
    lacking = of_first(accelerator, lambda: lacking)
    if lacking:
        done |= {one.tenant: one for one in of_all(accelerator, [one for one in fitted if one.tenant in lacking])}
    told = [f"{len(large) - len(waiting)} of {len(large)} own trainings were done before: taken as they are"]
    failed = [trained for trained in ended if trained.failed]
    if len(failed) > allowed:
        raise same_error(accelerator, _too_many(len(failed), len(large), allowed, failed[-1]))
    told = told if len(waiting) < len(large) else []
    told += [f"{trained.tenant!r}: {trained.failed}: the shared delta serves it" for trained in failed]
    if accelerator.is_local_main_process:
        for name in lacking & done.keys():  # those of other machines
            _keep(kept / keys[name], done[name])
        _forget(kept, len(large))
    return Finished(done, told)


def dealt(tenants: Sequence[Tenant], settings: ResolvedTrain, parts: int) -> list[list[Tenant]]:
    """Tenants in so many parts that take about as many steps each; in a part they are in their order."""
    steps = {tenant.name: Plan.of(len(tenant.train), settings).total_steps for tenant in tenants}
    made: list[set[str]] = [set() for _ in range(parts)]
    sums = [0] * parts
    for name in sorted(steps, key=lambda name: -steps[name]):
        least = sums.index(min(sums))
        made[least].add(name)
        sums[least] += steps[name]
    return [[tenant for tenant in tenants if tenant.name in part] for part in made]


def is_trained(tenant: Tenant, task: Task) -> bool:
    """Whether a tenant has rows for a delta of its own: without one to look at, nobody could tell if it is better."""
    return len(tenant.train) >= task.tenants.min_rows and bool(tenant.valid)


def _fitted(
    task: Task,
    model: PretrainedModel,
    shared: BiasDelta,
    tenants: Sequence[Tenant],
    sets: Sets,
    settings: ResolvedTrain,
    kept: Path,
    keys: Mapping[str, str],
    allowed: int,
) -> Iterator[Trained]:
    """Train some tenants in this process, and keep each as it ends."""
    device, failed = best_device(), 0
    slots = task.run.tenants_at_once or (1 if device.type == "cpu" else _ON_ACCELERATOR)
    placed(model, device)
    with progress("tenants", len(tenants)) as shown:
        for number, trained in enumerate(fit_fleet(model, shared, tenants, sets, settings, slots), 1):
            failed += bool(trained.failed)
            if failed > allowed:
                raise _too_many(failed, len(keys), allowed, trained)
            named = _with_origin(trained, keys[trained.tenant])
            _keep(kept / keys[trained.tenant], named)
            yield named
            shown.at(number)


def _too_many(failed: int, count: int, allowed: int, last: Trained) -> BiaslineError:
    return BiaslineError(
        f"{failed} of {count} tenants' own trainings failed, tenants.max_failed allows {allowed}; the last: "
        f"{last.tenant!r}: {last.failed}",
        "look at these rows, lower train.learning_rate, or raise tenants.max_failed",
    )


def write_own(task: Task, tenants: Sequence[Tenant], finished: Finished, draft: Path) -> Own:
    """Write the deltas that serve, an index and a table into the model's folder.

    Args:
        task: the resolved task.
        tenants: all of them.
        finished: their trainings.
        draft: the folder, which holds the shared delta.
    """
    folder, done = draft / "tenants", finished.trained
    folder.mkdir()
    rows = [_judged(tenant, done.get(tenant.name), task.tenants.min_rows) for tenant in tenants]
    for row in rows:
        delta = done[row["tenant"]].delta if row["serves"] == "own" else None
        row["sha256"] = None
        if delta is not None:
            delta.save(folder / file_of(row["tenant"]))
            row["sha256"] = file_sha256(folder / file_of(row["tenant"]))
    own = [row["tenant"] for row in rows if row["serves"] == "own"]
    write_index(folder, own, [row["tenant"] for row in rows if row["serves"] == "shared"])
    write_parquet(pl.DataFrame(rows, schema=_SCHEMA, orient="row"), draft / "tenants.parquet")
    failed = sum(bool(trained.failed) for trained in done.values())
    counts = {"count": len(rows), "own": len(own), "shared": len(rows) - len(own), "failed": failed}
    return Own(counts, [*finished.told, *_why_shared(rows)])


_SCHEMA: dict[str, Any] = {
    "tenant": pl.String,
    "train": pl.Int64,
    "valid": pl.Int64,
    "steps": pl.Int64,
    "kept_step": pl.Int64,
    "shared_loss": pl.Float64,
    "own_loss": pl.Float64,
    "shared_accuracy": pl.Float64,
    "own_accuracy": pl.Float64,
    "serves": pl.String,
    "why": pl.String,
    "sha256": pl.String,
}


def _judged(tenant: Tenant, trained: Trained | None, min_rows: int) -> dict[str, Any]:
    """A row of the table: how the training went, and which delta serves, as validation rows have it."""
    why, serves = "", "shared"
    if trained is None:
        few = len(tenant.train) < min_rows
        why = f"fewer than {min_rows} training rows" if few else "no validation row to choose by"
    elif trained.failed:
        why = f"failed: {trained.failed}"
    elif _better(trained):
        serves, why = "own", "better on its validation rows"
    else:
        why = "its own is no better on its validation rows"
    found = trained or Trained(tenant.name, None, 0, 0, None, None, None, None)
    return {
        "tenant": tenant.name,
        "train": len(tenant.train),
        "valid": len(tenant.valid),
        "steps": found.steps,
        "kept_step": found.kept_step,
        "shared_loss": found.start_loss,
        "own_loss": found.loss,
        "shared_accuracy": found.start_accuracy,
        "own_accuracy": found.accuracy,
        "serves": serves,
        "why": why,
    }


def _better(trained: Trained) -> bool:
    """Of labels, right ones count first: losses rise long before labels get worse."""
    assert trained.loss is not None
    assert trained.start_loss is not None
    if trained.accuracy is not None and trained.accuracy != trained.start_accuracy:
        return trained.accuracy > (trained.start_accuracy or 0.0)
    return trained.loss < trained.start_loss


def _why_shared(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row["serves"] == "shared" and not row["why"].startswith("failed"):
            reasons.setdefault(row["why"], []).append(row["tenant"])
    told = []
    for why, names in reasons.items():
        named = ", ".join(map(repr, names[:_NAMED])) + f" and {len(names) - _NAMED} more" * (len(names) > _NAMED)
        told.append(f"the shared delta serves {len(names)} tenants ({why}): {named}")
    return told


def _with_origin(trained: Trained, key: str) -> Trained:
    """A delta that names its tenant and what it was made of, and nothing that another tenant's rows could change."""
    if trained.delta is None:
        return trained
    manifest = trained.delta.manifest
    about = {**_lasting(manifest.about), "tenant": trained.tenant, "fingerprint": key}
    return replace(trained, delta=BiasDelta(trained.delta.tensors, manifest.model_copy(update={"about": about})))


def _lasting(about: Mapping[str, str]) -> dict[str, str]:
    """What a shared delta tells of its origin, but for what any tenant's rows change although its values may stay."""
    return {name: value for name, value in about.items() if name not in ("fingerprint", "tokens_sha256")}


@cache
def _code() -> str:
    """What a tenant's training does: the code of fleets, and all that it calls."""
    without = ("errors", "layout", "params", "progress", "source_code", "training.runtime", "kinds")
    return code_sha256(import_closure(Path(__file__).with_name("fleet.py"), without=without))


def _told_of(objective: Objective) -> dict[str, Any]:
    """What a loss is taken with that other tenants' rows may have a part in: weights of classes."""
    told = {
        name: value.tolist() if isinstance(value, torch.Tensor) else value for name, value in vars(objective).items()
    }
    return {"name": type(objective).__name__, **{name: repr(told[name]) for name in sorted(told) if name != "way"}}


def _keys(
    task: Task, pin: Pin, shared: BiasDelta, tenants: Sequence[Tenant], sets: Sets, settings: ResolvedTrain
) -> dict[str, str]:
    """Tenant → hash of what its training depends on; of its rows all but their numbers in the file."""
    manifest = shared.manifest.model_dump()
    manifest["about"] = _lasting(shared.manifest.about)
    common = {
        "shared": manifest,
        "base": pin.digest,
        "load": task.load.model_dump(),
        "train": settings.numbers(),
        "loss": _told_of(sets.objective),
        "code": _code(),
        "versions": {name: version(name).partition("+")[0] for name in ("torch", "transformers")},
    }
    keys = {}
    for tenant in tenants:
        parts = {**common, "tenant": tenant.name}
        for name, rows, places in (("train", sets.train, tenant.train), ("valid", sets.valid, tenant.valid)):
            table = rows.select(list(places)).with_format("arrow")[:] if places else None
            told = table.drop_columns(["row", "tenant"]).to_pylist() if table is not None else []
            parts[name] = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
        keys[tenant.name] = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
    return keys


def _files(place: Path) -> tuple[Path, Path]:
    """What a finished training is kept as: what it tells, and its delta."""
    return place.with_name(f"{place.name}.json"), place.with_name(f"{place.name}.safetensors")


def _keep(place: Path, trained: Trained) -> None:
    """Keep a finished training; one that failed is tried again."""
    if trained.delta is None:
        return
    told, values = _files(place)
    with replacing(values) as draft:
        trained.delta.save(draft)
    known = {name: value for name, value in asdict(replace(trained, delta=None)).items() if name in _FIELDS}
    write_text(told, dump_json({**known, "sha256": file_sha256(values)}))


def _kept(place: Path) -> Trained | None:
    """A finished training; None where there is none, or its files are no more what they were."""
    told, values = _files(place)
    with suppress(OSError, ValueError, TypeError, KeyError, BiaslineError):
        found = json.loads(told.read_text(encoding="utf-8"))
        if found.pop("sha256") != file_sha256(values):
            return None
        delta = BiasDelta.load(values)
        for path in (told, values):
            os.utime(path)
        return Trained(delta.manifest.about["tenant"], delta, **found)
    return None


def _forget(kept: Path, tenants: int) -> None:
    """Delete the trainings that were not used for longest, beyond a few times as many as there are tenants."""
    with suppress(OSError):
        found = sorted(kept.glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in found[_KEPT * max(tenants, 100) :]:
            path.unlink(missing_ok=True)
            path.with_suffix(".safetensors").unlink(missing_ok=True)
