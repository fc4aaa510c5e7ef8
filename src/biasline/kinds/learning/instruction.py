"""Instructions: a prompt and its answer, which a language model writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from biasline.kinds.columns import Columns
from biasline.kinds.protocols import Learning

if TYPE_CHECKING:
    from biasline.bases.pin import Pin
    from biasline.bitfit.pretrained import PretrainedModel
    from biasline.params import Load, Train


class Instruction(Learning):
    """The tokens of an answer, given an instruction, its input, and what was said before."""

    name = "instruction"
    order = 0
    told = "a prompt and its answer"
    columns = Columns(
        prompt=("instruction", "input"),
        answer="output",
        context=("history",),
        aliases={
            "instruction": ("instruction", "prompt", "question", "query", "human", "user"),
            "input": ("input", "context", "passage"),
            "output": ("output", "response", "answer", "std_answer", "completion", "target", "assistant", "reply"),
        },
        augmented=("instruction",),
    )
    auto_class = "AutoModelForCausalLM"
    headed = False

    def load(
        self, pin: "Pin", folder: Path, load: "Load", train: "Train", labels: Sequence[str]
    ) -> "tuple[PretrainedModel, list[str]]":
        """The base as a causal language model."""
        from biasline.bases.load import load_causal_lm

        return load_causal_lm(pin, folder, load), []


LEARNING = Instruction()
