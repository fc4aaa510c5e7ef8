"""What a multilabel task answers: any number of labels, each with its probability."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from biasline.kinds.headed import HeadedAnswering
from biasline.kinds.learning.multilabel import LEARNING
from biasline.kinds.protocols import Output
from biasline.metrics.label_sets import metrics_of_sets

if TYPE_CHECKING:
    import polars as pl

    from biasline.bases.pin import Pin
    from biasline.evaluation.compared import Compared
    from biasline.layout import TaskPlace
    from biasline.params import Task
    from biasline.serving.predictor import Predictor


class Multilabel(HeadedAnswering):
    """The labels beyond their thresholds, beside those that most rows have: an untrained head knows nothing better."""

    learning = LEARNING
    metrics = metrics_of_sets(LEARNING.name)
    base_label = "labels of most rows"
    outputs: ClassVar[Mapping[str, Output]] = {"labels": ["string"], "probabilities": "map of double"}

    # evaluation

    def compare(self, task: "Task", place: "TaskPlace", pin: "Pin", folder: Path, test: "pl.DataFrame") -> "Compared":
        """Labels that most rows have, those of a head alone, and the tuned model's."""
        import polars as pl

        from biasline.data.clean import read_split
        from biasline.data.name_lists import sets_of
        from biasline.evaluation import label_sets
        from biasline.evaluation.compared import Compared
        from biasline.evaluation.headed import load_headed
        from biasline.evaluation.measure import CHEAPER, metrics_in
        from biasline.jsonfile import load_json
        from biasline.tokens.saved import read_summary

        labels, kind = read_summary(place)["labels"], self.learning.name
        settled = load_json(place.train_report, f"dvc repro train@{place.task}").get("settled", {})
        thresholds = label_sets.thresholds_of(settled, labels, str(place.train_report))
        headed = load_headed(self.learning, task, place, pin, folder, labels)
        asked = headed.asked(label_sets.probed, label_sets.probabilities)
        most = label_sets.most_have(sets_of(read_split(place, "train")["labels"]), labels)
        same = [json.dumps(most, ensure_ascii=False)] * test.height
        table = label_sets.answered(test, "base", same, labels)
        table = label_sets.answered(table, "tuned", label_sets.names_of(asked.tuned >= thresholds, labels), labels)
        told = label_sets.probabilities_told(asked.tuned, labels)
        table = table.with_columns(pl.Series("tuned_probabilities", told, dtype=pl.String))
        table = label_sets.answered(table, CHEAPER, label_sets.names_of(asked.probe, labels), labels)
        base, tuned, probe = (metrics_in(table, who, kind) for who in ("base", "tuned", CHEAPER))
        return Compared(base, tuned, table, headed.change, probe, timed=asked.timed)

    def sections(self, predictions: "pl.DataFrame", labels: Sequence[str], settled: Mapping[str, str]) -> list[str]:
        """Labels one by one with their thresholds, and the rows of which most labels are wrong."""
        from biasline.evaluation.label_sets import label_sections, thresholds_of

        thresholds = thresholds_of(settled, labels, "train.json")
        return label_sections(predictions, labels, self.learning.columns, thresholds)

    def made(self, task: "Task", labels: Sequence[str]) -> str:
        """The labels by name."""
        return f"any of the labels {', '.join(labels)}"

    # serving

    def answer(self, predictor: "Predictor", records: Sequence[dict[str, Any]], params: Mapping[str, Any]) -> list[Any]:
        """The labels of each row that are beyond their thresholds, and the probability of each label."""
        from biasline.evaluation.label_sets import probabilities, thresholds_of

        labels = predictor.labels
        thresholds = thresholds_of(predictor.about, labels, "the delta")
        found = probabilities(predictor.model, predictor.inputs(records), *predictor.batches)
        return [
            {
                "labels": [name for name, holds in zip(labels, row >= thresholds, strict=True) if holds],
                "probabilities": dict(zip(labels, row.tolist(), strict=True)),
            }
            for row in found
        ]

    def line(self, answer: Any) -> str:
        """The labels, and the probability of each of them."""
        found = [f"{answer['probabilities'][name]:.4f}" for name in answer["labels"]]
        return f"{'|'.join(answer['labels'])}\t{'|'.join(found)}"

    def evaluated(self, predictions: "pl.DataFrame") -> list[Any]:
        """The labels given, with the probabilities of all."""
        pairs = predictions.select("tuned", "tuned_probabilities").rows()
        return [{"labels": json.loads(given), "probabilities": json.loads(found)} for given, found in pairs]

    def rescored(
        self, predictor: "Predictor", rows: "pl.DataFrame", given: Sequence[Any], own_metrics: str
    ) -> "pl.DataFrame":
        """With `tuned`, whether it is right, the share of wrong labels, and the probabilities."""
        import polars as pl

        from biasline.evaluation.label_sets import answered

        labels, told = ([json.dumps(one[name], ensure_ascii=False) for one in given] for name in self.outputs)
        rows = answered(rows, "tuned", labels, predictor.labels)
        return rows.with_columns(pl.Series("tuned_probabilities", told, dtype=pl.String))

    # stock Transformers

    def stock_answer(self, predictor: "Predictor") -> str:
        """The labels beyond their thresholds, which are no part of the model."""
        from biasline.evaluation.label_sets import thresholds_of

        found = thresholds_of(predictor.about, predictor.labels, "the delta").tolist()
        told = dict(zip(predictor.labels, found, strict=True))
        named = "zip(model.config.id2label.values(), model(**inputs).logits.sigmoid()[0].tolist())"
        return f"[name for name, found in {named} if found >= {told}[name]]"


ANSWERING = Multilabel()
