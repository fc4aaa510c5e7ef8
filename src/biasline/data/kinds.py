"""The two kinds of examples: their columns, and the names under which files have them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """Columns of one kind of example.

    Attributes:
        prompt: text columns that the model is given; the first is required.
        answer: the column that it is to produce; required.
        aliases: our column → names that files use for it, best first.
    """

    prompt: tuple[str, ...]
    answer: str
    aliases: dict[str, tuple[str, ...]]

    @property
    def columns(self) -> tuple[str, ...]:
        """All of our columns; any other column of a file is metadata."""
        return (*self.prompt, self.answer)

    @property
    def required(self) -> tuple[str, ...]:
        return (self.prompt[0], self.answer)


KINDS = {
    "instruction": Kind(
        prompt=("instruction", "input"),
        answer="output",
        aliases={
            "instruction": ("instruction", "prompt", "question", "query", "human", "user"),
            "input": ("input", "context", "passage"),
            "output": ("output", "response", "answer", "std_answer", "completion", "target", "assistant", "reply"),
        },
    ),
    "classification": Kind(
        prompt=("text", "text_pair"),
        answer="label",
        aliases={
            "text": (
                "text",
                "sentence",
                "review",
                "content",
                "comment",
                "sentence1",
                "premise",
                "question1",
                "question",
            ),
            "text_pair": ("text_pair", "sentence2", "hypothesis", "question2"),
            "label": ("label", "labels", "sentiment", "class", "category", "target"),
        },
    ),
}
