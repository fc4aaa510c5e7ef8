"""Any number of labels a row: what is given from which probability on, beside what most training rows have."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch

from biasline.bitfit.pretrained import PretrainedModel
from biasline.errors import BiaslineError
from biasline.evaluation.cells import MISTAKES, cell, prompt_of
from biasline.evaluation.heads import features, head_outputs
from biasline.kinds.columns import Columns
from biasline.progress import Advance

_DIGITS = 6


def probabilities(
    model: PretrainedModel, rows: Sequence[dict[str, Any]], pad: int, batch_size: int, advance: Advance = lambda _: None
) -> np.ndarray:
    """The probability of each label in each row, (rows, labels), in their order; arguments as `heads.head_outputs`."""
    return torch.from_numpy(head_outputs(model, rows, pad, batch_size, advance)).sigmoid().double().numpy()


def probed(
    model: PretrainedModel,
    train: Sequence[dict[str, Any]],
    test: Sequence[dict[str, Any]],
    pad: int,
    batch_size: int,
    advance: Advance = lambda _: None,
) -> np.ndarray:
    """Labels that a logistic regression for each of them, on the frozen base's mean hidden states, gives to test rows.

    Arguments as `classify.probed`; training rows have 1 for each label that they have, else 0, as `labels`.

    Returns:
        whether each label is given, (rows, labels).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    held = np.array([row["labels"] for row in train], bool)
    scaler = StandardScaler()
    seen = scaler.fit_transform(features(model, train, pad, batch_size, advance))
    asked = scaler.transform(features(model, test, pad, batch_size, advance))
    given = np.zeros((len(test), held.shape[1]), bool)
    for place, column in enumerate(held.T):
        same = column.all() or not column.any()
        given[:, place] = column[0] if same else LogisticRegression(max_iter=2000).fit(seen, column).predict(asked)
    return given


def thresholds_of(told: Mapping[str, str], labels: Sequence[str], where: str) -> np.ndarray:
    """From which probability on each label is given, (labels,).

    Args:
        told: what training settled, see `InTraining.settled`.
        labels: names in the order of the model's outputs.
        where: what has it, for messages.

    Raises:
        BiaslineError: where a label has none.
    """
    found = json.loads(told.get("thresholds", "{}"))
    if absent := [name for name in labels if name not in found]:
        raise BiaslineError(f"{where}: no threshold for the label {absent[0]!r}", "train it again")
    return np.array([found[name] for name in labels])


def most_have(train: Sequence[Sequence[str]], labels: Sequence[str]) -> list[str]:
    """The labels that more than half of the training rows have; the most frequent one where there are none."""
    counts = {name: sum(name in held for held in train) for name in labels}
    return [name for name in labels if 2 * counts[name] > len(train)] or [max(labels, key=lambda name: counts[name])]


def names_of(given: np.ndarray, labels: Sequence[str]) -> list[str]:
    """What each row is given, (rows, labels), as the JSON of a list of names."""
    return [
        json.dumps([name for name, holds in zip(labels, row, strict=True) if holds], ensure_ascii=False)
        for row in given
    ]


def probabilities_told(found: np.ndarray, labels: Sequence[str]) -> list[str]:
    """Probabilities, (rows, labels), as the JSON of name → probability."""
    return [json.dumps(dict(zip(labels, row, strict=True)), ensure_ascii=False) for row in found.tolist()]


def answered(rows: pl.DataFrame, who: str, given: Sequence[str], labels: Sequence[str]) -> pl.DataFrame:
    """Rows with what a model gave them: itself, whether that is right, and the share of labels that are wrong.

    Args:
        rows: with their own `labels`.
        who: `base`, `tuned` or a head alone.
        given: a JSON list for each row.
        labels: names of all labels.
    """
    pairs = [(set(json.loads(one)), set(json.loads(other))) for one, other in zip(rows["labels"], given, strict=True)]
    wrong = [len(held ^ said) / len({*labels} | held) for held, said in pairs]
    return rows.with_columns(
        pl.Series(who, given, dtype=pl.String),
        pl.Series(f"{who}_exact", [held == said for held, said in pairs], dtype=pl.Boolean),
        pl.Series(f"{who}_hamming_loss", wrong, dtype=pl.Float64).round(_DIGITS),
    )


def label_table(predictions: pl.DataFrame, labels: Sequence[str]) -> pl.DataFrame:
    """Per label: rows, how often it was given, precision, recall, F1."""
    from sklearn.metrics import precision_recall_fscore_support

    held, given = (
        np.array([[name in found for name in labels] for found in map(json.loads, predictions[column])])
        for column in ("labels", "tuned")
    )
    columns: dict[str, Any] = {"label": list(labels), "rows": held.sum(0), "given": given.sum(0)}
    scores = [
        precision_recall_fscore_support(held[:, place], given[:, place], average="binary", zero_division=0.0)[:3]
        for place in range(len(labels))
    ]
    return pl.DataFrame(columns | dict(zip(("precision", "recall", "f1"), zip(*scores, strict=True), strict=True)))


def furthest(predictions: pl.DataFrame, count: int) -> pl.DataFrame:
    """The rows of which most labels are wrong, the most first."""
    wrong = predictions.filter(~pl.col("tuned_exact"))
    return wrong.sort(["tuned_hamming_loss", "row"], descending=[True, False]).head(count)


def label_sections(
    predictions: pl.DataFrame, labels: Sequence[str], columns: Columns, thresholds: np.ndarray
) -> list[str]:
    """Per label with its threshold, and the rows of which most labels are wrong."""
    lines = [
        "",
        "## Labels",
        "",
        "A label is given from its threshold on, the probability of the highest F1 on the validation rows.",
        "",
        "| label | threshold | rows | given | precision | recall | F1 |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    table = label_table(predictions, labels)
    for row, threshold in zip(table.iter_rows(named=True), thresholds, strict=True):
        values = " | ".join(f"{row[name]:.3f}" for name in ("precision", "recall", "f1"))
        lines.append(f"| {cell(row['label'])} | {threshold:.3f} | {row['rows']} | {row['given']} | {values} |")
    if unseen := table.filter(pl.col("rows") == 0)["label"].to_list():
        lines += [
            "",
            f"No test row has the label {', '.join(map(cell, unseen))}: no number here says how often it is found.",
        ]
    lines += ["", "## Furthest off", ""]
    wrong = furthest(predictions, MISTAKES)
    if not wrong.height:
        return [*lines, "None."]
    lines += ["| row | text | labels | given |", "|---:|---|---|---|"]
    for row in wrong.iter_rows(named=True):
        cells = (prompt_of(row, columns), *(", ".join(json.loads(row[name])) for name in ("labels", "tuned")))
        lines.append(f"| {row['row']} | {' | '.join(map(cell, cells))} |")
    return lines
