"""What a classification task answers."""

from biasline.kinds.learning.classification import LEARNING
from biasline.kinds.protocols import Answering


class Classification(Answering):
    """X."""

    learning = LEARNING


ANSWERING = Classification()
