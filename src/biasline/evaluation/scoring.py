"""Both models on the test split: answers, and the likelihood of the right answers."""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import torch

from biasline.bitfit.asked import batch_of
from biasline.bitfit.pretrained import PretrainedModel
from biasline.evaluation.generate import Answer
from biasline.evaluation.measure import Measured, measure, measured_rows, row_values
from biasline.evaluation.prefix import Prefix
from biasline.evaluation.statistics import bootstrap_mean, wilson_interval
from biasline.metrics.metric import Metric, Predictions, own_metric
from biasline.metrics.table import metrics_of
from biasline.progress import Advance
from biasline.tokens.saved import IGNORED
from biasline.training.loss import ResponseTokens, padded, supervised_logits, target_losses

# A slice that every task has.
LENGTH = "length"
# Rows whose forward pass is timed, so often each.
TIMED, PASSES = 16, 4


@dataclass(frozen=True)
class Scored:
    """One model on the test split.

    Attributes:
        kind: of task, whose metrics are taken.
        answers: generated text per test row, and whether it came to an end.
        references: the right answers.
        nll: summed negative log-likelihood of the reference's tokens, EOS included, per row of the token set.
        tokens: number of those tokens, per row of the token set.
        hits: how many of them were the likeliest token, given all before them.
        own: a project's own scores per test row, see `OwnScores`.
    """

    kind: str
    answers: list[Answer]
    references: list[str]
    nll: np.ndarray
    tokens: np.ndarray
    hits: np.ndarray
    own: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        """The answers' texts alone."""
        return [answer.text for answer in self.answers]

    @cached_property
    def exact(self) -> np.ndarray:
        """Whether an answer is the reference, white space at the ends aside, (rows,)."""
        pairs = zip(self.texts, self.references, strict=True)
        return np.array([answer == reference.strip() for answer, reference in pairs])

    @cached_property
    def predictions(self) -> Predictions:
        """What metrics are computed from."""
        columns = {"exact": self.exact, "nll": self.nll, "hits": self.hits, **self.own}
        columns["never_ending_rate"] = np.array([not answer.ended for answer in self.answers])
        references, texts = (np.array(list(texts), dtype=object) for texts in (self.references, self.texts))
        return Predictions(references, texts, columns, self.tokens)

    @cached_property
    def stored(self) -> dict[str, np.ndarray]:
        """Metrics of each answer that predictions keep, (rows,) each."""
        chosen = (metric for metric in metrics_of(self.kind) if metric.stored)
        return {**{metric.name: metric.of_each_row(self.predictions) for metric in chosen}, **self.own}

    @cached_property
    def measured(self) -> Measured:
        """All metrics of answers; a project's own stand behind those of single answers, before those of the whole."""
        declared = metrics_of(self.kind)
        place = next((index for index, metric in enumerate(declared) if metric.row_values is None), len(declared))
        own = (own_metric(name, self.kind) for name in self.own)
        predictions = replace(self.predictions, columns={**self.predictions.columns, **self.stored})
        return measure((*declared[:place], *own, *declared[place:]), predictions)


