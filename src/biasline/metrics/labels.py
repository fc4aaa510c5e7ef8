"""Metrics of labels. The first is the one that a classification is judged by unless parameters name another."""

import math
from typing import TYPE_CHECKING

from biasline.metrics.metric import Metric, OfRows, Predictions, confusion, of_confusion, of_counts

if TYPE_CHECKING:
    import numpy as np

# Equal ranges of probability that calibration is measured in.
RANGES = 10
_KINDS = ("classification",)


def _f1_macro(predictions: Predictions) -> float:
    from sklearn.metrics import f1_score

    return f1_score(predictions.reference, predictions.predicted, average="macro", zero_division=0.0)


def _f1_macro_of_confusion(table: "np.ndarray") -> float:
    f1, counted = _f1_of_labels(table)
    return f1[counted].mean()


def _f1_of_labels(table: "np.ndarray") -> "tuple[np.ndarray, np.ndarray]":
    """F1 of each label, and whether it occurs at all, (labels,) each."""
    import numpy as np

    total = table.sum(1) + table.sum(0)
    return 2 * table.diagonal() / np.maximum(total, 1), total > 0


def _mcc(predictions: Predictions) -> float:
    from sklearn.metrics import matthews_corrcoef

    reference, predicted = predictions.reference, predictions.predicted
    # Of one label alone scikit-learn warns.
    return matthews_corrcoef(reference, predicted) if len({*reference, *predicted}) > 1 else 0.0


def _mcc_of_confusion(table: "np.ndarray") -> float:
    """Gorodkin (2004), equation 8."""
    hits, actual, said, total = table.trace(), table.sum(1), table.sum(0), table.sum()
    spread = (total**2 - said @ said) * (total**2 - actual @ actual)
    return (hits * total - actual @ said) / math.sqrt(spread) if spread > 0 else 0.0


def _f1(predictions: Predictions) -> float:
    from sklearn.metrics import f1_score

    positive = [predictions.positive]
    return f1_score(predictions.reference, predictions.predicted, labels=positive, average="macro", zero_division=0.0)


def _f1_resampled(predictions: Predictions) -> OfRows:
    labels, table = confusion(predictions)
    if predictions.positive not in labels:
        return lambda rows: 0.0
    place = labels.index(predictions.positive)
    return lambda rows: float(_f1_of_labels(table(rows))[0][place])


def _distances(predictions: Predictions) -> "list[np.ndarray]":
    """Per range of probability: of each row in it probability less being right, (rows,); and 1 for each row."""
    import numpy as np

    probability, exact = predictions.columns["probability"], predictions.columns["exact"]
    place = np.clip(np.ceil(probability * RANGES), 1, RANGES) - 1
    return [*(np.where(place == number, probability - exact, 0.0) for number in range(RANGES)), np.ones(len(place))]


METRICS = (
    Metric(
        "accuracy",
        _KINDS,
        row_values=lambda predictions: predictions.columns["exact"],
        columns=("exact",),
        interval="wilson",
    ),
    Metric("f1_macro", _KINDS, statistic=_f1_macro, resampled=of_confusion(_f1_macro_of_confusion)),
    Metric("mcc", _KINDS, statistic=_mcc, resampled=of_confusion(_mcc_of_confusion), bounds=(-1.0, 1.0)),
    Metric(
        "f1",
        _KINDS,
        statistic=_f1,
        resampled=_f1_resampled,
        note="of the second of two labels",
        left_out=lambda predictions: None if predictions.positive else "",
    ),
    # Guo et al. (2017): mean distance of probability and accuracy, weighted by rows.
    Metric(
        "calibration_error",
        _KINDS,
        resampled=of_counts(_distances, lambda *sums: sum(abs(value) for value in sums[:-1]) / sums[-1]),
        higher_is_better=False,
        decides=False,
        left_out=lambda predictions: None if "probability" in predictions.columns else "",
    ),
)
