"""Classification: a text (or two) and its label."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biasline.kinds.columns import TEXTS, Columns
from biasline.kinds.protocols import Learning

if TYPE_CHECKING:
    import polars as pl

    from biasline.bases.tokenizer import Tokenizer
    from biasline.bitfit.pretrained import PretrainedModel
    from biasline.data.raw import Raw
    from biasline.params import Source, Task, Train
    from biasline.tokens.encoding import Encoding, TokenSet
    from biasline.training.loss import Objective


def reading(where: str, raw: "Raw", taken: Mapping[str, str], source: "Source") -> "Raw":
    """A number or a truth value is a label too."""
    from biasline.data.labels import by_value

    if (name := taken.get("label")) is None:  # rows that a model is asked have none
        return raw
    labels, flags = by_value(raw.text(name), raw.not_text(name))
    return raw.replaced(name, labels, flags)


class Classification(Learning):
    """The label of a text, by a head with an output for each."""

    name = "classification"
    order = 1
    told = "a text (or two) and its label"
    columns = Columns(
        prompt=("text", "text_pair"),
        answer="label",
        aliases={**TEXTS, "label": ("label", "labels", "sentiment", "class", "category", "target")},
        looks="label",
        augmented=("text", "text_pair"),
        reading=reading,
    )
    class_weights = True

    def look(
        self, splits: "Mapping[str, pl.DataFrame]", good: "pl.DataFrame", read: "pl.DataFrame", task: "Task"
    ) -> list[str]:
        """Labels that no training row has are refused, unless parameters name all labels; odd ones are told."""
        from biasline.data.labels import form_notes, imbalance_notes, refuse_unlearned, unjudged_notes

        if not task.source.labels:
            refuse_unlearned(splits)
        notes = form_notes(good["label"], read["label"])
        return notes + imbalance_notes(splits["train"]["label"]) + unjudged_notes(splits)

    def page_lines(self, good: "pl.DataFrame") -> list[str]:
        """How often there is each label."""
        from biasline.data.charts import shares

        counts = good["label"].value_counts(sort=True).sort(["count", "label"], descending=[True, False]).rows()
        return [*shares(counts, "label"), ""]

    def encoding(self, task: "Task", tokenizer: "Tokenizer", folder: Path, train: "pl.DataFrame") -> "Encoding":
        """Texts, each with the number of its label."""
        import pyarrow as pa

        from biasline.bases.pin import wants_token_types
        from biasline.tokens.encoding import Encoding, encode_texts
        from biasline.tokens.texts import TextEncoder, label_names, label_numbers

        texts = TextEncoder(tokenizer, task.tokens.max_length, wants_token_types(folder))
        labels = label_names(task.source.labels, train["label"].to_list())

        def encode(split: str, frame: "pl.DataFrame") -> "TokenSet":
            numbers = label_numbers(labels, frame["label"].to_list(), frame["row"].to_list(), split)
            return encode_texts(texts, frame, pa.array(numbers, pa.int32()))

        return Encoding(
            target={"labels": labels},
            encode=encode,
            made=f"labels {', '.join(labels)}",
            show=lambda row: f"{tokenizer.decode(row['input_ids'])} → {labels[row['labels']]}",
            marked="Their label behind an arrow",
            target_word="label",
        )

    def settled(
        self, model: "PretrainedModel", valid: Any, summary: Mapping[str, Any], train: "Train"
    ) -> tuple[dict[str, str], list[str]]:
        """How sure it is."""
        from biasline.training.temperature import calibrate

        return calibrate(model, valid, train) if train.calibrate else ({}, [])

    def answers_told(self, summary: Mapping[str, Any]) -> str:
        """The labels."""
        return f"{len(summary['labels'])} labels: {', '.join(summary['labels'])}"

    def objective(self, train: "Train", summary: Mapping[str, Any], rows: Any) -> "Objective":
        """The loss of each row's label, balanced where parameters ask for it."""
        from biasline.training.loss import ClassLabels

        if train.class_weights == "balanced":
            return ClassLabels.balanced(rows["labels"][:], len(summary["labels"]))
        return ClassLabels()


LEARNING = Classification()
