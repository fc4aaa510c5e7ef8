"""The evaluate stage: base and tuned model on the same test rows → metrics, predictions, slices, pages."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from biasline.bases.limits import limits_of
from biasline.bases.load import best_device, load_causal_lm, load_classifier
from biasline.bases.match import check_base
from biasline.bases.pin import Pin, load_tokenizer, verified_folder
from biasline.bitfit import BiasDelta
from biasline.bitfit.pretrained import PretrainedModel
from biasline.data.clean import read_split
from biasline.errors import BiaslineError
from biasline.evaluation import classify, regress
from biasline.evaluation.card import class_sections, model_card, samples_page, score_sections
from biasline.evaluation.generate import Drawing, generate
from biasline.evaluation.heads import PROBED
from biasline.evaluation.intervals import format_interval
from biasline.evaluation.measure import has_row_values, measured_rows, paired_values, row_metric
from biasline.evaluation.own_metrics import OwnScores
from biasline.evaluation.references import Decisive, decisive_metric, own_spelling
from biasline.evaluation.scoring import (
    LENGTH,
    PASSES,
    TIMED,
    Scored,
    answered,
    latency_ms,
    score_likelihood,
    slice_table,
    with_lengths,
)
from biasline.evaluation.statistics import paired_interval
from biasline.jsonfile import dump_json, load_json
from biasline.kinds.learning import columns_of
from biasline.layout import TaskPlace, replacing, write_parquet, write_text
from biasline.metrics.metric import Metric
from biasline.metrics.table import deciding
from biasline.params import Task, method_spec
from biasline.progress import Progress, progress
from biasline.tokens.checks import prompt_room
from biasline.tokens.mask import Encoder
from biasline.tokens.saved import read_summary, read_token_set
from biasline.tokens.template import dialogues_of
from biasline.training.methods import apply_tuned

# What an answer counts beside one pass over a row, for the progress.
_ANSWER_WORK = 8


@dataclass(frozen=True)
class _Compared:
    """Base and tuned model on the test rows.

    Attributes:
        base, tuned: metrics of each, under the same names.
        predictions: the test rows with both answers (`base`, `tuned`) and whether they are right (`…_exact`), or what
            they are off by (`…_error`).
        change: how far training moved the biases, see `_bias_change`.
        probe: of a text's label or score, metrics of a head alone on the frozen base, see `classify.probed`.
        signatures: of BLEU and chrF, as sacreBLEU tells them.
        left_out: metrics that say nothing about these references, each with the reason.
        timed: milliseconds that each model takes for one row, see `latency_ms`.
    """

    base: dict[str, float]
    tuned: dict[str, float]
    predictions: pl.DataFrame
    change: pl.DataFrame
    probe: dict[str, float] = field(default_factory=dict)
    signatures: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    timed: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation came to.

    Attributes:
        told: one line.
        observed: what varies from run to run: `base.latency_ms`, `tuned.latency_ms`.
    """

    told: str
    observed: dict[str, float]


