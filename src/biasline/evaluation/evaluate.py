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

from biasline.bases.load import best_device, load_causal_lm, load_classifier
from biasline.bases.match import check_base
from biasline.bases.pin import Pin, load_tokenizer, verified_folder
from biasline.bitfit import BiasDelta
from biasline.data.kinds import KINDS
from biasline.data.split import read_split
from biasline.errors import BiaslineError
from biasline.evaluation import classify, regress
from biasline.evaluation.card import class_sections, model_card, samples_page, score_sections
from biasline.evaluation.generate import Drawing, generate
from biasline.evaluation.heads import PROBED
from biasline.evaluation.overlap import OwnScores, bleu_and_chrf
from biasline.evaluation.scoring import (
    LENGTH,
    TIMED,
    Scored,
    answered,
    latency_ms,
    score_likelihood,
    slice_table,
    with_lengths,
)
from biasline.evaluation.statistics import is_per_row, paired_interval, row_scores
from biasline.jsonfile import dump_json, load_json
from biasline.layout import TaskPlace, replacing, write_parquet, write_text
from biasline.params import DELTA_METHODS, MAIN_METRIC, Task
from biasline.progress import progress
from biasline.tokens.mask import Encoder
from biasline.tokens.sets import dialogues_of, read_summary, read_token_set
from biasline.training.methods import apply_tuned


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
        timed: milliseconds that each model takes for one row, see `latency_ms`.
    """

    base: dict[str, float]
    tuned: dict[str, float]
    predictions: pl.DataFrame
    change: pl.DataFrame
    probe: dict[str, float] = field(default_factory=dict)
    signatures: dict[str, str] = field(default_factory=dict)
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

    Errors: `BiaslineError` for an empty test split, a slice column that is absent, or a delta that does not fit.
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
    labels = read_summary(place).get("labels", [])
    found = _COMPARE[task.kind](task, place, pin, folder, test)
    _check_metric(task.metric, found)

    quality = load_json(place.quality, f"dvc repro validate@{place.task}")
    kind = KINDS[task.kind]
    sliced, slices = with_lengths(found.predictions, kind.prompt), tuple(dict.fromkeys((*task.evaluate.slices, LENGTH)))
    if task.kind == "regression":
        table, sections = regress.score_slices(sliced, slices), score_sections(found.predictions, kind)
    else:
        table = slice_table(sliced, slices, _row_metric(task, found))
        sections = class_sections(found.predictions, labels, kind) if labels else []
    metrics = _metrics(test, task, report["fingerprint"], found)
    if len(labels) == 2:
        metrics["positive_label"] = labels[1]
    with replacing(place.predictions) as draft:
        write_parquet(found.predictions, draft)
    write_text(place.slices, table.write_csv(float_precision=6))
    write_text(place.bias_change, found.change.write_csv(float_precision=8))
    write_text(place.samples, samples_page(found.predictions, kind, task.evaluate.samples))
    write_text(place.card, model_card(place.task, task, metrics, report, quality, table, labels, sections))
    with replacing(place.confusion) as draft:
        draft.mkdir()
        if labels:
            pairs = found.predictions.select(pl.col("label").alias("actual"), pl.col("tuned").alias("predicted"))
            pairs.write_csv(draft / "labels.csv")
    write_text(place.metrics, dump_json(metrics))
    observed = {f"{who}.latency_ms": round(value, 3) for who, value in found.timed.items()}
    return Evaluated(f"{_in_short(task.metric, test.height, found)}; see {place.card}", observed)


def _in_short(name: str, rows: int, found: _Compared) -> str:
    """The metric that decides, of the base, of a head alone on it, and of the tuned model with its interval."""
    tuned, ends = found.tuned, (f"{name}_low", f"{name}_high")
    alone = f" head alone {found.probe[name]:.3f}," if name in found.probe else ""
    interval = f" [{tuned[ends[0]]:.3f}, {tuned[ends[1]]:.3f}]" if ends[0] in tuned else ""
    told = f"base {found.base[name]:.3f},{alone} tuned {tuned[name]:.3f}{interval}"
    return f"{name.replace('_', ' ')} on {rows} held-out rows: {told}"


def _check_metric(name: str, found: _Compared) -> None:
    """Whether models can be compared by the metric that decides."""
    if name not in found.tuned:
        raise BiaslineError(
            f"gates.metric: {name} is no metric of this task; it has: {', '.join(found.tuned)}", "mend gates.metric"
        )
    if "output" in found.predictions.columns and not is_per_row(found.predictions, name):
        raise BiaslineError(
            f"gates.metric: {name} is no score of single answers, so models cannot be compared by it row by row",
            "take exact_match, token_accuracy, rouge_l or one of evaluate.metrics",
        )


def rows_sha256(test: pl.DataFrame, task: Task) -> str:
    """Hash of the test rows' texts in their order: numbers compare only where it is equal."""
    rows = test.select(KINDS[task.kind].columns).rows()
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()


