"""What a instruction task answers."""

from biasline.kinds.learning.instruction import LEARNING
from biasline.kinds.protocols import Answering


class Instruction(Answering):
    """X."""

    learning = LEARNING


ANSWERING = Instruction()
