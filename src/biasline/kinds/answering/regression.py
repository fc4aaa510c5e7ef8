"""What a regression task answers."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from biasline.kinds.headed import HeadedAnswering
from biasline.kinds.learning.regression import LEARNING

if TYPE_CHECKING:
    import polars as pl

    from biasline.serving.predictor import Predictor


class Regression(HeadedAnswering):
    """X."""

    learning = LEARNING
    outputs: ClassVar[Mapping[str, str]] = {"score": "double"}

    # serving

    def answer(self, predictor: "Predictor", records: Sequence[dict[str, Any]], params: Mapping[str, Any]) -> list[Any]:
        """The score of each row, in the data's own units."""
        from biasline.evaluation.regress import scores

        found = scores(predictor.model, predictor.inputs(records), *predictor.batches, predictor.score)
        return [{"score": float(score)} for score in found]

    def line(self, answer: Any) -> str:
        """The score."""
        return f"{answer['score']:.4f}"

    def evaluated(self, predictions: "pl.DataFrame") -> list[Any]:
        """The scores given."""
        return [{"score": score} for score in predictions["tuned"]]

    def rescored(
        self, predictor: "Predictor", rows: "pl.DataFrame", given: Sequence[Any], own_metrics: str
    ) -> "pl.DataFrame":
        """With `tuned` and `tuned_error`."""
        import polars as pl

        score = pl.Series("tuned", [one["score"] for one in given])
        return rows.with_columns(score, (score - rows["score"].cast(pl.Float64)).alias("tuned_error"))

    # stock Transformers

    def stock_answer(self, predictor: "Predictor") -> str:
        """The head's output, in the data's own units."""
        scale = predictor.score
        return f"{scale['mean']!r} + {scale['std']!r} * model(**inputs).logits.item()"


ANSWERING = Regression()
