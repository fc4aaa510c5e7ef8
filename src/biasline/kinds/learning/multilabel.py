"""Multilabel: a text (or two) and any number of labels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from biasline.kinds.columns import TEXTS, Columns
from biasline.kinds.protocols import Learning

if TYPE_CHECKING:
    import polars as pl

    from biasline.bases.pin import Pin
    from biasline.bases.tokenizer import Tokenizer
    from biasline.bitfit.pretrained import PretrainedModel
    from biasline.data.raw import Raw
    from biasline.data.rules import Rule
    from biasline.params import Load, Source, Task, Train
    from biasline.tokens.encoding import Encoding, TokenSet
    from biasline.training.loss import Objective

_ALIASES = ("labels", "label", "tags", "tag", "categories", "category", "topics", "classes", "genres", "emotions")
_SEPARATOR = Field("|", min_length=1, description="what stands between the labels in a text (multilabel)")


def gathering(where: str, raw: "Raw", source: "Source") -> "tuple[Raw, list[str]]":
    """Columns of 0 and 1, one for each label, are labels too."""
    from biasline.data.label_sets import gathered

    return (raw, []) if "labels" in source.columns else gathered(where, raw, source.labels, _ALIASES)


def reading(where: str, raw: "Raw", taken: Mapping[str, str], source: "Source") -> "Raw":
    """Lists, or texts with a separator, as lists in one order."""
    from biasline.data.label_sets import read_sets

    if (name := taken.get("labels")) is None:  # rows that a model is asked have none
        return raw
    return read_sets(where, raw, name, vars(source)["separator"], source.labels)


class Multilabel(Learning):
    """The labels of a text, by a head with an output for each, which says by itself whether its label holds."""

    name = "multilabel"
    order = 3
    told = "a text (or two) and any number of labels"
    columns = Columns(
        prompt=("text", "text_pair"),
        answer="labels",
        aliases={**TEXTS, "labels": _ALIASES},
        looks="structure",
        augmented=("text", "text_pair"),
        gathering=gathering,
        reading=reading,
    )
    parameters: ClassVar[Mapping[str, tuple[Any, Any]]] = {"separator": (str, _SEPARATOR)}

    def rules(self) -> "Sequence[Rule]":
        """Labels are a list of known names, one at least, and the same wherever the text comes again."""
        from biasline.data.label_sets import set_rules

        return set_rules()

    def look(
        self, splits: "Mapping[str, pl.DataFrame]", good: "pl.DataFrame", read: "pl.DataFrame", task: "Task"
    ) -> list[str]:
        """Labels that no training row has are refused; odd ones are told."""
        from biasline.data.label_sets import refuse_unlearnable
        from biasline.data.labels import form_notes, imbalance_notes, refuse_unlearned, unjudged_notes
        from biasline.data.name_lists import one_by_one, sets_of

        refuse_unlearnable(splits["train"], task.source.labels)
        single = {name: one_by_one(part) for name, part in splits.items()}
        refuse_unlearned(single, "add rows of each (ten at least), or take them out by source.where")
        labels = one_by_one(good)["label"]
        notes = form_notes(labels, labels)
        if all(len(names) == 1 for names in sets_of(good["labels"])):
            notes.append("every row has one label alone: kind: classification learns which, and needs no thresholds")
        return notes + imbalance_notes(single["train"]["label"]) + unjudged_notes(single)

    def page_lines(self, good: "pl.DataFrame") -> list[str]:
        """How often there is each label, and how many a row has."""
        from biasline.data.charts import shares
        from biasline.data.name_lists import one_by_one, sets_of

        counts = one_by_one(good)["label"].value_counts(sort=True).sort(["count", "label"], descending=[True, False])
        sizes = [len(names) for names in sets_of(good["labels"])]
        several = [(str(size), sizes.count(size)) for size in sorted(set(sizes), key=lambda size: -sizes.count(size))]
        return [*shares(counts.rows(), "label"), "", *shares(several, "labels of a row"), ""]

    def encoding(self, task: "Task", tokenizer: "Tokenizer", folder: Path, train: "pl.DataFrame") -> "Encoding":
        """Texts, each with 1 for every label that it has and 0 for every other."""
        import pyarrow as pa

        from biasline.bases.pin import wants_token_types
        from biasline.data.name_lists import in_order, sets_of
        from biasline.tokens.encoding import Encoding, encode_texts
        from biasline.tokens.texts import TextEncoder, check_sets, set_flags

        texts = TextEncoder(tokenizer, task.tokens.max_length, wants_token_types(folder))
        known = sets_of(train["labels"])
        labels = list(task.source.labels) or in_order(name for held in known for name in held)
        check_sets(labels, known)

        def encode(split: str, frame: "pl.DataFrame") -> "TokenSet":
            flags = set_flags(labels, sets_of(frame["labels"]), frame["row"].to_list(), split)
            return encode_texts(texts, frame, pa.array(flags, pa.list_(pa.int32())))

        def show(row: Mapping[str, Any]) -> str:
            held = [name for name, holds in zip(labels, row["labels"], strict=True) if holds]
            return f"{tokenizer.decode(row['input_ids'])} → {', '.join(held) or '(none)'}"

        return Encoding(
            target={"labels": labels},
            encode=encode,
            made=f"any of the labels {', '.join(labels)}",
            show=show,
            marked="Their labels behind an arrow",
            target_word="labels",
        )

    def answers_told(self, summary: Mapping[str, Any]) -> str:
        """The labels."""
        return f"any of {len(summary['labels'])} labels: {', '.join(summary['labels'])}"

    def objective(self, train: "Train", summary: Mapping[str, Any], rows: Any) -> "Objective":
        """The mean loss of each row's labels."""
        from biasline.training.loss import LabelSets

        return LabelSets()

    def load(
        self, pin: "Pin", folder: Path, load: "Load", train: "Train", labels: Sequence[str]
    ) -> "tuple[PretrainedModel, list[str]]":
        """The base with a head that says of itself that it gives any number of labels."""
        model, head = super().load(pin, folder, load, train, labels)
        # What stock Transformers goes by, which else would take one label a text for granted.
        model.config.problem_type = "multi_label_classification"
        return model, head

    def settled(
        self, model: "PretrainedModel", valid: Any, summary: Mapping[str, Any], train: "Train"
    ) -> tuple[dict[str, str], list[str]]:
        """The probability from which on each label is given, by the validation rows."""
        from biasline.training.thresholds import chosen_thresholds

        return chosen_thresholds(model, valid, summary["labels"], train)


LEARNING = Multilabel()
