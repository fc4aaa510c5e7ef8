"""Regression: a text (or two) and its score."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biasline.kinds.columns import TEXTS, Columns
from biasline.kinds.protocols import Learning

if TYPE_CHECKING:
    import polars as pl

    from biasline.bases.tokenizer import Tokenizer
    from biasline.data.raw import Raw
    from biasline.params import Source, Task, Train
    from biasline.tokens.encoding import Encoding, TokenSet
    from biasline.training.loss import Objective


def reading(where: str, raw: "Raw", taken: Mapping[str, str], source: "Source") -> "Raw":
    """A number is no text, and a score all the same."""
    if (name := taken.get("score")) is None:  # rows that a model is asked have none
        return raw
    return raw.replaced(name, raw.text(name), raw.nested(name))


class Regression(Learning):
    """The score of a text, by a head with one output, in units of the training scores' standard deviation."""

    name = "regression"
    order = 2
    told = "a text (or two) and its score"
    columns = Columns(
        prompt=("text", "text_pair"),
        answer="score",
        aliases={**TEXTS, "score": ("score", "similarity", "rating", "stars", "grade", "label", "target")},
        looks="score",
        augmented=("text", "text_pair"),
        reading=reading,
    )

    def output_names(self, labels: Sequence[str]) -> list[str]:
        """One, the score."""
        return ["score"]

    def page_lines(self, good: "pl.DataFrame") -> list[str]:
        """How scores are spread."""
        import polars as pl

        from biasline.data.charts import spread

        return [*spread(good["score"].cast(pl.Float64).to_list(), "score"), ""]

    def encoding(self, task: "Task", tokenizer: "Tokenizer", folder: Path, train: "pl.DataFrame") -> "Encoding":
        """Texts, each with its score in the data's own units."""
        import polars as pl

        from biasline.bases.pin import wants_token_types
        from biasline.tokens.encoding import Encoding, encode_texts
        from biasline.tokens.texts import TextEncoder, score_scale

        texts = TextEncoder(tokenizer, task.tokens.max_length, wants_token_types(folder))

        def encode(_: str, frame: pl.DataFrame) -> "TokenSet":
            return encode_texts(texts, frame, frame["score"].cast(pl.Float32).to_arrow())

        return Encoding(
            target={"score": score_scale(train["score"].cast(pl.Float64).to_list())},
            encode=encode,
            made="scores",
            show=lambda row: f"{tokenizer.decode(row['input_ids'])} → {row['labels']:g}",
            marked="Their score behind an arrow",
            target_word="score",
        )

    def answers_told(self, summary: Mapping[str, Any]) -> str:
        """Mean and standard deviation of the scores."""
        scale = summary["score"]
        return f"scores of mean {scale['mean']:.4g} and standard deviation {scale['std']:.4g}"

    def objective(self, train: "Train", summary: Mapping[str, Any], rows: Any) -> "Objective":
        """Half the squared error of each row."""
        from biasline.training.loss import Scores

        return Scores(**summary["score"])


LEARNING = Regression()
