"""What a kind of task says of itself, to every room that works on tasks of any kind."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from biasline.kinds.columns import Columns

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from pydantic.fields import FieldInfo

    from biasline.bases.pin import Pin
    from biasline.bases.tokenizer import Tokenizer
    from biasline.bitfit.pretrained import PretrainedModel
    from biasline.data.rules import Rule
    from biasline.evaluation.compared import Compared
    from biasline.layout import TaskPlace
    from biasline.metrics.metric import Metric
    from biasline.params import Load, Task, Train
    from biasline.serving.predictor import Predictor
    from biasline.tokens.encoding import Encoding
    from biasline.training.loss import Objective

# What an answer has under a name: a type of MLflow's (`string`, `long`, `double`), `map of` one, a list, or an object.
Output = str | list[Any] | dict[str, str]
AutoClass = Literal["AutoModelForCausalLM", "AutoModelForSequenceClassification", "AutoModelForTokenClassification"]


class Kind(ABC):
    """What every room may know of a kind.

    Attributes:
        name: the value of a task's `kind`, and the name of its modules.
        order: its place where kinds are listed, the lowest first.
        told: what it is, as the description of `kind` says it.
        columns: of an example.
        auto_class: the class of Transformers that its models are of.
        headed: whether its models have a head of their own, beside which a method may train nothing; a language model
            has none.
        class_weights: whether its rows have labels that the loss may weigh.
        parameters: its own parameters in the group `source`: name → (type, default with description).
    """

    name: ClassVar[str]
    order: ClassVar[int]
    told: ClassVar[str]
    columns: ClassVar[Columns]
    auto_class: ClassVar[AutoClass] = "AutoModelForSequenceClassification"
    headed: ClassVar[bool] = True
    class_weights: ClassVar[bool] = False
    parameters: ClassVar[Mapping[str, tuple[Any, "FieldInfo"]]] = {}

    def output_names(self, labels: Sequence[str]) -> list[str]:
        """Names of the head's outputs in their order, of which there is one at least.

        Args:
            labels: those that its answers are of; none where it gives no labels.
        """
        return list(labels)


class InData(ABC):
    """What validation and augmentation ask of a kind; and `gathering` and `reading`, see `Columns`."""

    def rules(self) -> "Sequence[Rule]":
        """Rules of its own, beside those that hold for each kind that has the columns they are about."""
        return ()

    def prepared(self, frame: "pl.DataFrame", task: "Task") -> "tuple[pl.DataFrame, list[str]]":
        """The rows before the contract is held against them, and notes on what was changed."""
        return frame, []

    def look(
        self, splits: "Mapping[str, pl.DataFrame]", good: "pl.DataFrame", read: "pl.DataFrame", task: "Task"
    ) -> list[str]:
        """Notes on the answers of clean rows.

        Args:
            splits: the good rows, by split.
            good: the same, in the order of the file.
            read: all rows, as they were read.
            task: its parameters.

        Raises:
            BiaslineError: where nothing could be learned from them.
        """
        return []

    @abstractmethod
    def page_lines(self, good: "pl.DataFrame") -> list[str]:
        """What answers of the good rows are like, as lines of Markdown for quality.md, an empty one at the end."""


class InTokens(ABC):
    """What tokenization asks of a kind."""

    @abstractmethod
    def encoding(self, task: "Task", tokenizer: "Tokenizer", folder: Path, train: "pl.DataFrame") -> "Encoding":
        """How rows become tokens, and what answers are in numbers.

        Args:
            task: its parameters.
            tokenizer: the base's.
            folder: the base's files.
            train: the training rows, augmented ones among them.
        """

    @abstractmethod
    def answers_told(self, summary: Mapping[str, Any]) -> str:
        """What rows are to give, in a few words, from the summary of their tokens."""


class InTraining(ABC):
    """What training asks of a kind."""

    @abstractmethod
    def objective(self, train: "Train", summary: Mapping[str, Any], rows: Any) -> "Objective":
        """What the loss is taken over.

        Args:
            train: parameters of training.
            summary: of the tokens, see `encoding`.
            rows: the training rows in tokens.
        """

    def settled(
        self, model: "PretrainedModel", valid: Any, summary: Mapping[str, Any], train: "Train"
    ) -> tuple[dict[str, str], list[str]]:
        """What is chosen by the validation rows once training is over, to travel with what was trained; and notes.

        Every process is asked, and must come to the same.

        Args:
            model: as it was kept, in eval mode.
            valid: the validation rows in tokens, of which there may be none.
            summary: of the tokens, see `encoding`.
            train: parameters of training.

        Returns:
            names and texts, which evaluation and serving find beside the model.
        """
        return {}, []


class InLoading:
    """What whoever loads a model of a kind asks of it: training, evaluation, serving."""

    def load(
        self, pin: "Pin", folder: Path, load: "Load", train: "Train", labels: Sequence[str]
    ) -> "tuple[PretrainedModel, list[str]]":
        """The base as the class of model that is tuned, frozen, and the names of its head's parameters to be trained.

        Unless a kind says otherwise: with a head that reads a whole text (or two).

        Args:
            pin: of the base.
            folder: the base's files, verified.
            load: how they are read.
            train: seed, head and pooling.
            labels: names in the order of the head's outputs; none where it gives no labels.
        """
        from biasline.bases.load import load_classifier

        return load_classifier(pin, folder, load, labels, train.seed, train.head, pooling=train.pooling)


class Learning(Kind, InData, InTokens, InTraining, InLoading):
    """What is learned: the rows, the tokens that they become, the model and its loss."""


@dataclass(frozen=True)
class Cheaper:
    """What one would do instead of training the base: a tuned model that is no better than that is not worth it.

    Attributes:
        told: in words.
        label: in a word or two, beside a number.
        long_label: beside the base and the tuned model in a table.
        gain: what the tuned model is better by, as metrics.json calls it.
    """

    told: str
    label: str
    long_label: str
    gain: str


class _Answers(ABC):
    """What every room may know of what a kind answers.

    Attributes:
        learning: what is learned.
        metrics: metrics of its own, beside those in `metrics/`; the first of all is the one that it is judged by.
        base_label: what stands beside the tuned model in tables.
        cheaper: what one would do instead of training.
        example: a row that a caller asks, as Python.
        outputs: name → type of what a row is answered by, see `Output`; without names, one text, which stands under
            the kind's column of answers where it needs a name.
        own_metrics: whether a project may score answers by functions of its own.
        takes_examples: whether the untuned base can be shown training rows before a question.
    """

    learning: ClassVar[Learning]
    metrics: ClassVar[Sequence["Metric"]] = ()
    base_label: ClassVar[str]
    cheaper: ClassVar[Cheaper] = Cheaper(
        "a head alone", "head alone", "head alone on the frozen base", "over_head_alone"
    )
    example: ClassVar[str] = '{"text": "…"}'
    outputs: ClassVar[Mapping[str, Output]] = {}
    own_metrics: ClassVar[bool] = False
    takes_examples: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The kind's."""
        return self.learning.name

    @property
    def order(self) -> int:
        """Its place where kinds are listed."""
        return self.learning.order