def _compare_answers(task: Task, place: TaskPlace, pin: Pin, folder: Path, test: pl.DataFrame) -> _Compared:
    """Generated answers of the untuned base and the tuned model."""
    model = load_causal_lm(pin, folder, task.load).to(best_device())
    tokenizer = load_tokenizer(pin, folder)
    encoder = Encoder(tokenizer, task.tokens.template, task.tokens.max_length)
    prompts = encoder.prompts(dialogues_of(test, answered=False))
    references, token_set = test["output"].to_list(), read_token_set(place, "test")
    settings = task.evaluate
    own = OwnScores(Path(settings.metrics)) if settings.metrics else None
    timed = {}

    with progress("answers", 2 * test.height) as shown:

        def scored(model: Any, who: str, offset: int) -> Scored:
            answers = generate(
                model,
                tokenizer,
                prompts,
                Drawing.of(settings),
                settings.batch_size,
                encoder.stops(),
                lambda done: shown.at(offset + done, who),
            )
            pad = model.config.pad_token_id
            timed[who] = latency_ms(model, token_set.select(range(min(len(token_set), TIMED))).to_list(), pad)
            likelihood = score_likelihood(model, token_set[:], pad, settings.batch_size)
            scores = own(test.rows(named=True), [answer.text for answer in answers]) if own else {}
            return Scored(answers, references, *likelihood, scores)

        base = scored(model, "base", 0)
        change = _bias_change(task, place, model)
        tuned = scored(apply_tuned(task.train.method, model, place), "tuned", test.height)
    table, signatures = answered(test, list(token_set["row"]), base, tuned), bleu_and_chrf(tuned.texts, references)[1]
    return _Compared(base.metrics(), tuned.metrics(), table, change, signatures=signatures, timed=timed)


def _compare_labels(task: Task, place: TaskPlace, pin: Pin, folder: Path, test: pl.DataFrame) -> _Compared:
    """Labels of the majority class (an untrained head knows nothing better) and of the tuned model."""
    labels = read_summary(place)["labels"]
    headed = _headed(task, place, pin, folder, labels)
    with_head = [
        labels[number] for number in classify.probed(headed.model, headed.taught, headed.rows, *headed.batches)
    ]
    tuned_model = headed.tuned()
    found = classify.probabilities(tuned_model, headed.rows, *headed.batches)
    train = read_split(place, "train")["label"]
    majority = max(labels, key=lambda label: (int((train == label).sum()), label))
    table = classify.predictions(test, labels, found, majority)
    reference = test["label"].to_list()
    base, tuned, probe = (
        classify.class_metrics(reference, given, labels) for given in (table["base"], table["tuned"], with_head)
    )
    tuned["calibration_error"] = round(classify.calibration_error(classify.calibration(table)), 6)
    return _Compared(base, tuned, table, headed.change, probe, timed=headed.timed(tuned_model))


def _compare_scores(task: Task, place: TaskPlace, pin: Pin, folder: Path, test: pl.DataFrame) -> _Compared:
    """Scores of the training rows' mean (an untrained head knows nothing better) and of the tuned model."""
    scale = read_summary(place)["score"]
    headed = _headed(task, place, pin, folder, [])
    with_head = regress.probed(headed.model, headed.taught, headed.rows, *headed.batches)
    tuned_model = headed.tuned()
    table = regress.predictions(test, regress.scores(tuned_model, headed.rows, *headed.batches, scale), scale["mean"])
    reference = test["score"].cast(pl.Float64).to_numpy()
    base, tuned, probe = (
        regress.score_metrics(reference, np.asarray(given)) for given in (table["base"], table["tuned"], with_head)
    )
    return _Compared(base, tuned, table, headed.change, probe, timed=headed.timed(tuned_model))


@dataclass(frozen=True)
class _Headed:
    """A base with a new head, before what was trained is in it, and what it is asked.

    Attributes:
        tuned: puts in what was trained, and gives the model to ask.
        taught: training rows for a probe, evenly spread, since files are often sorted by label.
        rows: the test rows in tokens.
        batches: the token to pad with, and rows per batch.
        base_ms: what the base takes for one row, see `latency_ms`.
    """

    model: Any
    tuned: Callable[[], Any]
    taught: list[dict[str, Any]]
    rows: list[dict[str, Any]]
    batches: tuple[int, int]
    change: pl.DataFrame
    base_ms: float

    def timed(self, tuned_model: Any) -> dict[str, float]:
        return {"base": self.base_ms, "tuned": latency_ms(tuned_model, self.rows, self.batches[0])}


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
        latency_ms(model, rows, pad),
    )


_COMPARE = {"instruction": _compare_answers, "classification": _compare_labels, "regression": _compare_scores}


def _metrics(test: pl.DataFrame, task: Task, fingerprint: str, found: _Compared) -> dict[str, Any]:
    sliced = "mae" if task.kind == "regression" else _row_metric(task, found)
    rows = (row_scores(found.predictions, who, sliced) for who in ("tuned", "base"))
    name = "squared_error_saved" if task.kind == "regression" else sliced
    gain = zip((name, f"{name}_low", f"{name}_high"), paired_interval(*rows), strict=True)
    return {
        "fingerprint": fingerprint,
        "rows": test.height,
        "test_sha256": rows_sha256(test, task),
        "metric": task.metric,
        "sliced_by": sliced,
        **({"signatures": found.signatures} if found.signatures else {}),
        "base": found.base,
        **({"probe": found.probe} if found.probe else {}),
        "tuned": found.tuned,
        "gain": {key: round(value, 6) for key, value in gain},
    }


def _row_metric(task: Task, found: _Compared) -> str:
    """The metric that decides if rows have values of it, else the share of right answers."""
    return task.metric if f"tuned_{task.metric}" in found.predictions.columns else MAIN_METRIC[task.kind]


def _bias_change(task: Task, place: TaskPlace, model: Any) -> pl.DataFrame:
    """How far training moved the biases: root mean square of the change per layer and role; no rows without a delta."""
    squares: dict[tuple[int, str], list[torch.Tensor]] = {}
    changes = BiasDelta.load(place.delta).change(model) if task.train.method in DELTA_METHODS else []
    for bias, change in changes:
        squares.setdefault((-1 if bias.layer is None else bias.layer, bias.role), []).append(change.square())
    rows = [[layer, role, torch.cat(parts).mean().sqrt().item()] for (layer, role), parts in sorted(squares.items())]
    return pl.DataFrame(rows, schema={"layer": pl.Int64, "role": pl.String, "change": pl.Float64}, orient="row")
