"""Metrics of answers in words: right to the letter, near the reference (sacreBLEU's, ROUGE-L), and likelihoods.

The first is the one that an instruction task is judged by unless parameters or its references call for another.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from biasline.metrics.metric import TOKENS, Metric, Predictions, of_counts

if TYPE_CHECKING:
    import numpy as np

# The mean log-likelihood of the reference's tokens, in nats, averaged over rows.
LOG_LIKELIHOOD = "response_log_likelihood"
_KINDS = ("instruction",)
# Han characters of the basic plane: text that has no spaces between words.
_HAN = ("\u4e00", "\u9fff")
# The longest runs of words that BLEU counts.
_BLEU_WORDS = 4
# The least share of references that are so long.
_BLEU_SHARE = 0.1
# The largest mean negative log-likelihood that a perplexity is given of.
_MOST_NATS = 80.0


def tokenizer_for(references: Sequence[str]) -> str:
    """SacreBLEU's tokenizer for some references: `zh`, which takes Chinese apart by character, or `13a`."""
    return "zh" if any(_HAN[0] <= letter <= _HAN[1] for text in references for letter in text) else "13a"


def words_of(texts: Sequence[str]) -> list[list[str]]:
    """Words of texts as sacreBLEU takes them apart, Chinese by character."""
    from sacrebleu.metrics.bleu import BLEU

    tokens = BLEU(tokenize=tokenizer_for(texts)).tokenizer
    return [tokens(text).split() for text in texts]


def rouge_l(predictions: Predictions) -> "np.ndarray":
    """ROUGE-L per row, (rows,), 0 … 1: F1 of the longest common subsequence (Lin 2004).

    Of sacreBLEU's tokens in lower case, so that Chinese counts by character; an empty answer to an empty reference is
    right.
    """
    import numpy as np
    from rapidfuzz.distance import LCSseq
    from sacrebleu.metrics.bleu import BLEU

    tokens = BLEU(tokenize=tokenizer_for(predictions.reference), lowercase=True).tokenizer
    found = []
    for answer, reference in zip(predictions.predicted, predictions.reference, strict=True):
        one, other = tokens(answer.lower()).split(), tokens(reference.lower()).split()
        both = len(one) + len(other)
        found.append(2 * LCSseq.similarity(one, other) / both if both else 1.0)
    return np.array(found)


def _bleu(predictions: Predictions) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize=tokenizer_for(predictions.reference))


def _chrf(_: Predictions) -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


def _corpus_score(scorer: Any, predictions: Predictions) -> float:
    return scorer.corpus_score(list(predictions.predicted), [list(predictions.reference)]).score


def _signature(scorer: Any) -> str:
    # A signature wants the number of references, which sacreBLEU knows once it has scored something.
    scorer.corpus_score(["x"], [["x"]])
    return str(scorer.get_signature())


def _is_too_short_for_bleu(predictions: Predictions) -> str | None:
    """BLEU counts runs of four words: where nearly all references are shorter it is about 0 for every model."""
    references = predictions.reference
    short = sum(len(words) < _BLEU_WORDS for words in words_of(references))
    if len(references) - short >= _BLEU_SHARE * len(references):
        return None
    return f"it counts runs of {_BLEU_WORDS} words, and {short} of {len(references)} references are shorter"


def _is_empty(predictions: Predictions) -> "np.ndarray":
    import numpy as np

    return np.array([not text for text in predictions.predicted])


METRICS = (
    Metric(
        "exact_match",
        _KINDS,
        row_values=lambda predictions: predictions.columns["exact"],
        columns=("exact",),
        interval="wilson",
    ),
    Metric("rouge_l", _KINDS, row_values=rouge_l, stored=True, interval="bootstrap", title="ROUGE-L"),
    # Papineni et al. (2002) and Popović (2015), of the whole test set, 0 … 100 as sacreBLEU gives them.
    Metric(
        "bleu",
        _KINDS,
        statistic=lambda predictions: _corpus_score(_bleu(predictions), predictions),
        bounds=(0.0, 100.0),
        decides=False,
        title="BLEU",
        left_out=_is_too_short_for_bleu,
        signature=lambda predictions: _signature(_bleu(predictions)),
    ),
    Metric(
        "chrf",
        _KINDS,
        statistic=lambda predictions: _corpus_score(_chrf(predictions), predictions),
        bounds=(0.0, 100.0),
        decides=False,
        title="chrF",
        signature=lambda predictions: _signature(_chrf(predictions)),
    ),
    Metric(
        LOG_LIKELIHOOD,
        _KINDS,
        row_values=lambda predictions: -predictions.columns["nll"] / predictions.tokens,
        columns=("nll", TOKENS),
        own_units=False,
        interval="bootstrap",
        bounds=(-math.inf, 0.0),
        no_floor="a likelihood has no natural floor",
        unit="nats a token",
        beside="rouge_l",
    ),
    Metric(
        "response_perplexity",
        _KINDS,
        resampled=of_counts(
            lambda predictions: (predictions.columns["nll"], predictions.tokens),
            lambda nll, tokens: math.exp(min(nll / tokens, _MOST_NATS)),
        ),
        bounds=(1.0, math.inf),
        higher_is_better=False,
        decides=False,
    ),
    # A share of all tokens; models are compared by the share of each row's.
    Metric(
        "token_accuracy",
        _KINDS,
        row_values=lambda predictions: predictions.columns["hits"] / predictions.tokens,
        resampled=of_counts(
            lambda predictions: (predictions.columns["hits"], predictions.tokens), lambda hits, tokens: hits / tokens
        ),
        columns=("hits", TOKENS),
    ),
    Metric("empty_rate", _KINDS, row_values=_is_empty, higher_is_better=False, decides=False),
    Metric(
        "never_ending_rate",
        _KINDS,
        row_values=lambda predictions: predictions.columns["never_ending_rate"],
        columns=("never_ending_rate",),
        higher_is_better=False,
        decides=False,
    ),
)