class InEvaluation(_Answers):
    """What evaluation and gates ask of a kind."""

    def references(self, test: "pl.DataFrame") -> Sequence[str]:
        """The right answers of test rows, where they are texts that say by what metric they can be judged."""
        return ()

    @abstractmethod
    def compare(self, task: "Task", place: "TaskPlace", pin: "Pin", folder: Path, test: "pl.DataFrame") -> "Compared":
        """What the base (or what it is replaced by where it can answer nothing) and the tuned model give to test rows.

        Args:
            task: its parameters.
            place: where its tokens and its model lie.
            pin: of the base.
            folder: the base's files, verified.
            test: the test rows.
        """

    def slices(self, frame: "pl.DataFrame", columns: tuple[str, ...], metric: "Metric") -> "pl.DataFrame":
        """A metric of both models per value of each slice column, see `scoring.slice_table`."""
        from biasline.evaluation.measure import row_metric
        from biasline.evaluation.scoring import slice_table

        kind = self.learning.name
        return slice_table(frame, columns, row_metric(frame, metric, kind), kind)

    def gain(self, frame: "pl.DataFrame", metric: "Metric") -> "tuple[str, np.ndarray, np.ndarray]":
        """What tuning gained row by row: its name in metrics.json, and the values of the tuned model and the base."""
        from biasline.evaluation.measure import measured_rows, paired_values, row_metric

        kind = self.learning.name
        metric = row_metric(frame, metric, kind)
        return metric.name, *paired_values(measured_rows(frame, metric), metric, kind)

    def nearness(self, frame: "pl.DataFrame") -> "tuple[np.ndarray, np.ndarray] | None":
        """Where a metric says nothing about being near: R² of each model as values of rows, else None."""
        return None

    def slice_values(self, frame: "pl.DataFrame", metric: "Metric") -> "tuple[np.ndarray, np.ndarray]":
        """Values of rows by which slices are held against each other, of the tuned model and of the other."""
        from biasline.evaluation.measure import paired_values, row_metric

        kind = self.learning.name
        return paired_values(frame, row_metric(frame, metric, kind), kind)

    def sections(self, predictions: "pl.DataFrame", labels: Sequence[str], settled: Mapping[str, str]) -> list[str]:
        """Further lines of the card: what the answers are like beyond the table of metrics.

        Args:
            predictions: test rows with the answers.
            labels: names in the order of the head's outputs.
            settled: what was chosen once training was over, see `InTraining.settled`.
        """
        return []

    def confusion(self, predictions: "pl.DataFrame") -> "pl.DataFrame | None":
        """Columns `actual` and `predicted` for a plot of what is taken for what; None where that says nothing."""
        return None

    @abstractmethod
    def made(self, task: "Task", labels: Sequence[str]) -> str:
        """How answers were written for training, as a part of the card's sentence."""

    def is_right(self, row: Mapping[str, Any]) -> bool | None:
        """Whether the tuned model's answer to a row of predictions is right; None where there is no right or wrong."""
        return row["tuned_exact"]

    @abstractmethod
    def rescored(
        self, predictor: "Predictor", rows: "pl.DataFrame", given: Sequence[Any], own_metrics: str
    ) -> "pl.DataFrame":
        """Test rows with a model's answers, in the columns that evaluation gives the tuned model.

        Args:
            predictor: the model's.
            rows: the test rows.
            given: its answers to them.
            own_metrics: a file of the project's own metrics, see `OwnScores`.
        """