def evaluate(task: Task, place: TaskPlace) -> Evaluated:
    """Run the stage.

    Raises:
        BiaslineError: for an empty test split, a slice column that is absent, or a delta that does not fit.
    """
    torch.set_num_threads(task.train.threads)
    test = read_split(place, "test")
    if test.is_empty():
        raise BiaslineError(f"{place.split('test')}: no test rows", "raise split.test")
    if absent := [name for name in task.evaluate.slices if name not in (*test.columns, LENGTH)]:
        raise BiaslineError(
            f"evaluate.slices: no column {absent[0]!r} in the data; it has: {', '.join(test.columns)}",
            "mend evaluate.slices in params.yaml",
        )
    pin, folder = verified_folder(Path(task.base))
    report = load_json(place.train_report, f"dvc repro train@{place.task}")
    check_base(report["base"], pin, "model")
    summary = read_summary(place)
    labels = summary.get("labels", [])
    decisive = decisive_metric(task, test["output"].to_list() if task.kind == "instruction" else ())
    found = _COMPARE[task.kind](task, place, pin, folder, test)
    metric = _declared(task, decisive.name, found)

    quality = load_json(place.quality, f"dvc repro validate@{place.task}")
    kind = columns_of(task.kind)
    sliced, slices = with_lengths(found.predictions, kind.prompt), tuple(dict.fromkeys((*task.evaluate.slices, LENGTH)))
    if task.kind == "regression":
        table, sections = regress.score_slices(sliced, slices), score_sections(found.predictions, kind)
    else:
        table = slice_table(sliced, slices, row_metric(found.predictions, metric, task.kind), task.kind)
        sections = class_sections(found.predictions, labels, kind) if labels else []
    metrics = _metrics(test, task, decisive, metric, report["fingerprint"], found)
    if len(labels) == 2:
        metrics["positive_label"] = labels[1]
    with replacing(place.predictions) as draft:
        write_parquet(found.predictions, draft)
    write_text(place.slices, table.write_csv(float_precision=6))
    write_text(place.bias_change, found.change.write_csv(float_precision=8))
    write_text(place.samples, samples_page(found.predictions, kind, task.evaluate.samples))
    write_text(place.card, model_card(place.task, task, metrics, report, quality, table, summary, sections))
    with replacing(place.confusion) as draft:
        draft.mkdir()
        if labels:
            pairs = found.predictions.select(pl.col("label").alias("actual"), pl.col("tuned").alias("predicted"))
            pairs.write_csv(draft / "labels.csv")
    write_text(place.metrics, dump_json(metrics))
    observed = {f"{who}.latency_ms": round(value, 3) for who, value in found.timed.items()}
    if task.kind == "instruction":
        print(f"judged by {metric.label}: {decisive.reason}")
    rows = measured_rows(found.predictions, metric).height
    return Evaluated(f"{_in_short(task, metric, rows, found)}; see {place.card}", observed)


def _in_short(task: Task, metric: Metric, rows: int, found: _Compared) -> str:
    """The metric that decides, of the base, of a head alone on it, and of the tuned model with its interval."""
    tuned, name = found.tuned, metric.name
    alone = f" head alone {found.probe[name]:.3f}," if name in found.probe else ""
    interval = format_interval(tuned.get(f"{name}_low"), tuned.get(f"{name}_high"))
    told = f"base {found.base[name]:.3f},{alone} tuned {tuned[name]:.3f}{interval}"
    if metric.beside:
        title = task.declared(metric.beside).title
        told += f"; {title} {found.base[metric.beside]:.3f}, {tuned[metric.beside]:.3f}"
    return f"{metric.label} on {rows} held-out rows: {told}"


def _declared(task: Task, name: str, found: _Compared) -> Metric:
    """The metric that decides, once it is sure that models can be compared by it."""
    if name not in found.tuned:
        raise BiaslineError(
            f"gates.metric: {name} is no metric of this task; it has: {', '.join(found.tuned)}", "mend gates.metric"
        )
    metric = task.declared(name)
    if not metric.decides or (metric.is_mean and not has_row_values(found.predictions, metric)):
        raise BiaslineError(
            f"gates.metric: {name} is no score of single answers, so models cannot be compared by it row by row",
            f"take {', '.join(deciding(task.kind))} or one of evaluate.metrics",
        )
    return metric


def rows_sha256(test: pl.DataFrame, task: Task) -> str:
    """Hash of the test rows' texts in their order: numbers compare only where it is equal."""
    rows = test.select(columns_of(task.kind).columns).rows()
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()


