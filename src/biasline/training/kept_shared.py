"""A fleet whose shared delta stays what it was: the champion's, from which the tenants' own alone are trained."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from biasline.bases.match import check_base
from biasline.bases.pooling import pools_by_mean
from biasline.bitfit import BiasDelta
from biasline.errors import BiaslineError
from biasline.jsonfile import dump_json, load_json
from biasline.layout import TaskPlace, replacing, write_text
from biasline.params import Task
from biasline.training.loop import Report
from biasline.training.ranks import together
from biasline.training.rates import resolve_learning_rates
from biasline.training.runtime.launch import joined
from biasline.training.train import Loaded, Start, load_training, train_tenants, write_tenants

_WAY_OUT = "tenants.shared: train makes another shared delta"


def train_from(task: Task, place: TaskPlace, started: Callable[[Start], Report], shared: Path) -> str:
    """Run the train stage without training a shared delta; nothing is written unless all of it succeeds.

    Args:
        task: the resolved task.
        place: where its files lie.
        started: told what begins.
        shared: a folder laid out as the task's own, with the delta to keep, its train.json and its history.csv.

    Returns:
        one line that tells what happened; an empty one in any process but the first, which alone writes.

    Raises:
        BiaslineError: where the delta does not belong to the base, the tokens or the labels of now.
    """
    torch.set_num_threads(task.train.threads)
    accelerator, folder = joined(task.run), place.folder
    main = accelerator.is_main_process
    loaded = together(accelerator, lambda: load_training(task, place, shared))
    delta_file, report_file, history = (
        shared / path.relative_to(folder) for path in (place.delta, place.train_report, place.history)
    )
    report = load_json(report_file, "biasline sync")

    def begun() -> BiasDelta:
        delta = BiasDelta.load(delta_file)
        _check(delta, loaded)
        if main:
            started(Start(loaded.name, loaded.pin, report["trainable"], report["steps"]))
        return delta

    delta = together(accelerator, begun)
    settings = resolve_learning_rates(task.train, loaded.model)
    finished = train_tenants(task, place, loaded, settings, delta, accelerator)
    accelerator.end_training()
    if not main:
        return ""
    with replacing(place.model) as draft:
        draft.mkdir()
        shutil.copyfile(delta_file, draft / place.delta.name)
        own = write_tenants(task, loaded, finished, draft)
        size = sum(path.stat().st_size for path in draft.rglob("*") if path.is_file())
        told: dict[str, Any] = {**report, "fingerprint": loaded.name, "tenants": own.counts, "bytes": size}
        told["rows"] = len(loaded.sets.train)
        told["shared"] = report.get("shared", report["fingerprint"])
        (draft / place.train_report.name).write_text(dump_json(told), encoding="utf-8")
    write_text(place.history, history.read_text(encoding="utf-8"))
    return f"shared delta kept, that of {told['shared']}; {own}"


def _check(delta: BiasDelta, loaded: Loaded) -> None:
    """Hold the delta against what it is to serve."""
    check_base(delta.manifest.base, loaded.pin)
    about, summary = delta.manifest.about, loaded.summary
    for what, then, now in (
        ("labels", delta.manifest.labels, summary.get("labels", [])),
        ("tokenizer", about.get("tokenizer_sha256"), loaded.pin.tokenizer_sha256),
        ("scale of scores", delta.manifest.score, summary.get("score", {})),
        ("pooling", about.get("pooling"), "mean" if pools_by_mean(loaded.model.base_model) else None),
        ("template", about.get("template"), summary.get("template")),
    ):
        if then != now:
            raise BiaslineError(f"tenants.shared keep: the champion's {what} differ from those of now", _WAY_OUT)
