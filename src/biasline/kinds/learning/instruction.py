"""Instructions: a prompt and its answer, which a language model writes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from biasline.kinds.columns import Columns
from biasline.kinds.protocols import Learning

if TYPE_CHECKING:
    import polars as pl

    from biasline.bases.pin import Pin
    from biasline.bases.tokenizer import Tokenizer
    from biasline.bitfit.pretrained import PretrainedModel
    from biasline.params import Load, Task, Train
    from biasline.tokens.encoding import Encoding
    from biasline.training.loss import Objective


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

    def prepared(self, frame: "pl.DataFrame", task: "Task") -> "tuple[pl.DataFrame, list[str]]":
        """Inputs that only say that there is none are empty."""
        from biasline.data.contract import emptied_inputs

        frame, count = emptied_inputs(frame)
        return frame, [f"{count:,} inputs that only say that there is none are taken as empty"] if count else []

    def page_lines(self, good: "pl.DataFrame") -> list[str]:
        """How long outputs are."""
        from biasline.data.charts import histogram

        return [*histogram(good["output"].str.len_chars().to_list(), "characters of the output"), ""]

    def encoding(self, task: "Task", tokenizer: "Tokenizer", folder: Path, train: "pl.DataFrame") -> "Encoding":
        """Dialogues in a template, their answers supervised token by token."""
        from biasline.bases.limits import limits_of
        from biasline.tokens.answers import encode_answers, show_supervised
        from biasline.tokens.checks import prompt_room, template_notes
        from biasline.tokens.encoding import Encoding
        from biasline.tokens.mask import Encoder
        from biasline.tokens.template import dialogues_of

        encoder, name = Encoder.from_params(tokenizer, task.tokens), task.tokens.template_name

        def check(frames: "Mapping[str, pl.DataFrame]") -> None:
            # All of them will be asked, those whose answer is too long to train on too.
            room = prompt_room(task.tokens.max_length, task.evaluate.max_new_tokens, limits_of(folder).positions)
            encoder.prompts(dialogues_of(frames["test"], answered=False), room, frames["test"]["row"].to_list())

        return Encoding(
            target={"template": name},
            encode=encode_answers(encoder),
            made=f"template `{name}`",
            show=lambda row: show_supervised(tokenizer, row["input_ids"], row["labels"]),
            marked="The loss is taken between ⟦ and ⟧ only",
            notes=list(template_notes(encoder)),
            check=check,
        )

    def answers_told(self, summary: Mapping[str, Any]) -> str:
        """How much of the training rows is supervised."""
        train = summary["splits"]["train"]
        return f"{train['supervised_tokens'] / train['tokens']:.0%} of the training tokens are supervised"

    def objective(self, train: "Train", summary: Mapping[str, Any], rows: Any) -> "Objective":
        """The loss of each token of an answer."""
        from biasline.training.loss import ResponseTokens

        return ResponseTokens()

    def load(
        self, pin: "Pin", folder: Path, load: "Load", train: "Train", labels: Sequence[str]
    ) -> "tuple[PretrainedModel, list[str]]":
        """The base as a causal language model."""
        from biasline.bases.load import load_causal_lm

        return load_causal_lm(pin, folder, load), []


LEARNING = Instruction()
