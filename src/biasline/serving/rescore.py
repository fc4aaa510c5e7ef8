"""A packaged model on test rows that another model was evaluated on."""

from pathlib import Path

import polars as pl
import torch

from biasline.evaluation.generate import Answer
from biasline.evaluation.own_metrics import OwnScores
from biasline.evaluation.references import own_spelling
from biasline.evaluation.scoring import Scored, answered, score_likelihood
from biasline.kinds.answering import find_answering
from biasline.serving.package import Package
from biasline.tokens.answers import answer_columns
from biasline.tokens.mask import Encoder


def scored_on(package: Package, predictions: pl.DataFrame, own_metrics: str = "") -> pl.DataFrame:
    """Test rows with a packaged model's answers, in the columns that evaluation gives the tuned model.

    Args:
        package: the packaged model.
        predictions: the rows, as evaluation left them with another model's answers.
        own_metrics: a file of the project's own metrics, see `OwnScores`.
    """
    torch.set_num_threads(package.task.train.threads)
    rows = predictions.drop(name for name in predictions.columns if _is_an_answer(name))
    predictor, kind = package.predictor(), package.task.kind
    given = predictor(find_answering(kind).asked(rows))
    if kind == "instruction":
        encoder = Encoder.from_params(predictor.tokenizer, package.task.tokens)
        columns = answer_columns(encoder, rows)
        pad, batch_size = predictor.model.config.pad_token_id, package.task.evaluate.batch_size
        likelihood = score_likelihood(predictor.model, columns, pad, batch_size)
        own = OwnScores(Path(own_metrics), kind)(rows.rows(named=True), given) if own_metrics else {}
        references = own_spelling(predictor.tokenizer, rows["output"].to_list())
        scored = Scored(kind, [Answer(text, True) for text in given], references, *likelihood, own)
        return answered(rows, columns["row"], scored, scored)
    if kind == "regression":
        score = pl.Series("tuned", [one["score"] for one in given])
        return rows.with_columns(score, (score - rows["score"].cast(pl.Float64)).alias("tuned_error"))
    label = pl.Series("tuned", [one["label"] for one in given], dtype=pl.String)
    probability = pl.Series("probability", [one["probability"] for one in given])
    return rows.with_columns(label, probability, (label == rows["label"]).alias("tuned_exact"))


def _is_an_answer(name: str) -> bool:
    return name.split("_")[0] in ("base", "tuned") or name in ("tokens", "probability")
