"""Metrics of scores. The first is the one that a regression is judged by unless parameters name another."""

import math
from typing import TYPE_CHECKING

from biasline.metrics.metric import Metric, OfRows, Predictions

if TYPE_CHECKING:
    import numpy as np

_KINDS = ("regression",)


def _pearson(reference: "np.ndarray", predicted: "np.ndarray") -> float:
    """A constant is correlated with nothing: 0."""
    import numpy as np

    varied = min(np.ptp(reference), np.ptp(predicted)) > 0
    return float(np.corrcoef(reference, predicted)[0, 1]) if varied else 0.0


def _spearman(predictions: Predictions) -> float:
    import numpy as np
    from scipy.stats import spearmanr

    varied = min(np.ptp(predictions.reference), np.ptp(predictions.predicted)) > 0
    return float(spearmanr(predictions.reference, predictions.predicted).statistic) if varied else 0.0


def _spearman_resampled(predictions: Predictions) -> OfRows:
    from scipy.stats import rankdata

    reference, predicted = predictions.reference, predictions.predicted
    return lambda rows: _pearson(rankdata(reference[rows]), rankdata(predicted[rows]))


def _pearson_resampled(predictions: Predictions) -> OfRows:
    reference, predicted = predictions.reference, predictions.predicted
    return lambda rows: _pearson(reference[rows], predicted[rows])


def _rmse(predictions: Predictions) -> float:
    from sklearn.metrics import root_mean_squared_error

    return root_mean_squared_error(predictions.reference, predictions.predicted)


METRICS = (
    Metric("pearson", _KINDS, resampled=_pearson_resampled, interval="fisher", bounds=(-1.0, 1.0)),
    Metric("spearman", _KINDS, statistic=_spearman, resampled=_spearman_resampled, bounds=(-1.0, 1.0)),
    # Both in the data's own units.
    Metric("rmse", _KINDS, statistic=_rmse, bounds=(0.0, math.inf), higher_is_better=False, decides=False),
    Metric(
        "mae",
        _KINDS,
        row_values=lambda predictions: abs(predictions.columns["error"]),
        columns=("error",),
        bounds=(0.0, math.inf),
        higher_is_better=False,
        decides=False,
        long_label="mean absolute error",
    ),
)
