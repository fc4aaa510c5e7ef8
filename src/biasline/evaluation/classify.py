"""Classification: the tuned model beside the majority class on the same test rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import torch

from biasline.evaluation.statistics import wilson_interval
from biasline.training.loss import padded


def probabilities(model: Any, rows: Sequence[dict[str, Any]], pad: int, batch_size: int) -> np.ndarray:
    """Class probabilities per row, (rows, classes), in their order; rows are batched by length.

    Args:
        rows: the model's inputs, `input_ids` and, where the base wants them, `token_type_ids`.
        pad: token id to pad with.
    """
    found = np.zeros((len(rows), model.config.num_labels))
    order = sorted(range(len(rows)), key=lambda index: (len(rows[index]["input_ids"]), index))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        inputs = {name: tensor.to(model.device) for name, tensor in padded([rows[i] for i in chosen], pad).items()}
        with torch.inference_mode():
            found[chosen] = model(**inputs).logits.float().softmax(-1).cpu().numpy()
    return found


def class_metrics(reference: Sequence[str], predicted: Sequence[str]) -> dict[str, float]:
    """accuracy with its Wilson interval, macro F1, Matthews correlation."""
    from sklearn.metrics import f1_score, matthews_corrcoef

    hits = sum(one == other for one, other in zip(reference, predicted, strict=True))
    low, high = wilson_interval(hits, len(reference))
    values = {
        "accuracy": hits / len(reference),
        "accuracy_low": low,
        "accuracy_high": high,
        "f1_macro": f1_score(reference, predicted, average="macro", zero_division=0.0),
        "mcc": matthews_corrcoef(reference, predicted),
    }
    return {name: round(float(value), 6) for name, value in values.items()}


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
