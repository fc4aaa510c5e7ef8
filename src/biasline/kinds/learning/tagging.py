"""Tagging: words, and a tag for each: named entities, parts of speech."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biasline.kinds.columns import Columns
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

_BROKEN_BIO = "broken_bio"


def reading(where: str, raw: "Raw", taken: Mapping[str, str], source: "Source") -> "Raw":
    """Words and tags are lists in most files."""
    from biasline.data.tags import joined, listed

    # What a model is asked stays a text or a list: they are not parted into words in the same way.
    return joined(raw, taken, source.labels) if "tags" in taken else listed(raw, taken["text"])


class Tagging(Learning):
    """The tags of words, by a head that reads each word at its first token."""

    name = "tagging"
    order = 4
    told = "words and a tag for each (named entities, parts of speech)"
    columns = Columns(
        prompt=("text",),
        answer="tags",
        aliases={
            "text": ("tokens", "words", "text", "sentence"),
            "tags": ("tags", "ner_tags", "pos_tags", "labels", "tag"),
        },
        looks="structure",
        reading=reading,
    )
    auto_class = "AutoModelForTokenClassification"

    def rules(self) -> "Sequence[Rule]":
        """What words and tags must be to belong together."""
        import polars as pl

        from biasline.data.rules import Rule, agreed
        from biasline.data.tags import are_good, as_many, holds
        from biasline.metrics.spans import OUTSIDE, marks, mended

        def known(labels: tuple[str, ...]) -> pl.Expr:
            return holds(lambda tags, _: not labels or all(not tag or tag in labels for tag in tags))

        ours = ("text", "tags")
        filled = pl.col("tags").fill_null("") != ""
        readable = filled & are_good("tags") & are_good("text") & as_many()
        return (
            Rule(
                "broken_word", "a word is empty or holds white space", lambda _: are_good("text"), ours, structural=True
            ),
            Rule("empty_tags", "no tags, or an empty one", lambda _: filled & are_good("tags"), ours, structural=True),
            Rule("unequal_lengths", "not as many tags as words", lambda _: as_many(), ours, structural=True),
            Rule(
                "unknown_tag",
                "a tag is none of source.labels",
                lambda terms: known(terms.labels),
                ours,
                structural=True,
            ),
            Rule(
                "stray_tag",
                "a tag is none of O, B-X and I-X, as others are",
                lambda _: holds(lambda tags, marked: not marked or all(t in ("", OUTSIDE) or marks(t) for t in tags)),
                ours,
            ),
            Rule(
                _BROKEN_BIO,
                "a tag I-X follows neither B-X nor I-X (with quality.off: [broken_bio] it begins an entity)",
                lambda _: holds(lambda tags, marked: not marked or list(mended(tags)) == list(tags)),
                ours,
            ),
            Rule(
                "conflicting_duplicate",
                "the same words have other tags elsewhere",
                agreed("tags", lambda _: readable, fold=False),
                ours,
            ),
        )

    def prepared(self, frame: "pl.DataFrame", task: "Task") -> "tuple[pl.DataFrame, list[str]]":
        """Other schemes of entities as BIO; where broken ones are no reason to refuse a row, they are mended."""
        from biasline.data.tags import in_bio, with_beginnings

        frame, count = in_bio(frame, task.source.labels)
        notes = [f"{count:,} rows with tags S-, U-, E- or L- are taken as BIO: B- and I-"] if count else []
        if _BROKEN_BIO in task.quality.off:
            frame, count = with_beginnings(frame)
            notes += [f"{count:,} rows with a tag I-X after neither B-X nor I-X: it begins an entity"] if count else []
        return frame, notes

    def look(
        self, splits: "Mapping[str, pl.DataFrame]", good: "pl.DataFrame", read: "pl.DataFrame", task: "Task"
    ) -> list[str]:
        """Tags that no training row has are refused, unless parameters name all tags; odd ones are told."""
        from biasline.data.tags import refuse_one_tag, refuse_unlearned, tag_notes

        refuse_one_tag(splits["train"])
        if not task.source.labels:
            refuse_unlearned(splits)
        return tag_notes(splits)

    def page_lines(self, good: "pl.DataFrame") -> list[str]:
        """How often there is each type of entity, or each tag."""
        from biasline.data.charts import shares
        from biasline.data.tags import tag_counts

        return [*shares(tag_counts(good["tags"]), "entity or tag", "times"), ""]

    def encoding(self, task: "Task", tokenizer: "Tokenizer", folder: Path, train: "pl.DataFrame") -> "Encoding":
        """Words, the tag of each at its first token."""
        from biasline.bases.pin import wants_token_types
        from biasline.tokens.encoding import Encoding
        from biasline.tokens.words import WordEncoder, encode_words, show_tagged, tag_names

        words = WordEncoder(tokenizer, task.tokens.max_length, wants_token_types(folder))
        labels = tag_names(task.source.labels, train["tags"].to_list())

        def encode(_: str, frame: "pl.DataFrame") -> "TokenSet":
            return encode_words(words, labels, frame)

        return Encoding(
            target={"labels": labels},
            encode=encode,
            made=f"tags {', '.join(labels)}",
            show=lambda row: show_tagged(tokenizer, labels, row),
            marked="The tag of each word behind a stroke",
        )

    def answers_told(self, summary: Mapping[str, Any]) -> str:
        """The tags."""
        train = summary["splits"]["train"]
        return f"{train['supervised_tokens']:,} words to learn; {len(summary['labels'])} tags"

    def objective(self, train: "Train", summary: Mapping[str, Any], rows: Any) -> "Objective":
        """The loss of each word's tag."""
        from biasline.training.loss import WordTags

        return WordTags()

    def load(
        self, pin: "Pin", folder: Path, load: "Load", train: "Train", labels: Sequence[str]
    ) -> "tuple[PretrainedModel, list[str]]":
        """The base with a head that reads each token."""
        from biasline.bases.load import load_classifier

        return load_classifier(pin, folder, load, labels, train.seed, train.head, train.pooling, self.auto_class)


LEARNING = Tagging()
