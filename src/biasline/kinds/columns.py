"""The columns of an example, and the names under which files have them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from biasline.data.raw import Raw
    from biasline.params import Source


@dataclass(frozen=True)
class Columns:
    """Columns of one kind of example.

    Attributes:
        prompt: text columns that the model is given; the first is required.
        context: what was said before: `history`, a JSON list of [role, content], empty for a single turn; an answer
            that is not to be learned is [role, content, 0].
        answer: the column that it is to produce; required.
        aliases: our column → names that files use for it, best first.
        looks: what an answer looks like: a text of its own (`text`), one of few values (`label`), a number (`score`),
            or something that a program writes, such as a list (`structure`).
        augmented: those of the prompt that augmentation changes unless parameters say otherwise; none where a change
            of words would make the answer wrong.
        gathering: makes a column out of several, before columns are taken: (the data for messages, records, parameters)
            → records and notes.
        reading: brings a file's columns to texts, where they are more than that: (the data for messages,
            records, our column → the file's, parameters) → records.
        answered: whether rows have their answer; those that a model is asked need none.
    """

    prompt: tuple[str, ...]
    answer: str
    aliases: dict[str, tuple[str, ...]]
    context: tuple[str, ...] = ()
    looks: Literal["text", "label", "score", "structure"] = "text"
    augmented: tuple[str, ...] = ()
    gathering: "Callable[[str, Raw, Source], tuple[Raw, list[str]]] | None" = None
    reading: "Callable[[str, Raw, Mapping[str, str], Source], Raw] | None" = None
    answered: bool = True

    @property
    def given(self) -> tuple[str, ...]:
        """All that the model is given."""
        return (*self.prompt, *self.context)

    @property
    def columns(self) -> tuple[str, ...]:
        """All of our columns; any other column of a file is metadata."""
        return (*self.given, self.answer) if self.answered else self.given

    @property
    def required(self) -> tuple[str, ...]:
        """The columns that every row must have a text in."""
        return (self.prompt[0], self.answer) if self.answered else self.prompt[:1]


# Names that files have for a text, and for the second of a pair, where a label or a score belongs to it.
TEXTS = {
    "text": ("text", "sentence", "review", "content", "comment", "sentence1", "premise", "question1", "question"),
    "text_pair": ("text_pair", "sentence2", "hypothesis", "question2"),
}
