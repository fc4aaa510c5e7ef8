"""Runs of one task beside each other: what each method reaches on the same test rows, and what it costs."""

import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from biasline.errors import BiaslineError
from biasline.evaluation.intervals import format_interval
from biasline.evaluation.measure import has_row_values, row_values
from biasline.evaluation.statistics import paired_interval
from biasline.jsonfile import load_json
from biasline.kinds.answering import find_answering
from biasline.kinds.learning import find_learning
from biasline.kinds.protocols import Cheaper
from biasline.layout import TaskPlace, home
from biasline.metrics.metric import Metric
from biasline.params import DEFAULT_METHOD, METHOD_SPECS, Task
from biasline.tracking.git import GitRefused, git
from biasline.tracking.record import Record
from biasline.tracking.store import find_experiment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


@dataclass(frozen=True)
class Row:
    """One run.

    Attributes:
        value, low, high: the metric that decides, with its 95 % interval where it has one.
        gain, gain_low, gain_high: over the best run of biases, row by row on the same test rows (of token_accuracy the
            mean over rows, not over tokens), above zero where it is better; None for that run, and for metrics that
            single rows have no value of.
        over_cheaper, over_cheaper_low, over_cheaper_high: over what would do without training, see
            `Cheaper`.
        trained, head: parameters; a new head apart.
        bytes: of the artifact.
        seconds, memory_mb: of training; the process's or the accelerator's peak.
        latency_ms: one forward pass over one row.
    """

    name: str
    fingerprint: str
    method: str
    value: float
    low: float | None
    high: float | None
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    over_cheaper: float | None
    over_cheaper_low: float | None
    over_cheaper_high: float | None
    trained: int
    head: int
    learning_rate: float | None
    bytes: int | None
    seconds: float | None
    memory_mb: float | None
    latency_ms: float | None


@dataclass(frozen=True)
class Comparison:
    """Runs of one task on one test set, the best first.

    Attributes:
        label: what tables call the metric.
        cheaper: what would do without training, in words.
        rows: of the test set.
        others: runs that were evaluated on another one, and are left out.
        missing: methods that no run has.
    """

    task: str
    metric: str
    label: str
    cheaper: str
    test_sha256: str
    rows: int
    runs: tuple[Row, ...]
    others: int
    missing: tuple[str, ...]

    def as_data(self) -> dict[str, Any]:
        """As plain data, for `--json`."""
        return asdict(self)


def compare(client: "MlflowClient", name: str, task: Task) -> Comparison:
    """Every finished run of a task whose test rows are those of the workspace's evaluation, else of the newest run.

    Raises:
        BiaslineError: where no run was evaluated.
    """
    experiment = find_experiment(client, name)
    evaluated = [
        run
        for run in client.search_runs(
            [experiment] if experiment else [], filter_string="attributes.status = 'FINISHED'", max_results=1000
        )
        if "test.sha256" in run.data.tags
    ]
    place = TaskPlace(name)
    ours = load_json(home() / place.metrics, "") if (home() / place.metrics).is_file() else {}
    # Without an evaluation here the newest run says by what its task is judged.
    tags = evaluated[0].data.tags if evaluated else {}
    newest = {"metric": tags["test.metric"]} if "test.metric" in tags else {}
    decisive = task.decided_by(ours or newest)
    finished = [run for run in evaluated if f"tuned.{decisive}" in run.data.metrics]
    if not finished:
        raise BiaslineError(f"{name}: no run was evaluated by {decisive}", f"dvc repro register@{name}")
    metric = task.declared(decisive, (decisive,))
    sign = -1 if metric.higher_is_better else 1
    tests = [run.data.tags["test.sha256"] for run in finished]
    test = ours["test_sha256"] if ours.get("test_sha256") in tests else tests[0]
    chosen = sorted(
        (run for run in finished if run.data.tags["test.sha256"] == test),
        key=lambda run: (sign * run.data.metrics[f"tuned.{decisive}"], run.data.tags["biasline.fingerprint"]),
    )
    answers = {run.info.run_id: _predictions(client, name, run) for run in chosen}
    best = next((run for run in chosen if run.data.params.get("method") == DEFAULT_METHOD), None)
    cheaper = find_answering(task.kind).cheaper
    runs = tuple(
        _row(run, decisive, _gain(answers, run, best, metric, task.kind) if best is not None else None, cheaper)
        for run in chosen
    )
    found = {row.method for row in runs}
    missing = tuple(method for method in _methods(task) if method not in found)
    rows = int(chosen[0].data.metrics["test.rows"])
    others = len(finished) - len(chosen)
    return Comparison(name, decisive, metric.label, cheaper.told, test, rows, runs, others, missing)


def _methods(task: Task) -> Iterable[str]:
    headed = find_learning(task.kind).headed
    return (name for name, method in METHOD_SPECS.items() if headed or not method.needs_head)


def _predictions(client: "MlflowClient", task: str, run: "Run") -> pl.DataFrame:
    """The answers to the test rows: this machine's record of them, else the run's artifact."""
    place = TaskPlace(task)
    here = Record(task, run.data.tags["biasline.fingerprint"]).file(place.predictions)
    if here.is_file():
        return pl.read_parquet(here)
    with tempfile.TemporaryDirectory() as scratch:
        wanted = f"{place.evaluation.name}/{place.predictions.name}"
        return pl.read_parquet(Path(client.download_artifacts(run.info.run_id, wanted, dst_path=scratch)))


