"""The evaluate stage: untuned base and tuned model on the same test rows → metrics, predictions, slices, pages."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from biasline.bases.load import best_device, load_causal_lm
from biasline.bases.pin import load_tokenizer, verified_folder
from biasline.bitfit import BiasDelta
from biasline.data.split import read_split
from biasline.errors import BiaslineError
from biasline.evaluation.card import model_card, samples_page
from biasline.evaluation.generate import generate
from biasline.evaluation.scoring import Scored, score_likelihood, slice_table
from biasline.evaluation.statistics import paired_interval
from biasline.jsonfile import dump_json, load_json
from biasline.layout import TaskPlace, write_text
from biasline.params import Task
from biasline.progress import Progress, progress
from biasline.tokens.mask import Encoder
from biasline.tokens.sets import prompts_of, read_token_set


def evaluate(task: Task, place: TaskPlace) -> str:
    """Run the stage.

    Returns: one line that tells what came out.

    Errors: `BiaslineError` for an empty test split, a slice column that is absent, or a delta that does not fit.
    """
    torch.set_num_threads(task.train.threads)
    test = read_split(place, "test")
    if test.is_empty():
        raise BiaslineError(f"{place.split('test')}: no test rows", "raise split.test")
    if absent := [name for name in task.evaluate.slices if name not in test.columns]:
        raise BiaslineError(
            f"evaluate.slices: no column {absent[0]!r} in the data; it has: {', '.join(test.columns)}",
            "mend evaluate.slices in params.yaml",
        )
    pin, folder = verified_folder(Path(task.base))
    model = load_causal_lm(pin, folder, task.load).to(best_device())
    tokenizer = load_tokenizer(pin, folder)
    delta = BiasDelta.load(place.delta)
    prompts = Encoder(tokenizer, task.tokens.max_length).prompts(prompts_of(test, task.tokens.template))

    token_set = read_token_set(place, "test")

    with progress("answers", 2 * test.height) as shown:
        base = _score(model, tokenizer, prompts, test, token_set, task, shown, 0)
        change = _bias_change(delta, model)
        with delta.applied(model):
            tuned = _score(model, tokenizer, prompts, test, token_set, task, shown, test.height)

    predictions = _predictions(test, list(token_set["row"]), base, tuned)
    table = slice_table(predictions, task.evaluate.slices)
    report = load_json(place.train_report, f"dvc repro train@{place.task}")
    metrics = _metrics(test, base, tuned, report["fingerprint"])
    quality = load_json(place.quality, f"dvc repro validate@{place.task}")

    place.evaluation.mkdir(parents=True, exist_ok=True)
    predictions.write_parquet(place.predictions)
    table.write_csv(place.slices, float_precision=6)
    change.write_csv(place.bias_change, float_precision=8)
    write_text(place.samples, samples_page(predictions, task.evaluate.samples))
    write_text(place.card, model_card(place.task, task, metrics, report, quality, table, delta.manifest))
    write_text(place.metrics, dump_json(metrics))
    return (
        f"exact match on {metrics['rows']} held-out rows: base {metrics['base']['exact_match']:.3f}, tuned "
        f"{metrics['tuned']['exact_match']:.3f} [{metrics['tuned']['exact_match_low']:.3f}, "
        f"{metrics['tuned']['exact_match_high']:.3f}]; see {place.card}"
    )


def rows_sha256(test: pl.DataFrame) -> str:
    """Hash of the test rows' texts in their order: numbers compare only where it is equal."""
    rows = test.select("instruction", "input", "output").rows()
    return hashlib.sha256(json.dumps(rows, ensure_ascii=False).encode()).hexdigest()


def _score(
    model: Any,
    tokenizer: Any,
    prompts: list[list[int]],
    test: pl.DataFrame,
    token_set: Any,
    task: Task,
    shown: Progress,
    offset: int,
) -> Scored:
    settings = task.evaluate
    answers = generate(
        model,
        tokenizer,
        prompts,
        settings.max_new_tokens,
        settings.batch_size,
        lambda done: shown.at(offset + done, "tuned" if offset else "base"),
    )
    pairs = zip(answers, test["output"].to_list(), strict=True)
    exact = np.array([answer == reference.strip() for answer, reference in pairs])
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    likelihood = score_likelihood(model, token_set, pad, settings.batch_size)
    return Scored(answers, exact, *likelihood)


def _predictions(test: pl.DataFrame, rows: list[int], base: Scored, tuned: Scored) -> pl.DataFrame:
    """Test rows with both models' answers; likelihoods are null where tokenization left a row out of `rows`."""
    likelihood = pl.DataFrame(
        {
            "row": rows,
            "tokens": tuned.tokens,
            "base_nll": base.nll,
            "tuned_nll": tuned.nll,
            "base_hits": base.hits,
            "tuned_hits": tuned.hits,
        },
        schema_overrides={"row": pl.Int64},
    )
    return test.with_columns(
        pl.Series("base", base.answers, dtype=pl.String),
        pl.Series("tuned", tuned.answers, dtype=pl.String),
        pl.Series("base_exact", base.exact),
        pl.Series("tuned_exact", tuned.exact),
    ).join(likelihood, on="row", how="left", maintain_order="left")


def _metrics(test: pl.DataFrame, base: Scored, tuned: Scored, fingerprint: str) -> dict[str, Any]:
    mean, low, high = paired_interval(tuned.exact, base.exact)
    gain = {"exact_match": mean, "exact_match_low": low, "exact_match_high": high}
    return {
        "fingerprint": fingerprint,
        "rows": test.height,
        "test_sha256": rows_sha256(test),
        "base": base.metrics(),
        "tuned": tuned.metrics(),
        "gain": {name: round(value, 6) for name, value in gain.items()},
    }


def _bias_change(delta: BiasDelta, model: Any) -> pl.DataFrame:
    """How far training moved the biases: root mean square of the change per layer and role."""
    squares: dict[tuple[int, str], list[torch.Tensor]] = {}
    for bias, change in delta.change(model):
        squares.setdefault((-1 if bias.layer is None else bias.layer, bias.role), []).append(change.square())
    rows = [[layer, role, torch.cat(parts).mean().sqrt().item()] for (layer, role), parts in sorted(squares.items())]
    return pl.DataFrame(rows, schema={"layer": pl.Int64, "role": pl.String, "change": pl.Float64}, orient="row")
