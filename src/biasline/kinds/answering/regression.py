"""What a regression task answers: a score, in the data's own units."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from biasline.kinds.headed import HeadedAnswering
from biasline.kinds.learning.regression import LEARNING
from biasline.kinds.protocols import Output
from biasline.metrics.metric import Metric

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from biasline.bases.pin import Pin
    from biasline.evaluation.compared import Compared
    from biasline.layout import TaskPlace
    from biasline.params import Task
    from biasline.serving.predictor import Predictor


class Regression(HeadedAnswering):
    """Scores beside the training rows' mean: an untrained head knows nothing better."""

    learning = LEARNING
    outputs: ClassVar[Mapping[str, Output]] = {"score": "double"}
    base_label = "training rows' mean"

    # evaluation

    def compare(self, task: "Task", place: "TaskPlace", pin: "Pin", folder: Path, test: "pl.DataFrame") -> "Compared":
        """Scores of the training rows' mean, of a head alone, and of the tuned model."""
        from functools import partial

        import numpy as np
        import polars as pl

        from biasline.evaluation import regress
        from biasline.evaluation.compared import Compared
        from biasline.evaluation.headed import load_headed
        from biasline.evaluation.measure import with_cheaper
        from biasline.tokens.saved import read_summary

        scale = read_summary(place)["score"]
        headed = load_headed(self.learning, task, place, pin, folder, ())
        asked = headed.asked(regress.probed, partial(regress.scores, scale=scale))
        table = regress.predictions(test, asked.tuned, scale["mean"])
        alone = regress.predictions(test, np.asarray(asked.probe), scale["mean"])
        reference = test["score"].cast(pl.Float64).to_numpy()
        base, tuned, probe = (
            regress.score_metrics(self.learning.name, reference, np.asarray(given))
            for given in (table["base"], table["tuned"], alone["tuned"])
        )
        return Compared(base, tuned, with_cheaper(table, alone), headed.change, probe, timed=asked.timed)

    def slices(self, frame: "pl.DataFrame", columns: tuple[str, ...], metric: Metric) -> "pl.DataFrame":
        """Mean absolute errors, whatever metric decides: a correlation within a slice says little."""
        from biasline.evaluation.regress import score_slices

        return score_slices(frame, columns)

    def gain(self, frame: "pl.DataFrame", metric: Metric) -> "tuple[str, np.ndarray, np.ndarray]":
        """What less squared error the rows have."""
        from biasline.evaluation.regress import closeness

        return "squared_error_saved", closeness(frame, "tuned"), closeness(frame, "base")

    def nearness(self, frame: "pl.DataFrame") -> "tuple[np.ndarray, np.ndarray] | None":
        """A correlation says nothing about being near: answers that hardly differ may have a high one."""
        from biasline.evaluation.regress import in_variance

        return in_variance(frame)

    def slice_values(self, frame: "pl.DataFrame", metric: Metric) -> "tuple[np.ndarray, np.ndarray]":
        """The same: a correlation within a slice says little."""
        from biasline.evaluation.regress import in_variance

        return in_variance(frame)

    def sections(self, predictions: "pl.DataFrame", labels: Sequence[str], settled: Mapping[str, str]) -> list[str]:
        """The rows that the model is furthest off."""
        from biasline.evaluation.regress import score_sections

        return score_sections(predictions, self.learning.columns)

    def figures(self, predictions: "pl.DataFrame") -> Iterator[tuple[str, Any]]:
        """Scores given against the rows' own."""
        from biasline.figures import run

        yield "scores", run.scores(predictions)

    def made(self, task: "Task", labels: Sequence[str]) -> str:
        """The units of the head's output."""
        return "scores in units of the training rows' standard deviation"

    def is_right(self, row: Mapping[str, Any]) -> bool | None:
        """A score is near or far, not right or wrong."""
        return None

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
