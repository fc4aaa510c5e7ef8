"""What a metric is, and what it is computed from. Cheap to import: libraries load where they compute."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np

# The column of predictions that counts each reference's tokens: of a row, whichever model answered.
TOKENS = "tokens"
# Row numbers, (rows,), some of them more than once, or a slice → the value over these rows.
OfRows = Callable[["np.ndarray | slice"], float]
_ALL = slice(None)


@dataclass(frozen=True)
class Predictions:
    """One model's predictions for the test rows, as metrics read them.

    Attributes:
        reference: the right answers, (rows,): labels, scores or texts.
        predicted: the model's, (rows,).
        columns: what evaluation keeps of each row, without the model's prefix: `exact`, `error`, `nll`, `hits`,
            `probability`, and metrics that are kept themselves (`rouge_l`, a project's own). Likelihoods may lack the
            rows that tokenization left out.
        tokens: number of each reference's tokens, as long as `columns["nll"]`.
        positive: the second of two labels; empty where there are not two.
    """

    reference: Any
    predicted: Any
    columns: Mapping[str, Any] = field(default_factory=dict)
    tokens: Any = None
    positive: str = ""

    def __len__(self) -> int:
        return len(self.reference)

    def take(self, rows: "np.ndarray | slice") -> "Predictions":
        """The predictions for some rows; columns of fewer rows are left out.

        Args:
            rows: their numbers, (taken,), some of them more than once.
        """
        columns = {name: values[rows] for name, values in self.columns.items() if len(values) == len(self)}
        tokens = self.tokens[rows] if self.tokens is not None and len(self.tokens) == len(self) else None
        return Predictions(self.reference[rows], self.predicted[rows], columns, tokens, self.positive)


@dataclass(frozen=True)
class Metric:
    """Everything that is known of a metric; parameters, evaluation, gates, comparisons, views and cards read it here.

    It is computed in one or several of three ways. Models are compared row by row where rows have values, else by a
    bootstrap of the statistic.

    Attributes:
        name: its key in metrics.json, and what `gates.metric` calls it.
        kinds: kinds of task that have it.
        row_values: a value for each row, (rows,); their mean is the metric unless one of the following is given.
        statistic: the value over all rows, by a library where one has it.
        resampled: the same value over any rows, quickly: a bootstrap wants it 10,000 times, and libraries take
            milliseconds each. Without it the statistic is computed of the rows taken. See `of_counts`, `of_confusion`.
        columns: columns of predictions that row values are computed from, without the model's prefix; a column of the
            metric's own name comes before them.
        stored: whether evaluation keeps row values in predictions as a column of the metric's name, since they cannot
            be computed from other columns later.
        own_units: whether each of two models that are compared counts by its own `tokens`; else both count by those of
            the model that is judged.
        interval: how its 95 % interval comes about: `wilson` (a share of right rows), `fisher` (a correlation),
            `bootstrap` (anything), or none.
        bounds: the range of its values.
        higher_is_better: its direction.
        decides: whether `gates.metric` may name it.
        no_floor: why the default floor says nothing about it, as a sentence; empty where it does.
        unit: behind differences in a verdict; empty for a share.
        label: what it is called in tables; the name with spaces if left out.
        long_label: over slices and in figures; the label if left out.
        title: its proper name, such as ROUGE-L; the label if left out.
        note: what its name leaves open, for the description of `gates.metric`.
        beside: another metric that the line of an evaluation gives beside it.
        left_out: why it says nothing about some predictions; an empty reason is not worth a word, None: it does.
        signature: what makes its values comparable, as its library says it.
    """

    name: str
    kinds: tuple[str, ...]
    row_values: Callable[[Predictions], Any] | None = None
    statistic: Callable[[Predictions], float] | None = None
    resampled: Callable[[Predictions], OfRows] | None = None
    columns: tuple[str, ...] = ()
    stored: bool = False
    own_units: bool = True
    interval: Literal["", "wilson", "fisher", "bootstrap"] = ""
    bounds: tuple[float, float] = (0.0, 1.0)
    higher_is_better: bool = True
    decides: bool = True
    no_floor: str = ""
    unit: str = ""
    label: str = ""
    long_label: str = ""
    title: str = ""
    note: str = ""
    beside: str = ""
    left_out: Callable[[Predictions], str | None] | None = None
    signature: Callable[[Predictions], str] | None = None

    def __post_init__(self) -> None:
        if self.row_values is None and self.statistic is None and self.resampled is None:
            raise ValueError(f"metric {self.name}: nothing says how it is computed")
        if self.interval == "wilson" and not self.is_mean:
            raise ValueError(f"metric {self.name}: Wilson's interval is one of a share of rows")
        object.__setattr__(self, "label", self.label or self.name.replace("_", " "))
        object.__setattr__(self, "long_label", self.long_label or self.label)
        object.__setattr__(self, "title", self.title or self.label)

    @property
    def is_mean(self) -> bool:
        """Whether it is the mean of its row values."""
        return self.row_values is not None and self.statistic is None and self.resampled is None

    @property
    def ends(self) -> tuple[str, ...]:
        """Keys of its interval's ends beside its own; none without an interval."""
        return (f"{self.name}_low", f"{self.name}_high") if self.interval else ()

    def value(self, predictions: Predictions) -> float:
        """The metric of some predictions."""
        import numpy as np

        if self.statistic is not None:
            return float(self.statistic(predictions))
        if self.resampled is not None:
            return float(self.resampled(predictions)(_ALL))
        return float(np.mean(self.of_each_row(predictions)))

    def of_each_row(self, predictions: Predictions) -> "np.ndarray":
        """Its row values, (rows,); those that were kept are taken as they are.

        Raises:
            ValueError: where rows have none.
        """
        import numpy as np

        if self.name in predictions.columns:
            return np.asarray(predictions.columns[self.name])
        if self.row_values is None:
            raise ValueError(f"metric {self.name}: single rows have no value of it")
        return np.asarray(self.row_values(predictions))

    def of_rows(self, predictions: Predictions) -> OfRows:
        """The metric of some predictions as a function of row numbers: what a bootstrap asks for."""
        if self.resampled is not None:
            return self.resampled(predictions)
        return lambda rows: self.value(predictions.take(rows))

    def is_better(self, one: float, other: float) -> bool:
        """Whether one value is better than another."""
        return one > other if self.higher_is_better else one < other


def of_counts(
    counts: Callable[[Predictions], Sequence[Any]], statistic: Callable[..., float]
) -> Callable[[Predictions], OfRows]:
    """`resampled` of a statistic of counts that add up over rows, such as F1 of hits, misses and false alarms.

    Args:
        counts: predictions → one or more counts of each row, (rows,) each.
        statistic: the sums of these counts → the value.
    """

    def resampled(predictions: Predictions) -> OfRows:
        found = counts(predictions)
        return lambda rows: float(statistic(*(values[rows].sum() for values in found)))

    return resampled


def of_confusion(statistic: Callable[["np.ndarray"], float]) -> Callable[[Predictions], OfRows]:
    """`resampled` of a statistic of the confusion matrix: fp64, (labels, labels), references down, predicted across.

    Args:
        statistic: the matrix → the value. Labels are those of all rows, so that resampled rows may lack some of them.
    """

    def resampled(predictions: Predictions) -> OfRows:
        _, table = confusion(predictions)
        return lambda rows: float(statistic(table(rows)))

    return resampled


def confusion(predictions: Predictions) -> tuple[list[str], Callable[["np.ndarray | slice"], "np.ndarray"]]:
    """The labels in order, and their confusion matrix as a function of row numbers, see `of_confusion`."""
    import numpy as np

    labels = sorted({*predictions.reference, *predictions.predicted})
    number, size = {label: index for index, label in enumerate(labels)}, len(labels)
    pairs = zip(predictions.reference, predictions.predicted, strict=True)
    cells = np.array([number[one] * size + number[other] for one, other in pairs])

    def table(rows: "np.ndarray | slice") -> "np.ndarray":
        return np.bincount(cells[rows], minlength=size * size).reshape(size, size).astype(np.float64)

    return labels, table


def own_metric(name: str, kind: str) -> Metric:
    """A project's own metric, a function of `evaluate.metrics`: the mean of what it gives for each row."""
    return Metric(
        name,
        (kind,),
        row_values=lambda predictions: predictions.columns[name],
        stored=True,
        interval="bootstrap",
        bounds=(-math.inf, math.inf),
    )
