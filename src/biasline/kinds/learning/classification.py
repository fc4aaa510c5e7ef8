"""Classification: a text (or two) and its label."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from biasline.kinds.columns import TEXTS, Columns
from biasline.kinds.protocols import Learning

if TYPE_CHECKING:
    from biasline.bases.pin import Pin
    from biasline.bitfit.pretrained import PretrainedModel
    from biasline.params import Load, Train


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
    )
    class_weights = True

    def load(
        self, pin: "Pin", folder: Path, load: "Load", train: "Train", labels: Sequence[str]
    ) -> "tuple[PretrainedModel, list[str]]":
        """The base with a head that reads a whole text."""
        from biasline.bases.load import load_classifier

        return load_classifier(pin, folder, load, labels, train.seed, train.head, pooling=train.pooling)


LEARNING = Classification()
