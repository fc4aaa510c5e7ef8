"""Metrics of lists of labels, any number a row, as the JSON that rows and answers have them in."""

import json
from typing import TYPE_CHECKING, Any

from biasline.metrics.metric import Metric, OfRows, Predictions, of_counts

if TYPE_CHECKING:
    import numpy as np


def metrics_of_sets(kind: str) -> tuple[Metric, ...]:
    """All of them for a kind of task; the first is the one that it is judged by."""
    kinds = (kind,)
    return (
        Metric(
            "f1_micro",
            kinds,
            statistic=_f1_micro,
            resampled=of_counts(_hits_and_misses, lambda hits, misses: 2 * hits / max(2 * hits + misses, 1)),
            interval="bootstrap",
            note="over all labels of all rows",
        ),
        Metric("f1_macro", kinds, statistic=_f1_macro, resampled=_f1_macro_resampled, note="mean over labels"),
        Metric(
            "exact_match",
            kinds,
            row_values=lambda predictions: predictions.columns["exact"],
            columns=("exact",),
            interval="wilson",
            note="all labels of a row are right",
        ),
        # Of the task's labels, which a row's own do not tell.
        Metric(
            "hamming_loss",
            kinds,
            row_values=lambda predictions: predictions.columns["hamming_loss"],
            stored=True,
            higher_is_better=False,
            decides=False,
            note="share of labels that are wrong",
        ),
    )


def flags(predictions: Predictions) -> "tuple[np.ndarray, np.ndarray]":
    """Of each row which labels it has, and which it was given, (rows, labels) each: labels that occur, in order."""
    from sklearn.preprocessing import MultiLabelBinarizer

    known: dict[str, list[str]] = {}
    both: list[list[list[str]]] = [[], []]
    for found, texts in zip(both, (predictions.reference, predictions.predicted), strict=True):
        for text in texts:
            if text not in known:
                known[text] = json.loads(text)
            found.append(known[text])
    binarizer = MultiLabelBinarizer().fit(both[0] + both[1])
    held, given = (binarizer.transform(found).astype(bool) for found in both)
    return held, given


def _f1_micro(predictions: Predictions) -> float:
    from sklearn.metrics import f1_score

    held, given = flags(predictions)
    # Of each label in each row by itself: one column alone scikit-learn would take for two classes.
    return f1_score(held.ravel(), given.ravel(), zero_division=0.0) if held.size else 0.0


def _f1_macro(predictions: Predictions) -> float:
    import numpy as np
    from sklearn.metrics import f1_score

    held, given = flags(predictions)
    scores = [f1_score(held[:, place], given[:, place], zero_division=0.0) for place in range(held.shape[1])]
    return float(np.mean(scores)) if scores else 0.0


def _hits_and_misses(predictions: Predictions) -> list[Any]:
    """Of each row: labels that it has and was given, and those of which only one is so, (rows,) each."""
    held, given = flags(predictions)
    return [(held & given).sum(1), (held ^ given).sum(1)]


def _f1_macro_resampled(predictions: Predictions) -> OfRows:
    """The mean over labels that occur among the rows taken."""
    import numpy as np

    held, given = flags(predictions)
    # Fp64 sums of ones are exact, and BLAS makes them: a bootstrap with a hundred labels takes seconds, not minutes.
    counts = np.hstack([held & given, held ^ given]).astype(np.float64)
    every, labels = np.arange(len(held)), held.shape[1]

    def value(rows: "np.ndarray | slice") -> float:
        sums = np.bincount(every[rows], minlength=len(every)) @ counts
        hits, misses = sums[:labels], sums[labels:]
        occurs = hits + misses > 0
        return float((2 * hits[occurs] / (2 * hits[occurs] + misses[occurs])).mean()) if occurs.any() else 0.0

    return value