def _compare_answers(task: Task, place: TaskPlace, pin: Pin, folder: Path, test: pl.DataFrame) -> _Compared:
    """Generated answers of the untuned base and the tuned model."""
    model = load_causal_lm(pin, folder, task.load).to(best_device())
    tokenizer, settings = load_tokenizer(pin, folder), task.evaluate
    encoder = Encoder.from_params(tokenizer, task.tokens)
    room = prompt_room(task.tokens.max_length, settings.max_new_tokens, limits_of(folder).positions)
    prompts = encoder.prompts(dialogues_of(test, answered=False), room, test["row"].to_list())
    references, token_set = own_spelling(tokenizer, test["output"].to_list()), read_token_set(place, "test")
    own = OwnScores(Path(settings.metrics)) if settings.metrics else None
    timed, pad = {}, model.config.pad_token_id
    first = token_set.select(range(min(len(token_set), TIMED))).to_list()
    # An answer takes as many passes as it has tokens, over a row that is short by comparison.
    work = 2 * (_ANSWER_WORK * test.height + PASSES * len(first) + len(token_set))

    with progress("evaluate", work) as shown:

        def scored(model: PretrainedModel, who: str) -> Scored:
            answers = generate(
                model,
                tokenizer,
                prompts,
                Drawing.of(settings),
                settings.batch_size,
                encoder.stops(),
                shown.part(_ANSWER_WORK, f"answers of the {who} model"),
            )
            timed[who] = latency_ms(model, first, pad, shown.part(note=f"latency of the {who} model"))
            advance = shown.part(note=f"likelihoods of the {who} model")
            likelihood = score_likelihood(model, token_set[:], pad, settings.batch_size, advance)
            scores = own(test.rows(named=True), [answer.text for answer in answers]) if own else {}
            return Scored(answers, references, *likelihood, scores)

        base = scored(model, "base")
        change = _bias_change(task, place, model)
        tuned = scored(apply_tuned(task.train.method, model, place), "tuned")
    table, of_base, of_tuned = answered(test, list(token_set["row"]), base, tuned), base.measured, tuned.measured
    return _Compared(
        of_base.values,
        of_tuned.values,
        table,
        change,
        signatures=of_tuned.signatures,
        left_out=of_tuned.left_out,
        timed=timed,
    )


def _compare_labels(task: Task, place: TaskPlace, pin: Pin, folder: Path, test: pl.DataFrame) -> _Compared:
    """Labels of the majority class (an untrained head knows nothing better) and of the tuned model."""
    labels = read_summary(place)["labels"]
    headed = _headed(task, place, pin, folder, labels)
    with progress("evaluate", headed.work) as shown:
        numbers = classify.probed(
            headed.model, headed.taught, headed.rows, *headed.batches, shown.part(note="head alone on the frozen base")
        )
        with_head = [labels[number] for number in numbers]
        timed = {"base": headed.latency(headed.model, shown)}
        tuned_model = headed.tuned()
        found = classify.probabilities(tuned_model, headed.rows, *headed.batches, shown.part(note="tuned model"))
        timed["tuned"] = headed.latency(tuned_model, shown)
    train = read_split(place, "train")["label"]
    majority = max(labels, key=lambda label: (int((train == label).sum()), label))
    table = classify.predictions(test, labels, found, majority)
    reference = test["label"].to_list()
    base, probe = (classify.class_metrics(reference, given, labels) for given in (table["base"].to_list(), with_head))
    tuned = classify.class_metrics(reference, table["tuned"].to_list(), labels, table["probability"].to_list())
    return _Compared(base, tuned, table, headed.change, probe, timed=timed)


def _compare_scores(task: Task, place: TaskPlace, pin: Pin, folder: Path, test: pl.DataFrame) -> _Compared:
    """Scores of the training rows' mean (an untrained head knows nothing better) and of the tuned model."""
    scale = read_summary(place)["score"]
    headed = _headed(task, place, pin, folder, [])
    with progress("evaluate", headed.work) as shown:
        with_head = regress.probed(
            headed.model, headed.taught, headed.rows, *headed.batches, shown.part(note="head alone on the frozen base")
        )
        timed = {"base": headed.latency(headed.model, shown)}
        tuned_model = headed.tuned()
        found = regress.scores(tuned_model, headed.rows, *headed.batches, scale, shown.part(note="tuned model"))
        timed["tuned"] = headed.latency(tuned_model, shown)
    table = regress.predictions(test, found, scale["mean"])
    reference = test["score"].cast(pl.Float64).to_numpy()
    base, tuned, probe = (
        regress.score_metrics(reference, np.asarray(given)) for given in (table["base"], table["tuned"], with_head)
    )
    return _Compared(base, tuned, table, headed.change, probe, timed=timed)


