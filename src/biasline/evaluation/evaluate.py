"""The evaluate stage: base and tuned model on the same test rows → metrics, predictions, slices, pages."""

import hashlib
import json
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
from biasline.evaluation.card import class_sections, model_card, samples_page
from biasline.evaluation.classify import (
    PROBED,
    calibration,
    calibration_error,
    class_metrics,
    predictions,
    probabilities,
    probed,
)
from biasline.evaluation.generate import generate
from biasline.evaluation.scoring import LENGTH, Scored, answered, score_likelihood, slice_table, with_lengths
from biasline.evaluation.statistics import paired_interval
from biasline.jsonfile import dump_json, load_json
from biasline.layout import TaskPlace, replacing, write_parquet, write_text
from biasline.params import DELTA_METHODS, Task
from biasline.progress import progress
from biasline.tokens.mask import Encoder
from biasline.tokens.sets import dialogues_of, read_summary, read_token_set
from biasline.training.methods import apply_tuned


@dataclass(frozen=True)
class _Compared:
    """Base and tuned model on the test rows.

    Attributes:
        base, tuned: metrics of each, under the same names.
        predictions: the test rows with both answers (`base`, `tuned`) and whether they are right (`…_exact`).
        change: how far training moved the biases, see `_bias_change`.
        probe: of a classification, metrics of a head alone on the frozen base, see `probed`.
    """

    base: dict[str, float]
    tuned: dict[str, float]
    predictions: pl.DataFrame
    change: pl.DataFrame
    probe: dict[str, float] = field(default_factory=dict)


def evaluate(task: Task, place: TaskPlace) -> str:
    """Run the stage.

    Returns: one line that tells what came out.

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
    compare = _compare_labels if labels else _compare_answers
    found = compare(task, place, pin, folder, test)

    quality = load_json(place.quality, f"dvc repro validate@{place.task}")
    kind = KINDS[task.kind]
    sliced = with_lengths(found.predictions, kind.prompt)
    table = slice_table(sliced, tuple(dict.fromkeys((*task.evaluate.slices, LENGTH))))
    metrics = _metrics(test, task, report["fingerprint"], found)
    with replacing(place.predictions) as draft:
        write_parquet(found.predictions, draft)
    write_text(place.slices, table.write_csv(float_precision=6))
    write_text(place.bias_change, found.change.write_csv(float_precision=8))
    write_text(place.samples, samples_page(found.predictions, kind, task.evaluate.samples))
    sections = class_sections(found.predictions, labels, kind) if labels else []
    write_text(place.card, model_card(place.task, task, metrics, report, quality, table, labels, sections))
    with replacing(place.confusion) as draft:
        draft.mkdir()
        if labels:
            pairs = found.predictions.select(pl.col("label").alias("actual"), pl.col("tuned").alias("predicted"))
            pairs.write_csv(draft / "labels.csv")
    write_text(place.metrics, dump_json(metrics))
    tuned, name = found.tuned, "accuracy" if task.kind == "classification" else "exact_match"
    return (
        f"{name.replace('_', ' ')} on {test.height} held-out rows: base {found.base[name]:.3f}, tuned "
        f"{tuned[name]:.3f} [{tuned[f'{name}_low']:.3f}, {tuned[f'{name}_high']:.3f}]; see {place.card}"
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

    with progress("answers", 2 * test.height) as shown:

        def scored(model: Any, who: str, offset: int) -> Scored:
            answers = generate(
                model,
                tokenizer,
                prompts,
                settings.max_new_tokens,
                settings.batch_size,
                encoder.stops(),
                lambda done: shown.at(offset + done, who),
            )
            exact = np.array([answer == text.strip() for answer, text in zip(answers, references, strict=True)])
            likelihood = score_likelihood(model, token_set, model.config.pad_token_id, settings.batch_size)
            return Scored(answers, exact, *likelihood)

        base = scored(model, "base", 0)
        change = _bias_change(task, place, model)
        tuned = scored(apply_tuned(task.train.method, model, place), "tuned", test.height)
    return _Compared(base.metrics(), tuned.metrics(), answered(test, list(token_set["row"]), base, tuned), change)


def _compare_labels(task: Task, place: TaskPlace, pin: Pin, folder: Path, test: pl.DataFrame) -> _Compared:
    """Labels of the majority class (an untrained head knows nothing better) and of the tuned model."""
    labels, chosen = read_summary(place)["labels"], task.train
    model, _ = load_classifier(pin, folder, task.load, labels, chosen.seed, chosen.head, pooling=chosen.pooling)
    model.to(best_device())
    change = _bias_change(task, place, model)
    rows, taught = read_token_set(place, "test").to_list(), read_token_set(place, "train")
    pad, size = model.config.pad_token_id, task.evaluate.batch_size
    # Evenly spread: files are often sorted by label.
    taught = taught.select(np.unique(np.linspace(0, len(taught) - 1, PROBED).astype(int))).to_list()
    with_head = [labels[number] for number in probed(model, taught, rows, pad, size)]
    model = apply_tuned(chosen.method, model, place)
    found = probabilities(model, rows, pad, size)
    train = read_split(place, "train")["label"]
    majority = max(labels, key=lambda label: (int((train == label).sum()), label))
    table = predictions(test, labels, found, majority)
    reference = test["label"].to_list()
    base, tuned, probe = (
        class_metrics(reference, given, labels) for given in (table["base"], table["tuned"], with_head)
    )
    tuned["calibration_error"] = round(calibration_error(calibration(table)), 6)
    return _Compared(base, tuned, table, change, probe)


def _metrics(test: pl.DataFrame, task: Task, fingerprint: str, found: _Compared) -> dict[str, Any]:
    exact = (found.predictions[f"{who}_exact"].to_numpy() for who in ("tuned", "base"))
    name = "accuracy" if task.kind == "classification" else "exact_match"
    gain = zip((name, f"{name}_low", f"{name}_high"), paired_interval(*exact), strict=True)
    return {
        "fingerprint": fingerprint,
        "rows": test.height,
        "test_sha256": rows_sha256(test, task),
        "base": found.base,
        **({"probe": found.probe} if found.probe else {}),
        "tuned": found.tuned,
        "gain": {key: round(value, 6) for key, value in gain},
    }


def _bias_change(task: Task, place: TaskPlace, model: Any) -> pl.DataFrame:
    """How far training moved the biases: root mean square of the change per layer and role; no rows without a delta."""
    squares: dict[tuple[int, str], list[torch.Tensor]] = {}
    changes = BiasDelta.load(place.delta).change(model) if task.train.method in DELTA_METHODS else []
    for bias, change in changes:
        squares.setdefault((-1 if bias.layer is None else bias.layer, bias.role), []).append(change.square())
    rows = [[layer, role, torch.cat(parts).mean().sqrt().item()] for (layer, role), parts in sorted(squares.items())]
    return pl.DataFrame(rows, schema={"layer": pl.Int64, "role": pl.String, "change": pl.Float64}, orient="row")