class InTracking(_Answers):
    """What tracking asks of a kind."""

    def figures(self, predictions: "pl.DataFrame") -> Iterator[tuple[str, Any]]:
        """Names of pictures of the answers to test rows, and the pictures, see `figures.run`."""
        yield from ()


class InServing(_Answers):
    """What serving asks of a kind."""

    def asked(self, rows: "pl.DataFrame") -> list[dict[str, Any]]:
        """Rows as a caller would ask them: what the model is given, and nothing else."""
        return rows.select(name for name in self.learning.columns.given if name in rows.columns).to_dicts()

    @abstractmethod
    def inputs(
        self, predictor: "Predictor", records: Sequence[dict[str, Any]], max_new_tokens: int | None = None
    ) -> list[dict[str, list[int]]]:
        """See `Predictor.inputs`."""

    @abstractmethod
    def answer(self, predictor: "Predictor", records: Sequence[dict[str, Any]], params: Mapping[str, Any]) -> list[Any]:
        """See `Predictor.__call__`; each answer is a dict by the names of `outputs`, or a text."""

    def answer_whole(self, predictor: "Predictor", records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """As `answer`, of a model with a head, with all that it says of a row."""
        return self.answer(predictor, records, {})

    @abstractmethod
    def line(self, answer: Any) -> str:
        """An answer as one line for a terminal."""

    @abstractmethod
    def evaluated(self, predictions: "pl.DataFrame") -> list[Any]:
        """What the packaged model should answer to test rows, as evaluation has it."""

    def is_drawn(self, task: "Task") -> bool:
        """Whether answers are equal only where all rows are asked together."""
        return False


class InExport(_Answers):
    """What an export for stock Transformers asks of a kind."""

    @abstractmethod
    def stock_ids(self, tokenizer: "Tokenizer", row: dict[str, Any], predictor: "Predictor") -> list[int]:
        """Tokens of a row as `stock_usage` words it, by the tokenizer in the merged folder."""

    @abstractmethod
    def stock_usage(self, predictor: "Predictor", tokenizer: "Tokenizer", row: dict[str, Any]) -> list[str]:
        """How to ask a merged folder with plain Transformers, on a test row.

        Lines of Markdown, inside a block of Python that has loaded `tokenizer` and `model`; they end the block.
        """


class Answering(InEvaluation, InTracking, InServing, InExport):
    """What is answered: how models are compared, what they are told to be worth, and what a caller gets."""


def asked_by(*parts: type) -> frozenset[str]:
    """Names of the functions of a kind that some rooms call, for who reads code: see `source_code.import_closure`.

    Args:
        parts: of the classes above that say what rooms ask.
    """
    names = {name for part in parts for name, what in vars(part).items() if callable(what) and name[0] != "_"}
    return frozenset(names | ({"gathering", "reading"} if InData in parts else set()))
