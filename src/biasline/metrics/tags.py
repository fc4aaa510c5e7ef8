"""Metrics of tags of words, which rows and answers have joined by spaces.

Entities count as seqeval and conlleval count them: type, first and last word must be right. Where tags are plain, and
every word has one, precision, recall and F1 are the share of words that are right.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from biasline.metrics.metric import Metric, Predictions, of_counts
from biasline.metrics.spans import entities

if TYPE_CHECKING:
    import numpy as np
    from nervaluate.entities import EvaluationResult


def metrics_of_tags(kind: str) -> tuple[Metric, ...]:
    """Metrics of a kind of task whose answers are tags, joined by spaces; the first is the one it is judged by."""
    kinds = (kind,)

    def share(name: str, statistic: Callable[..., float], interval: bool = False, note: str = "") -> Metric:
        return Metric(
            name,
            kinds,
            statistic=lambda predictions: getattr(_strict(predictions)[""], name),
            resampled=of_counts(_counts, statistic),
            interval="bootstrap" if interval else "",
            note=note,
        )

    return (
        share(
            "f1",
            lambda hits, held, given: 2 * hits / max(held + given, 1),
            interval=True,
            note="of whole entities; where tags are plain, of words",
        ),
        share("precision", lambda hits, held, given: hits / max(given, 1)),
        share("recall", lambda hits, held, given: hits / max(held, 1)),
        Metric(
            "accuracy",
            kinds,
            statistic=_accuracy,
            resampled=of_counts(_words, lambda right, words: right / max(words, 1)),
            interval="bootstrap",
            label="accuracy of words",
            note="of words, those outside of entities among them",
        ),
        Metric(
            "exact_match",
            kinds,
            row_values=lambda predictions: predictions.columns["exact"],
            columns=("exact",),
            interval="wilson",
            note="all tags of a row are right",
        ),
    )


def by_type(reference: Sequence[str], predicted: Sequence[str]) -> "Mapping[str, EvaluationResult]":
    """Hits, misses, precision, recall and F1 of each type of entity, in alphabetical order.

    Args:
        reference: the right tags of each row, joined by spaces.
        predicted: those given.
    """
    found = dict(_strict(Predictions(reference, predicted)))
    del found[""]
    return dict(sorted(found.items()))


def _pairs(predictions: Predictions) -> Iterator[tuple[list[str], list[str]]]:
    for one, other in zip(predictions.reference, predictions.predicted, strict=True):
        yield one.split(" "), other.split(" ")


def _strict(predictions: Predictions) -> "dict[str, EvaluationResult]":
    """What nervaluate counts where type and both ends must be right: under "" of all entities, else by type."""
    from nervaluate.entities import Entity as Span
    from nervaluate.entities import EvaluationResult
    from nervaluate.strategies import StrictEvaluation

    def spans(tags: Sequence[str]) -> list[Span]:
        # Its ends are words of the entity: with others neighbours would count as overlapping.
        return [Span(one.type, one.start, one.end - 1) for one in entities(tags)]

    strict, total = StrictEvaluation(), {"": EvaluationResult()}
    for one, other in _pairs(predictions):
        held, given = spans(one), spans(other)
        for name in ("", *sorted({span.label for span in (*held, *given)})):
            chosen = [[span for span in part if name in ("", span.label)] for part in (held, given)]
            found, _ = strict.evaluate(*chosen, tags=[])
            summed = total.setdefault(name, EvaluationResult())
            for part in ("correct", "incorrect", "missed", "spurious"):
                setattr(summed, part, getattr(summed, part) + getattr(found, part))
    for summed in total.values():
        summed.compute_metrics()
    return total


def _counts(predictions: Predictions) -> "Sequence[np.ndarray]":
    """Of each row: entities that were found, those that it has, those that were given, (rows,) each."""
    import numpy as np

    pairs = [(set(entities(one)), set(entities(other))) for one, other in _pairs(predictions)]
    return [*np.array([[len(held & given), len(held), len(given)] for held, given in pairs]).reshape(-1, 3).T]


def _words(predictions: Predictions) -> "Sequence[np.ndarray]":
    """Of each row: words whose tag is right, and words, (rows,) each."""
    import numpy as np

    rows = [(sum(map(str.__eq__, one, other)), len(one)) for one, other in _pairs(predictions)]
    return [*np.array(rows).reshape(-1, 2).T]


def _accuracy(predictions: Predictions) -> float:
    from sklearn.metrics import accuracy_score

    one, other = ([tag for tags in part for tag in tags] for part in zip(*_pairs(predictions), strict=True))
    return float(accuracy_score(one, other))
