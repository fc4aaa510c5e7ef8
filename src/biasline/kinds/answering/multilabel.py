"""What a multilabel task answers."""

from biasline.kinds.learning.multilabel import LEARNING
from biasline.kinds.protocols import Answering
from biasline.metrics.metric import Metric


class Multilabel(Answering):
    """X."""

    learning = LEARNING
    metrics = (Metric("f1_micro", ("multilabel",), statistic=lambda predictions: 0.0),)


ANSWERING = Multilabel()
