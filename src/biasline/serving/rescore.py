"""A packaged model on test rows that another model was evaluated on."""

import polars as pl
import torch

from biasline.evaluation.measure import CHEAPER
from biasline.kinds.answering import find_answering
from biasline.serving.package import Package
from biasline.serving.predictor import asked_rows


def scored_on(package: Package, predictions: pl.DataFrame, own_metrics: str = "") -> pl.DataFrame:
    """Test rows with a packaged model's answers, in the columns that evaluation gives the tuned model.

    Args:
        package: the packaged model.
        predictions: the rows, as evaluation left them with another model's answers.
        own_metrics: a file of the project's own metrics, see `OwnScores`.
    """
    torch.set_num_threads(package.task.train.threads)
    rows = predictions.drop(name for name in predictions.columns if _is_an_answer(name))
    # The rows may be of tenants that came after it, or of none: whoever asks it of them today has its shared delta.
    if (column := package.task.tenants.column) in rows.columns:
        rows = rows.with_columns(pl.when(pl.col(column).str.strip_chars() != "").then(column).otherwise(pl.lit("?")))
    predictor, answering = package.predictor(unknown=True), find_answering(package.task.kind)
    return answering.rescored(predictor, rows, predictor(asked_rows(package.task, rows)), own_metrics)


def _is_an_answer(name: str) -> bool:
    return name.split("_")[0] in ("base", CHEAPER, "tuned") or name in ("tokens", "probability")
