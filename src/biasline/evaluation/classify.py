"""Classification: the tuned model beside the majority class, and beside what the frozen base knows already."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import torch

from biasline.bitfit.pretrained import PretrainedModel
from biasline.evaluation.cells import MISTAKES, cell, prompt_of
from biasline.evaluation.heads import features, head_outputs
from biasline.evaluation.measure import measure
from biasline.kinds.columns import Columns
from biasline.metrics.labels import RANGES
from biasline.metrics.metric import Predictions
from biasline.metrics.table import metrics_of
from biasline.progress import Advance


def probabilities(
    model: PretrainedModel, rows: Sequence[dict[str, Any]], pad: int, batch_size: int, advance: Advance = lambda _: None
) -> np.ndarray:
    """Class probabilities per row, (rows, classes), in their order; rows are batched by length.

    Args:
        model: the classifier, in eval mode.
        rows: the model's inputs, `input_ids` and, where the base wants them, `token_type_ids`.
        pad: token id to pad with.
        batch_size: rows of one forward pass.
        advance: told of each batch how many rows it had.
    """
    return torch.from_numpy(head_outputs(model, rows, pad, batch_size, advance)).softmax(-1).double().numpy()


def probed(
    model: PretrainedModel,
    train: Sequence[dict[str, Any]],
    test: Sequence[dict[str, Any]],
    pad: int,
    batch_size: int,
    advance: Advance = lambda _: None,
) -> np.ndarray:
    """Class numbers that a logistic regression on the frozen base's mean hidden states gives to test rows, (rows,).

    What a head alone can do: the difference to the tuned model is what its biases are for.

    Args:
        model: the frozen base.
        train: training rows with their class numbers as `labels`.
        test: test rows.
        pad: token id to pad with.
        batch_size: rows of one forward pass.
        advance: told of each batch how many rows it had.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    numbers = [row["labels"] for row in train]
    if len(set(numbers)) < 2:
        return np.full(len(test), numbers[0] if numbers else 0)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    probe.fit(features(model, train, pad, batch_size, advance), numbers)
    return probe.predict(features(model, test, pad, batch_size, advance))


def calibration(predictions: pl.DataFrame) -> pl.DataFrame:
    """How often the model is right where it is so sure: its probabilities in ten equal ranges.

    Args:
        predictions: with `probability` of the label given and `tuned_exact`.

    Returns:
        columns above, to, rows, probability (mean), accuracy; ranges without rows are left out.
    """
    place = (pl.col("probability") * RANGES).ceil().clip(1, RANGES) - 1
    return (
        predictions.group_by(place.alias("above") / RANGES)
        .agg(pl.len().alias("rows"), pl.col("probability").mean(), pl.col("tuned_exact").mean().alias("accuracy"))
        .sort("above")
        .select("above", (pl.col("above") + 1 / RANGES).alias("to"), "rows", "probability", "accuracy")
    )


def class_table(predictions: pl.DataFrame, labels: Sequence[str]) -> pl.DataFrame:
    """Per label: rows, how often it was given, precision, recall, F1."""
    from sklearn.metrics import precision_recall_fscore_support

    reference, tuned = predictions["label"].to_list(), predictions["tuned"].to_list()
    precision, recall, f1, rows = precision_recall_fscore_support(
        reference, tuned, labels=list(labels), zero_division=0.0
    )
    given = [tuned.count(label) for label in labels]
    columns = {"label": list(labels), "rows": rows, "given": given, "precision": precision, "recall": recall, "f1": f1}
    return pl.DataFrame(columns)


def mistakes(predictions: pl.DataFrame, count: int) -> pl.DataFrame:
    """The wrong answers that the model was surest of, surest first."""
    wrong = predictions.filter(~pl.col("tuned_exact"))
    return wrong.sort(["probability", "row"], descending=[True, False]).head(count)


def positive_of(labels: Sequence[str]) -> str:
    """The second of two labels, which metrics of one label are of; empty where there are more."""
    return labels[1] if len(labels) == 2 else ""


def class_metrics(
    kind: str,
    reference: Sequence[str],
    predicted: Sequence[str],
    labels: Sequence[str],
    probability: Sequence[float] | None = None,
) -> dict[str, float]:
    """All metrics of labels, with their intervals; of two labels also those of the second.

    Args:
        kind: of task, whose metrics they are.
        reference: the right labels, (rows,).
        predicted: the model's, (rows,).
        labels: of the task, in their order.
        probability: of each label predicted, where the model gives one; without it nothing is said of calibration.
    """
    given, right = (np.array(list(values), dtype=object) for values in (predicted, reference))
    columns = {"exact": (given == right).astype(bool)}
    if probability is not None:
        columns["probability"] = np.asarray(probability, dtype=np.float64)
    found = Predictions(right, given, columns, positive=positive_of(labels))
    return measure(metrics_of(kind), found).values


def predictions(test: pl.DataFrame, labels: Sequence[str], found: np.ndarray, majority: str) -> pl.DataFrame:
    """Test rows with the majority class as `base`, the likeliest class as `tuned`, and its probability."""
    tuned = [labels[index] for index in found.argmax(-1)]
    return test.with_columns(
        pl.Series("base", [majority] * test.height, dtype=pl.String),
        pl.Series("tuned", tuned, dtype=pl.String),
        pl.Series("probability", found.max(-1)),
        pl.col("label").eq(majority).alias("base_exact"),
        pl.Series("tuned_exact", [one == other for one, other in zip(tuned, test["label"], strict=True)]),
    )


def class_sections(predictions: pl.DataFrame, labels: Sequence[str], columns: Columns) -> list[str]:
    """Per label, per range of probability, and the wrong answers that the model was surest of."""
    lines = [
        "",
        "## Labels",
        "",
        "| label | rows | given | precision | recall | F1 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for row in class_table(predictions, labels).iter_rows(named=True):
        values = " | ".join(f"{row[name]:.3f}" for name in ("precision", "recall", "f1"))
        lines.append(f"| {cell(row['label'])} | {row['rows']} | {row['given']} | {values} |")
    if unseen := [label for label in labels if not (predictions["label"] == label).any()]:
        lines += [
            "",
            f"No test row has the label {', '.join(map(cell, unseen))}: no number here says anything about it.",
        ]
    lines += ["", "## Calibration", "", "How often it is right where its probability lies in a range.", ""]
    lines += ["| probability | rows | mean | accuracy |", "|---|---:|---:|---:|"]
    for row in calibration(predictions).iter_rows(named=True):
        span = f"{row['above']:.1f} … {row['to']:.1f}"
        lines.append(f"| {span} | {row['rows']} | {row['probability']:.3f} | {row['accuracy']:.3f} |")
    lines += ["", "## Surest mistakes", ""]
    wrong = mistakes(predictions, MISTAKES)
    if not wrong.height:
        return [*lines, "None."]
    lines += ["| row | text | label | given | probability |", "|---:|---|---|---|---:|"]
    for row in wrong.iter_rows(named=True):
        cells = " | ".join(map(cell, (prompt_of(row, columns), row["label"], row["tuned"])))
        lines.append(f"| {row['row']} | {cells} | {row['probability']:.3f} |")
    return lines
