"""What a classification task answers: a label, and how probable it is."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from biasline.kinds.headed import HeadedAnswering
from biasline.kinds.learning.classification import LEARNING
from biasline.kinds.protocols import Output

if TYPE_CHECKING:
    import polars as pl

    from biasline.bases.pin import Pin
    from biasline.evaluation.compared import Compared
    from biasline.layout import TaskPlace
    from biasline.params import Task
    from biasline.serving.predictor import Predictor


class Classification(HeadedAnswering):
    """The likeliest label, beside the majority class: an untrained head knows nothing better."""

    learning = LEARNING
    outputs: ClassVar[Mapping[str, Output]] = {"label": "string", "probability": "double"}
    base_label = "majority class"

    # evaluation

    def compare(self, task: "Task", place: "TaskPlace", pin: "Pin", folder: Path, test: "pl.DataFrame") -> "Compared":
        """Labels of the majority class, of a head alone, and of the tuned model."""
        import polars as pl

        from biasline.data.clean import read_split
        from biasline.evaluation import classify
        from biasline.evaluation.compared import Compared
        from biasline.evaluation.headed import load_headed
        from biasline.evaluation.measure import with_cheaper
        from biasline.tokens.saved import read_summary

        labels, kind = read_summary(place)["labels"], self.learning.name
        headed = load_headed(self.learning, task, place, pin, folder, labels)
        asked = headed.asked(classify.probed, classify.probabilities)
        train = read_split(place, "train")["label"]
        majority = max(labels, key=lambda label: (int((train == label).sum()), label))
        table = classify.predictions(test, labels, asked.tuned, majority)
        reference, with_head = test["label"].to_list(), [labels[number] for number in asked.probe]
        alone = test.select(tuned=pl.Series(with_head, dtype=pl.String), label="label")
        alone = alone.with_columns(tuned_exact=pl.col("tuned") == pl.col("label"))
        return Compared(
            classify.class_metrics(kind, reference, table["base"].to_list(), labels),
            classify.class_metrics(kind, reference, table["tuned"].to_list(), labels, table["probability"].to_list()),
            with_cheaper(table, alone),
            headed.change,
            classify.class_metrics(kind, reference, with_head, labels),
            timed=asked.timed,
            positive=classify.positive_of(labels),
        )

    def sections(self, predictions: "pl.DataFrame", labels: Sequence[str], settled: Mapping[str, str]) -> list[str]:
        """Labels one by one, calibration, and the surest mistakes."""
        from biasline.evaluation.classify import class_sections

        return class_sections(predictions, labels, self.learning.columns)

    def confusion(self, predictions: "pl.DataFrame") -> "pl.DataFrame":
        """The row's label and the tuned model's."""
        return predictions.select(actual="label", predicted="tuned")

    def figures(self, predictions: "pl.DataFrame") -> Iterator[tuple[str, Any]]:
        """What is taken for what, and how sure the model is where it is right."""
        from biasline.evaluation.classify import calibration
        from biasline.figures import run

        # The earliest evaluations kept no probabilities.
        if "probability" in predictions.columns and predictions["label"].n_unique() <= run.DRAWN_LABELS:
            yield "confusion", run.confusion(self.confusion(predictions))
            yield "calibration", run.reliability(calibration(predictions))

    def made(self, task: "Task", labels: Sequence[str]) -> str:
        """The labels by name."""
        return f"labels {', '.join(labels)}"

    # serving

    def answer(self, predictor: "Predictor", records: Sequence[dict[str, Any]], params: Mapping[str, Any]) -> list[Any]:
        """The likeliest label of each row, and its probability."""
        return [{name: one[name] for name in self.outputs} for one in self.answer_whole(predictor, records)]

    def answer_whole(self, predictor: "Predictor", records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """With the probability of each label, in their order."""
        from biasline.evaluation.classify import probabilities

        labels = predictor.labels
        return [
            {
                "label": labels[row.argmax()],
                "probability": float(row.max()),
                "probs": row.tolist(),
                "num_classes": len(labels),
            }
            for row in probabilities(predictor.model, predictor.inputs(records), *predictor.batches)
        ]

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
