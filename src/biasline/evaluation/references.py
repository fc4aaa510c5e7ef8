"""What the right answers are like, and which metrics say something about answers to them."""

import statistics
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from biasline.bases.tokenizer import Tokenizer
from biasline.metrics.texts import LOG_LIKELIHOOD, words_of
from biasline.params import Task

# References of so many words at the median can hardly be met word for word, unless they come again.
_LONG, _HALF = 12, 0.5
# Shorter ones too, where nearly each is another: there is no small set of right answers.
_FREE, _MOSTLY = 6, 0.95
# Letters of a word, for scripts that have no spaces between words.
_LETTERS = 6


@dataclass(frozen=True)
class Decisive:
    """The metric that models of a task are judged by.

    Attributes:
        name: the metric's.
        reason: why it is that one.
    """

    name: str
    reason: str


def decisive_metric(task: Task, references: Sequence[str] = ()) -> Decisive:
    """The metric that parameters name; where they leave it open, one that the references allow.

    Answers to open questions are never the reference to the letter, so exact match would be 0 for every model; what
    moves with each row is the likelihood of the reference.

    Args:
        task: its parameters.
        references: the right answers of the test rows, where they say by what metric they can be judged.
    """
    if task.gates.metric != "auto":
        return Decisive(task.gates.metric, "gates.metric names it")
    if not references:
        return Decisive(task.metric, f"the default of a {task.kind}")
    sizes = zip(words_of(references), references, strict=True)
    words = statistics.median(max(len(words), len(text) // _LETTERS) for words, text in sizes)
    distinct = len(set(references)) / len(references)
    counted = "1 word" if words == 1 else f"{words:g} words"
    about = f"the references have {counted} at the median, {distinct:.0%} of them differ"
    if (words >= _LONG and distinct >= _HALF) or (words >= _FREE and distinct >= _MOSTLY):
        return Decisive(LOG_LIKELIHOOD, f"answers are open: {about}")
    return Decisive(task.metric, f"answers are short: {about}")


def own_spelling(tokenizer: Tokenizer, references: Sequence[str]) -> list[str]:
    """References as a tokenizer spells them: one that normalizes text (NFC, say) cannot give them otherwise.

    Only what is the same text under Unicode's compatibility forms is taken; a reference with characters that the
    vocabulary lacks stays as it is.
    """
    found = tokenizer(list(references), add_special_tokens=False, split_special_tokens=True).input_ids
    spelled = tokenizer.batch_decode(found, skip_special_tokens=True)
    return [new if _same(new, old) else old for new, old in zip(spelled, references, strict=True)]


def _same(one: str, other: str) -> bool:
    one, other = (unicodedata.normalize("NFKC", text.strip()) for text in (one, other))
    return one == other
