"""Regression: a text (or two) and its score."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from biasline.kinds.columns import TEXTS, Columns
from biasline.kinds.protocols import Learning

if TYPE_CHECKING:
    from biasline.bases.pin import Pin
    from biasline.bitfit.pretrained import PretrainedModel
    from biasline.params import Load, Train


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
    )

    def outputs(self, labels: Sequence[str]) -> list[str]:
        """One, the score."""
        return ["score"]

    def load(
        self, pin: "Pin", folder: Path, load: "Load", train: "Train", labels: Sequence[str]
    ) -> "tuple[PretrainedModel, list[str]]":
        """The base with a head that reads a whole text."""
        from biasline.bases.load import load_classifier

        return load_classifier(pin, folder, load, labels, train.seed, train.head, pooling=train.pooling)


LEARNING = Regression()