@dataclass(frozen=True)
class _Headed:
    """A base with a new head, before what was trained is in it, and what it is asked.

    Attributes:
        tuned: puts in what was trained, and gives the model to ask.
        taught: training rows for a probe, evenly spread, since files are often sorted by label.
        rows: the test rows in tokens.
        batches: the token to pad with, and rows per batch.
    """

    model: PretrainedModel
    tuned: Callable[[], PretrainedModel]
    taught: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    batches: tuple[int, int]
    change: pl.DataFrame

    @property
    def work(self) -> int:
        """Rows that go through a model: those of the probe, and the test rows for it, for the head, for the clock."""
        return len(self.taught) + 2 * len(self.rows) + 2 * PASSES * min(len(self.rows), TIMED)

    def latency(self, model: PretrainedModel, shown: Progress) -> float:
        """Milliseconds that a model takes for one row."""
        return latency_ms(model, self.rows, self.batches[0], shown.part(note="latency"))


def _headed(task: Task, place: TaskPlace, pin: Pin, folder: Path, labels: Sequence[str]) -> _Headed:
    chosen = task.train
    model, _ = load_classifier(pin, folder, task.load, labels, chosen.seed, chosen.head, pooling=chosen.pooling)
    model.to(best_device())
    train = read_token_set(place, "train")
    spread = np.unique(np.linspace(0, len(train) - 1, PROBED).astype(int))
    rows, pad = read_token_set(place, "test").to_list(), model.config.pad_token_id
    return _Headed(
        model,
        lambda: apply_tuned(chosen.method, model, place),
        train.select(spread).to_list(),
        rows,
        (pad, task.evaluate.batch_size),
        _bias_change(task, place, model),
    )


_COMPARE = {"instruction": _compare_answers, "classification": _compare_labels, "regression": _compare_scores}


def _metrics(
    test: pl.DataFrame, task: Task, decisive: Decisive, metric: Metric, fingerprint: str, found: _Compared
) -> dict[str, Any]:
    sliced = row_metric(found.predictions, metric, task.kind)
    if task.kind == "regression":
        name = "squared_error_saved"
        rows = regress.closeness(found.predictions, "tuned"), regress.closeness(found.predictions, "base")
    else:
        name = sliced.name
        rows = paired_values(measured_rows(found.predictions, sliced), sliced, task.kind)
    gain = zip((name, f"{name}_low", f"{name}_high"), paired_interval(*rows), strict=True)
    return {
        "fingerprint": fingerprint,
        "rows": test.height,
        "test_sha256": rows_sha256(test, task),
        "metric": decisive.name,
        "metric_reason": decisive.reason,
        "sliced_by": sliced.name,
        **({"signatures": found.signatures} if found.signatures else {}),
        **({"left_out": found.left_out} if found.left_out else {}),
        "base": found.base,
        **({"probe": found.probe} if found.probe else {}),
        "tuned": found.tuned,
        "gain": {key: round(value, 6) for key, value in gain},
    }


def _bias_change(task: Task, place: TaskPlace, model: Any) -> pl.DataFrame:
    """How far training moved the biases: root mean square of the change per layer and role; no rows without a delta."""
    squares: dict[tuple[int, str], list[torch.Tensor]] = {}
    changes = BiasDelta.load(place.delta).change(model) if method_spec(task.train.method).makes_delta else []
    for bias, change in changes:
        squares.setdefault((-1 if bias.layer is None else bias.layer, bias.role), []).append(change.square())
    rows = [[layer, role, torch.cat(parts).mean().sqrt().item()] for (layer, role), parts in sorted(squares.items())]
    return pl.DataFrame(rows, schema={"layer": pl.Int64, "role": pl.String, "change": pl.Float64}, orient="row")
