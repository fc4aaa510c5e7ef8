"""What an instruction task answers: texts that the model writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from biasline.kinds.learning.instruction import LEARNING
from biasline.kinds.protocols import Answering

if TYPE_CHECKING:
    import polars as pl

    from biasline.bases.pin import Pin
    from biasline.evaluation.compared import Compared
    from biasline.layout import TaskPlace
    from biasline.params import Task


class Instruction(Answering):
    """Texts, judged by whether they are the reference, or by how likely the reference was."""

    learning = LEARNING
    base_label = "untuned base"
    example = '{"instruction": "…", "input": ""}'
    own_metrics = True

    # evaluation

    def references(self, test: "pl.DataFrame") -> Sequence[str]:
        """The right answers, which may be short or open."""
        return test[self.learning.columns.answer].to_list()

    def compare(self, task: "Task", place: "TaskPlace", pin: "Pin", folder: Path, test: "pl.DataFrame") -> "Compared":
        """Generated answers of the untuned base and the tuned model."""
        from biasline.evaluation.answers import compare_answers

        return compare_answers(self, task, place, pin, folder, test)

    def made(self, task: "Task", labels: Sequence[str]) -> str:
        """The template that prompts and answers were put into."""
        return f"template `{task.tokens.template_name}`"


ANSWERING = Instruction()
