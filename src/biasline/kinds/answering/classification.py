"""What a classification task answers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from biasline.kinds.headed import HeadedAnswering
from biasline.kinds.learning.classification import LEARNING

if TYPE_CHECKING:
    import polars as pl

    from biasline.serving.predictor import Predictor


class Classification(HeadedAnswering):
    """X."""

    learning = LEARNING
    outputs: ClassVar[Mapping[str, str]] = {"label": "string", "probability": "double"}

    # serving

    def answer(self, predictor: "Predictor", records: Sequence[dict[str, Any]], params: Mapping[str, Any]) -> list[Any]:
        """The likeliest label of each row, and its probability."""
        from biasline.evaluation.classify import probabilities

        found = probabilities(predictor.model, predictor.inputs(records), *predictor.batches)
        return [{"label": predictor.labels[row.argmax()], "probability": float(row.max())} for row in found]

    def line(self, answer: Any) -> str:
        """The label, and how sure it is."""
        return f"{answer['label']}\t{answer['probability']:.4f}"

    def evaluated(self, predictions: "pl.DataFrame") -> list[Any]:
        """The labels given, with their probabilities."""
        return predictions.select(label="tuned", probability="probability").to_dicts()

    def rescored(
        self, predictor: "Predictor", rows: "pl.DataFrame", given: Sequence[Any], own_metrics: str
    ) -> "pl.DataFrame":
        """With `tuned`, `probability` and `tuned_exact`."""
        import polars as pl

        label = pl.Series("tuned", [one["label"] for one in given], dtype=pl.String)
        probability = pl.Series("probability", [one["probability"] for one in given])
        return rows.with_columns(label, probability, (label == rows["label"]).alias("tuned_exact"))

    # stock Transformers

    def stock_answer(self, predictor: "Predictor") -> str:
        """The likeliest label."""
        return "model.config.id2label[model(**inputs).logits.argmax().item()]"


ANSWERING = Classification()
