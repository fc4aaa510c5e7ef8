"""What a regression task answers."""

from biasline.kinds.learning.regression import LEARNING
from biasline.kinds.protocols import Answering


class Regression(Answering):
    """X."""

    learning = LEARNING


ANSWERING = Regression()
