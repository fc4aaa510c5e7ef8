"""What a tagging task answers: the tag of each word, and the entities that tags mark."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from biasline.kinds.learning.tagging import LEARNING
from biasline.kinds.protocols import Answering, Output
from biasline.metrics.tags import metrics_of_tags

if TYPE_CHECKING:
    import polars as pl

    from biasline.bases.pin import Pin
    from biasline.bases.tokenizer import Tokenizer
    from biasline.evaluation.compared import Compared
    from biasline.layout import TaskPlace
    from biasline.params import Task
    from biasline.serving.predictor import Predictor

_ENTITY = {"type": "string", "text": "string", "start": "long", "end": "long", "probability": "double"}


class Tagging(Answering):
    """The likeliest tag of each word, beside that which the word mostly has: an untrained head knows nothing better."""

    learning = LEARNING
    metrics = metrics_of_tags(LEARNING.name)
    base_label = "tag that each word mostly has"
    outputs: ClassVar[Mapping[str, Output]] = {
        "words": ["string"],
        "tags": ["string"],
        "probabilities": ["double"],
        "entities": [_ENTITY],
    }

    # evaluation

    def compare(self, task: "Task", place: "TaskPlace", pin: "Pin", folder: Path, test: "pl.DataFrame") -> "Compared":
        """Tags that words mostly have, those of a head alone, and the tuned model's."""
        from dataclasses import replace

        from biasline.bases.pin import load_tokenizer, wants_token_types
        from biasline.data.clean import read_split
        from biasline.evaluation import tagged
        from biasline.evaluation.compared import Compared
        from biasline.evaluation.headed import load_headed
        from biasline.evaluation.measure import CHEAPER, metrics_in
        from biasline.tokens.saved import read_summary
        from biasline.tokens.words import WordEncoder

        labels, kind = read_summary(place)["labels"], self.learning.name
        rows = [text.split(" ") for text in test["text"]]
        sizes = [len(words) for words in rows]
        encoder = WordEncoder(load_tokenizer(pin, folder), task.tokens.max_length, wants_token_types(folder))
        # Not the rows of the token set: those end where tokens.max_length cuts them.
        windows, owners = tagged.windows_of(encoder, rows)
        headed = replace(load_headed(self.learning, task, place, pin, folder, labels), rows=windows)
        asked = headed.asked(tagged.probed, tagged.tag_scores)
        given, alone = (tagged.tagged(part, owners, sizes, labels) for part in (asked.tuned, asked.probe))
        table = tagged.answered(test, "base", tagged.mostly(read_split(place, "train"), rows))
        table = tagged.answered(table, "tuned", [one.tags for one in given])
        table = tagged.answered(table, CHEAPER, [one.tags for one in alone])
        table = table.with_columns(tagged.probabilities_told([one.probabilities for one in given]))
        base, tuned, probe = (metrics_in(table, who, kind) for who in ("base", "tuned", CHEAPER))
        return Compared(base, tuned, table, headed.change, probe, timed=asked.timed)

    def sections(self, predictions: "pl.DataFrame", labels: Sequence[str], settled: Mapping[str, str]) -> list[str]:
        """Types of entities one by one, and the rows with the most wrong tags."""
        from biasline.evaluation.tagged import tag_sections

        return tag_sections(predictions)

    def confusion(self, predictions: "pl.DataFrame") -> "pl.DataFrame | None":
        """What words are and what they were taken for, those aside that are outside of entities and were taken so."""
        from biasline.evaluation.tagged import word_pairs

        return word_pairs(predictions)

    def made(self, task: "Task", labels: Sequence[str]) -> str:
        """The tags by name."""
        return f"tags {', '.join(labels)}, each at the first token of its word"

    def rescored(
        self, predictor: "Predictor", rows: "pl.DataFrame", given: Sequence[Any], own_metrics: str
    ) -> "pl.DataFrame":
        """With `tuned`, whether all tags are right, and their probabilities."""
        from biasline.evaluation.tagged import answered, probabilities_told

        told = probabilities_told([one["probabilities"] for one in given])
        return answered(rows, "tuned", [one["tags"] for one in given]).with_columns(told)

    # serving

    def asked(self, rows: "pl.DataFrame") -> list[dict[str, Any]]:
        """The words of each row as a list, so that none is parted."""
        return [{"text": text.split(" ")} for text in rows["text"]]

    def inputs(
        self, predictor: "Predictor", records: Sequence[dict[str, Any]], max_new_tokens: int | None = None
    ) -> list[dict[str, list[int]]]:
        """Tokens of each row's words; of a row that takes several windows the first."""
        rows = [[word for word, _, _ in words] for _, words in predictor.word_rows(records)]
        return [windows[0].inputs for windows in predictor.word_encoder(rows)]

    def answer(self, predictor: "Predictor", records: Sequence[dict[str, Any]], params: Mapping[str, Any]) -> list[Any]:
        """The words of each row with their tags, and the entities with their places in its text.

        A text is parted into words as running text is; a list of words is taken as it is, and its text is these words
        with a space between them.
        """
        from biasline.evaluation.tagged import spans_told, tag_rows

        given = predictor.word_rows(records)
        rows = [[word for word, _, _ in words] for _, words in given]
        found = tag_rows(predictor.model, predictor.word_encoder, rows, predictor.labels, predictor.batches)
        return [
            {"words": words, **one._asdict(), "entities": spans_told(text, placed, one.tags, one.probabilities)}
            for words, one, (text, placed) in zip(rows, found, given, strict=True)
        ]

    def line(self, answer: Any) -> str:
        """The entities with their types; words with their tags where these are plain."""
        told = " ".join(f"{' '.join(one['text'].split())}/{one['type']}" for one in answer["entities"])
        return told or "(none)"

    def evaluated(self, predictions: "pl.DataFrame") -> list[Any]:
        """Tags, probabilities and entities."""
        import json

        from biasline.evaluation.tagged import spans_told
        from biasline.tokens.words import placed

        answers = []
        for text, given, told in predictions.select("text", "tuned", "tuned_probabilities").iter_rows():
            words, tags, probabilities = text.split(" "), given.split(" "), json.loads(told)
            answers.append(
                {
                    "words": words,
                    "tags": tags,
                    "probabilities": probabilities,
                    "entities": spans_told(text, placed(words), tags, probabilities),
                }
            )
        return answers

    # stock Transformers

    def stock_ids(self, tokenizer: "Tokenizer", row: dict[str, Any], predictor: "Predictor") -> list[int]:
        """Tokens of the words, uncut."""
        [words] = predictor.word_encoder.given([row["text"]])
        return list(tokenizer.backend_tokenizer.encode(words, is_pretokenized=True).ids)

    def stock_usage(self, predictor: "Predictor", tokenizer: "Tokenizer", row: dict[str, Any]) -> list[str]:
        """Words, their tokens, and the tag at the first token of each."""
        spaced = "[words[0], *(f' {word}' for word in words[1:])]"
        given = spaced if predictor.word_encoder.spaced else "words"
        return [
            "import torch",
            "",
            f"words = {row['text']!r}",
            f"found = tokenizer.backend_tokenizer.encode({given}, is_pretokenized=True)",
            "tags = model(torch.tensor([found.ids])).logits[0].argmax(-1).tolist()",
            "places = {word: place for place, word in reversed([*enumerate(found.word_ids)])}",
            "print([(word, model.config.id2label[tags[places[at]]]) for at, word in enumerate(words) if at in places])",
            "```",
        ]


ANSWERING = Tagging()