def _gain(
    answers: Mapping[str, pl.DataFrame], run: "Run", best: "Run", metric: Metric, kind: str
) -> tuple[float, float, float] | None:
    one, other = answers[run.info.run_id], answers[best.info.run_id]
    if run is best or not (has_row_values(one, metric) and has_row_values(other, metric)):
        return None
    values = [row_values(frame, "tuned", metric, kind).astype(np.float64) for frame in (one, other)]
    # Tokenization may have left other rows out of one than of the other.
    both = ~np.isnan(values[0]) & ~np.isnan(values[1])
    one_values, other_values = (found[both] for found in (values if metric.higher_is_better else values[::-1]))
    return paired_interval(one_values, other_values)


def _row(run: "Run", metric: str, gain: tuple[float, float, float] | None, cheaper: Cheaper) -> Row:
    params, metrics, over = run.data.params, run.data.metrics, cheaper.gain
    head = int(params.get("head") or 0)
    mean, low, high = gain or (None, None, None)
    # A store may hold runs of a method that this checkout does not know: their numbers compare all the same.
    method = METHOD_SPECS.get(params.get("method", ""), METHOD_SPECS[DEFAULT_METHOD])
    rate = params.get(method.learning_rates[0])
    return Row(
        name=(run.info.run_name or "").partition(" · ")[0],
        fingerprint=run.data.tags["biasline.fingerprint"],
        method=params.get("method", ""),
        value=metrics[f"tuned.{metric}"],
        low=metrics.get(f"tuned.{metric}_low"),
        high=metrics.get(f"tuned.{metric}_high"),
        gain=mean,
        gain_low=low,
        gain_high=high,
        over_cheaper=metrics.get(f"{over}.{metric}"),
        over_cheaper_low=metrics.get(f"{over}.{metric}_low"),
        over_cheaper_high=metrics.get(f"{over}.{metric}_high"),
        trained=int(params.get("trainable") or 0) - head,
        head=head,
        learning_rate=float(rate) if rate else None,
        bytes=int(metrics["model.bytes"]) if "model.bytes" in metrics else None,
        seconds=metrics.get("train.seconds"),
        memory_mb=metrics.get("train.peak_memory_mb"),
        latency_ms=metrics.get("tuned.latency_ms"),
    )


def queue_commands(name: str, missing: Sequence[str]) -> list[list[str]]:
    """DVC's commands that queue a run of each method, its rates left to the method's own defaults."""
    queued = []
    for method in missing:
        settings = {"method": method, "learning_rate": "null", "head_learning_rate": "null"}
        chosen = [part for key, value in settings.items() for part in ("-S", f"++tasks.{name}.train.{key}={value}")]
        queued.append(["dvc", "exp", "run", "--queue", *chosen, f"register@{name}"])
    return queued


def run_missing(name: str, data: str, missing: Sequence[str]) -> None:
    """Queue a run of each method as a DVC experiment and run the queue; they end up in the one store.

    Args:
        name: the task's.
        data: the task's raw data.
        missing: the methods.

    Raises:
        BiaslineError: where DVC fails, or would not find the data.
    """
    run_queued(queue_commands(name, missing), data)


def run_queued(commands: Sequence[Sequence[str]], data: str) -> None:
    """Queue DVC experiments and run the queue.

    Args:
        commands: each queues one.
        data: the raw data. An experiment runs in a checkout of its own, which holds only what git or DVC knows.

    Raises:
        BiaslineError: where DVC fails, or would not find the data.
    """
    try:
        known = git("ls-files", "--", data, f"{data}.dvc", where=home())
    except GitRefused as error:
        raise BiaslineError(
            f"an experiment wants git, which says: {error}", "mend what it names, then the same again"
        ) from None
    if not known:
        raise BiaslineError(
            f"{data}: unknown to git and to DVC, so an experiment, which runs in a checkout of its own, lacks it",
            f"`git add {shlex.quote(data)}`, or `dvc add` it and `git add {shlex.quote(data)}.dvc`",
        )
    for command in [*commands, ["dvc", "exp", "run", "--run-all"]]:
        # Standard output is the table's.
        if subprocess.run(command, cwd=home(), check=False, stdout=sys.stderr).returncode:
            raise BiaslineError(f"`{shlex.join(command)}` failed", "its own message is above")


def as_markdown(found: Comparison) -> str:
    """The table."""
    lines = [
        f"| {found.task}: {found.rows:,} test rows | {found.label} | over the best biases | over {found.cheaper} | "
        "trained | head | rate | bytes | training s | peak MB | ms a row |",
        "|---|---|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in found.runs:
        cells = [
            f"{row.name} · {row.fingerprint[:6]}",
            _interval(row.value, row.low, row.high, ".3f"),
            _interval(row.gain, row.gain_low, row.gain_high, "+.3f"),
            _interval(row.over_cheaper, row.over_cheaper_low, row.over_cheaper_high, "+.3f"),
            f"{row.trained:,}",
            f"{row.head:,}" if row.head else "",
            *(_number(value, form) for value, form in ((row.learning_rate, "g"), (row.bytes, ","))),
            *(_number(value, ",.0f") for value in (row.seconds, row.memory_mb)),
            _number(row.latency_ms, ".1f"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "Brackets: 95 % interval; differences are paired, row by row."])


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _interval(value: float | None, low: float | None, high: float | None, form: str) -> str:
    if value is None:
        return ""
    return format(value, form) + format_interval(low, high, form)
