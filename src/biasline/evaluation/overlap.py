"""How near an answer comes to its reference: BLEU and chrF by sacreBLEU, ROUGE-L, and a project's own scores."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from biasline.custom import own_functions
from biasline.errors import BiaslineError, first_line, shown
from biasline.params import LOG_LIKELIHOOD

# Han characters of the basic plane: text that has no spaces between words.
_HAN = ("\u4e00", "\u9fff")
# Metrics and columns of predictions, which a project's own scores must not be called.
_TAKEN: tuple[str, ...] = ("exact", "exact_match", "rouge_l", "bleu", "chrf", "response_perplexity", "token_accuracy")
_TAKEN += ("empty_rate", "never_ending_rate", "nll", "hits", "error", LOG_LIKELIHOOD)
# The longest runs of words that BLEU counts.
_BLEU_WORDS = 4
# The least share of references that are so long.
_BLEU_SHARE = 0.1


def tokenizer_for(references: Sequence[str]) -> str:
    """Tokenizer of sacreBLEU for some references: `zh`, which takes Chinese apart by character, or `13a`."""
    return "zh" if any(_HAN[0] <= letter <= _HAN[1] for text in references for letter in text) else "13a"


def words_of(texts: Sequence[str]) -> list[list[str]]:
    """Words of texts as sacreBLEU takes them apart, Chinese by character."""
    from sacrebleu.metrics.bleu import BLEU

    tokens = BLEU(tokenize=tokenizer_for(texts)).tokenizer
    return [tokens(text).split() for text in texts]


def bleu_and_chrf(
    answers: Sequence[str], references: Sequence[str]
) -> tuple[dict[str, float], dict[str, str], dict[str, str]]:
    """BLEU (Papineni et al. 2002) and chrF (Popović 2015) of a whole test set, 0 … 100 as sacreBLEU gives them.

    BLEU counts runs of four words: where nearly all references are shorter it is about 0 however right the answers are,
    and is left out.

    Returns:
        The values; the signatures that make them comparable; of a metric that is left out, the reason.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    scorers = {"bleu": BLEU(tokenize=tokenizer_for(references)), "chrf": CHRF()}
    left_out = {}
    short = sum(len(words) < _BLEU_WORDS for words in words_of(references))
    if len(references) - short < _BLEU_SHARE * len(references):
        left_out["bleu"] = (
            f"it counts runs of {_BLEU_WORDS} words, and {short} of {len(references)} references are shorter"
        )
        del scorers["bleu"]
    values = {name: scorer.corpus_score(answers, [references]).score for name, scorer in scorers.items()}
    return values, {name: str(scorer.get_signature()) for name, scorer in scorers.items()}, left_out


def rouge_l(answers: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """ROUGE-L per row, (rows,), 0 … 1: F1 of the longest common subsequence (Lin 2004).

    Of sacreBLEU's tokens in lower case, so that Chinese counts by character; an empty answer to an empty reference is
    right.
    """
    from rapidfuzz.distance import LCSseq
    from sacrebleu.metrics.bleu import BLEU

    tokens = BLEU(tokenize=tokenizer_for(references), lowercase=True).tokenizer
    found = []
    for answer, reference in zip(answers, references, strict=True):
        one, other = tokens(answer.lower()).split(), tokens(reference.lower()).split()
        both = len(one) + len(other)
        found.append(2 * LCSseq.similarity(one, other) / both if both else 1.0)
    return np.array(found)


class OwnScores:
    """A project's own scores of answers: the public functions of a Python file.

    Each takes one row as a dict (its columns, and the model's text as `answer`) and gives a number, the higher the
    better; its name is the metric's.

    Raises:
        BiaslineError: where the file does not run, or a function has the name of another metric.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._functions = own_functions(path, "evaluate.metrics")
        if clash := set(self._functions) & set(_TAKEN):
            raise BiaslineError(f"{shown(path)}: {min(clash)} is a metric already", "call the function something else")

    def __call__(self, rows: Sequence[Mapping[str, Any]], answers: Sequence[str]) -> dict[str, np.ndarray]:
        """Name → scores, (rows,)."""
        asked = [{**row, "answer": answer} for row, answer in zip(rows, answers, strict=True)]
        return {name: np.array([self._score(f, row) for row in asked]) for name, f in self._functions.items()}

    def _score(self, function: FunctionType, row: dict[str, Any]) -> float:
        where = f"{shown(self._path)}: {function.__name__}: row {row['row']}"
        try:
            value = float(function(row))
        except Exception as error:  # whatever the user's code raises
            raise BiaslineError(f"{where}: {type(error).__name__}: {first_line(error)}", "mend the function") from None
        if not math.isfinite(value):
            raise BiaslineError(f"{where}: {value} is no score", "return a finite number")
        return value