def score_likelihood(
    model: PretrainedModel,
    columns: Mapping[str, list[Any]],
    pad: int,
    batch_size: int,
    advance: Advance = lambda _: None,
    prefix: Prefix | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per row of a token set, given by its columns: summed NLL, supervised tokens, and how many were the likeliest.

    Args:
        model: a causal language model in eval mode.
        columns: the token set's `row`, `input_ids` and `labels`.
        pad: token id to pad with.
        batch_size: rows at once.
        advance: told of each batch how many rows it had.
        prefix: what all rows begin with, of this model; nothing of it is supervised.
    """
    count = len(columns["row"])
    nll, tokens, hits = np.zeros(count), np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
    order = sorted(range(count), key=lambda index: (len(columns["input_ids"][index]), index))
    for start in range(0, count, batch_size):
        chosen = order[start : start + batch_size]
        batch = ResponseTokens().collate(
            [{name: values[index] for name, values in columns.items()} for index in chosen], pad
        )
        batch, given = batch.to(model.device), {}
        if prefix:
            # The mask is of all tokens, as it is with any cache.
            inputs = {**batch.inputs, "input_ids": batch.inputs["input_ids"][:, len(prefix.ids) :]}
            batch = replace(batch, inputs=inputs, labels=batch.labels[:, len(prefix.ids) :])
            given = {"past_key_values": prefix.of_batch(len(chosen))}
        with torch.inference_mode(), batch_of(chosen):
            logits, targets = supervised_logits(model, batch, **given)
            losses, right = target_losses(logits, targets).cpu(), (logits.argmax(-1) == targets).cpu()
        # The supervised tokens come row by row; counts per row cut them apart again.
        counts = (batch.labels[:, 1:] != IGNORED).sum(1).tolist()
        for index, row_losses, row_right in zip(chosen, losses.split(counts), right.split(counts), strict=True):
            nll[index] = row_losses.double().sum().item()
            tokens[index] = len(row_losses)
            hits[index] = int(row_right.sum())
        advance(len(chosen))
    return nll, tokens, hits


def latency_ms(
    model: PretrainedModel, rows: Sequence[dict[str, Any]], pad: int, advance: Advance = lambda _: None
) -> float:
    """Time of one forward pass over one row, in milliseconds: what a caller waits for at the least.

    The median over rows of each row's shortest pass: what else the machine does makes passes longer, never shorter.

    Args:
        model: in eval mode.
        rows: the model's inputs; the first few are taken.
        pad: token id to pad with.
        advance: told of the passes that were made.
    """
    batches = [padded([row], pad) for row in rows[:TIMED]]
    shortest = [math.inf] * len(batches)
    for _ in range(PASSES):
        for place, batch in enumerate(batches):
            inputs = {name: tensor.to(model.device) for name, tensor in batch.items()}
            started = time.perf_counter()
            with torch.inference_mode(), batch_of([rows[place].get("number", place)]):
                # The sum makes an accelerator finish.
                float(model(**inputs).logits.float().sum())
            shortest[place] = min(shortest[place], time.perf_counter() - started)
            advance(1)
    return 1000 * statistics.median(shortest)


def answered(test: pl.DataFrame, rows: list[int], base: Scored, tuned: Scored) -> pl.DataFrame:
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
    scores = [
        pl.Series(f"{who}_{name}", values)
        for who, one in (("base", base), ("tuned", tuned))
        for name, values in one.stored.items()
    ]
    return test.with_columns(
        pl.Series("base", base.texts, dtype=pl.String),
        pl.Series("tuned", tuned.texts, dtype=pl.String),
        pl.Series("base_exact", base.exact),
        pl.Series("tuned_exact", tuned.exact),
        *scores,
    ).join(likelihood, on="row", how="left", maintain_order="left")


def with_lengths(frame: pl.DataFrame, columns: tuple[str, ...]) -> pl.DataFrame:
    """Rows with a column `length`: short, middle or long, by thirds of the characters of some columns.

    A column of that name in the data stays as it is.
    """
    if LENGTH in frame.columns:
        return frame
    size = pl.sum_horizontal(pl.col(name).fill_null("").str.len_chars() for name in columns)
    sizes = frame.select(size).to_series()
    low, high = (int(sizes.quantile(share, "lower") or 0) for share in (1 / 3, 2 / 3))
    names = (f"1: up to {low} characters", f"2: up to {high} characters", "3: more")
    return frame.with_columns(
        pl.when(sizes <= low)
        .then(pl.lit(names[0]))
        .when(sizes <= high)
        .then(pl.lit(names[1]))
        .otherwise(pl.lit(names[2]))
        .alias(LENGTH)
    )


def slice_table(frame: pl.DataFrame, slices: tuple[str, ...], metric: Metric, kind: str) -> pl.DataFrame:
    """A metric of both models per value of each slice column, with intervals for the tuned one.

    Args:
        frame: predictions.
        slices: columns.
        metric: one that rows have values of.
        kind: the task's.

    Returns:
        columns slice, value, rows, base, tuned, tuned_low, tuned_high; slices in their order, values sorted.
    """
    schema = {"slice": pl.String, "value": pl.String, "rows": pl.Int64, "base": pl.Float64, "tuned": pl.Float64}
    schema |= {"tuned_low": pl.Float64, "tuned_high": pl.Float64}
    rows, frame = [], measured_rows(frame, metric)
    for name in slices:
        for (value,), part in sorted(frame.group_by(name), key=lambda item: str(item[0][0])):
            base, tuned = (row_values(part, who, metric, kind) for who in ("base", "tuned"))
            is_share = metric.interval == "wilson"
            interval = wilson_interval(int(tuned.sum()), part.height) if is_share else bootstrap_mean(tuned)[1:]
            rows.append([name, str(value), part.height, float(base.mean()), float(tuned.mean()), *interval])
    return pl.DataFrame(rows, schema=schema, orient="row")
