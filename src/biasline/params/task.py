"""params.yaml as frozen typed models: the one place of every default, its meaning and its limits.

A task in params.yaml needs two lines, `base` and `data`; all else has a default here. Unknown keys are refused
with the nearest known name, because a misspelled learning rate that is silently ignored costs a day.
"""

import datetime
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    create_model,
    field_validator,
    model_validator,
)

from biasline.glue import GLUE
from biasline.kinds.answering import find_answering
from biasline.kinds.learning import LEARNINGS, find_learning
from biasline.kinds.protocols import Learning
from biasline.metrics.metric import Metric, own_metric
from biasline.metrics.table import deciding, described, find_metric, is_metric, main_metric
from biasline.metrics.texts import LOG_LIKELIHOOD
from biasline.params.group import Group, Share
from biasline.params.method_spec import LEARNING_RATES, MethodSpec
from biasline.params.methods import DEFAULT_METHOD, METHOD_SPECS, method_spec
from biasline.params.methods.bitfit import BiasParameters
from biasline.params.tenants import Tenants

# Own code and templates lie there, so that DVC sees a change in them.
CUSTOM = Path("custom")
TEMPLATES, JINJA = ("human-assistant", "alpaca", "chat"), ".jinja"
TASK_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")

# Which records of the data are used: an SQL expression over their columns, or values of columns.
Where = str | dict[str, str | tuple[str, ...]]


def source_of_kinds(learnings: Iterable[Learning]) -> type[Group]:
    """A model of the parameters that kinds of tasks add to `source`: none of most of them."""
    fields = {name: field for one in learnings for name, field in one.parameters.items()}
    return create_model("SourceOfKinds", __base__=Group, **cast("dict[str, Any]", fields))


if TYPE_CHECKING:

    class SourceOfKinds(Group):
        """Parameters that one kind alone reads, which knows their types."""
else:
    SourceOfKinds = source_of_kinds(LEARNINGS.values())


# The last of these comes first in a file that is written.
class Source(SourceOfKinds):
    """How the file's records become rows: which of them, and which of their columns are what."""

    preset: Literal["", "sst2", "cola", "rte", "mrpc", "stsb", "qnli", "qqp", "mnli"] = Field(
        "", description="a task of GLUE by its name: its columns, labels and metric"
    )
    columns: dict[str, str] = Field(
        {},
        description="our column name: the file's (without a header its place, from 1; inside of nested values a path: "
        "prompt.text, output.0, replies.*.text), where the guess fails",
    )
    where: Where = Field(
        "",
        description="which records are used: `column: value` (or a list of values), or an SQL expression over columns, "
        "as \"language = 'en' and score >= 4\"; the others are left out and counted; empty: all",
    )
    answers: Literal["", "first", "longest", "each"] = Field(
        "", description="where a record has a list of answers: its first, its longest, or a row for each"
    )
    prefer: Literal["", "chosen", "all"] = Field(
        "",
        description="preference data: train on what was preferred (chosen), the rest is left out and counted; all: the "
        "column that looks like a judgement of answers is none",
    )
    harvested: bool = Field(
        True, description="whether files of rows that `biasline harvest` made (harvested-….jsonl) are used"
    )
    header: Literal["auto", "present", "absent"] = Field(
        "auto",
        description="whether a CSV or TSV file names its columns; auto: by known names and by the cells below them",
    )
    labels: tuple[str, ...] = Field(
        (), description="label names in the order of their numbers; empty: those of the training rows, sorted"
    )

    @field_validator("where", mode="before")
    @classmethod
    def _compares_texts(cls, value: Any) -> Any:
        """Values as the texts that columns have: YAML reads numbers, truth values and dates."""

        def text(item: Any) -> str:
            if isinstance(item, Mapping | list | tuple):
                raise ValueError("`column: value`, `column: [value, …]` or an SQL expression was expected")
            return "" if item is None else str(item).lower() if isinstance(item, bool) else str(item)

        if isinstance(value, Mapping):
            return {
                text(name): tuple(map(text, item)) if isinstance(item, list | tuple) else text(item)
                for name, item in value.items()
            }
        return text(value).strip()

    @model_validator(mode="before")
    @classmethod
    def _preset_names_labels(cls, values: Any) -> Any:
        if isinstance(values, Mapping) and isinstance(values.get("preset"), str) and values["preset"] in GLUE:
            return {**values, "labels": values.get("labels") or GLUE[values["preset"]].labels}
        return values


class Quality(Group):
    """Thresholds of the contract: rows that break a rule go to quarantine."""

    min_output_chars: int = Field(1, ge=1, description="shorter outputs are quarantined")
    max_output_chars: int = Field(4000, ge=1, description="longer outputs are quarantined")
    max_prompt_chars: int = Field(8000, ge=1, description="longer instruction + input is quarantined")
    language: Literal["", "zh"] = Field("", description="zh: rows that were left untranslated are quarantined")
    near_duplicate: float = Field(
        0.8, gt=0.0, le=1.0, description="share of common word triples from which long rows count as nearly the same"
    )
    off: tuple[str, ...] = Field((), description="names of quality rules that are switched off")
    on: tuple[str, ...] = Field((), description="names of rules that are off by default: email, phone")
    checks: str = Field("", description="a Python file in custom/ whose functions are further rules")
    hard: dict[str, Share] = Field(
        {"not_text": 0.05, "mojibake": 0.05, "control_characters": 0.05},
        description="rule: share of rows that may break it; more stop the run",
    )
    max_quarantine: float = Field(0.2, ge=0.0, le=1.0, description="a larger share of quarantined rows stops the run")


class Split(Group):
    """Shares by content hash. In a folder with files called train, valid and test the files decide instead."""

    valid: Share = Field(0.1, description="share of rows for validation, by content hash")
    test: float = Field(0.1, gt=0.0, lt=1.0, description="share of rows for the test, by content hash")
    group: str = Field("", description="a column whose equal values stay in one split: a customer, a document")
    seed: int = Field(0, description="another seed deals the rows anew; keep it, or results do not compare")

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> "Split":
        if self.valid + self.test >= 1:
            raise ValueError(f"valid + test must stay below 1, got {self.valid + self.test:g}")
        return self


class Augment(Group):
    """Further training rows made out of the training rows; none by default."""

    eda: int = Field(0, ge=0, le=16, description="changed copies of each training row (easy data augmentation)")
    share: float = Field(0.1, gt=0.0, lt=1.0, description="share of a row's words that a copy changes, one at least")
    operations: tuple[Literal["swap", "delete", "replace", "insert"], ...] = Field(
        (), description="what is done to words; empty: swap and delete, and with synonyms replace and insert"
    )
    synonyms: str = Field("", description="a text file in custom/: words that may stand for one another in one line")
    translate: tuple[str, ...] = Field(
        (), description="pins in custom/ of two translating models, there and back: one more copy of each training row"
    )
    columns: tuple[str, ...] = Field(
        (), description="which texts are changed; empty: the instruction, or the texts that have a label or score"
    )
    seed: int = Field(0, description="another seed changes other words")

    @model_validator(mode="after")
    def _translates_there_and_back(self) -> "Augment":
        if len(self.translate) not in (0, 2):
            raise ValueError(f"translate takes two pins, there and back, got {len(self.translate)}")
        return self


class Load(Group):
    """How the base's files are read."""

    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="dtype of the frozen base; biases are always trained and stored in float32"
    )
    quantize: Literal["", "8bit", "4bit"] = Field(
        "",
        description="the frozen base's weights in so few bits (NF4 if 4bit; bitsandbytes has to be installed), where "
        "they would not fit otherwise; biases are trained in float32 all the same",
    )
    allow_bin: bool = Field(
        False, description="read a pickled .bin base (weights_only=True) where no safetensors exist"
    )
    trust_remote_code: bool = Field(False, description="run Python code that comes with the base")


class Tokens(Group):
    """How rows become tokens."""

    template: str = Field(
        "human-assistant",
        min_length=1,
        description="human-assistant, alpaca, chat (the tokenizer's own), or a chat template in custom/ (.jinja)",
    )
    max_length: int = Field(
        256,
        ge=8,
        description="tokens of prompt + response + EOS; a longer dialogue loses its oldest exchanges, then a part of "
        "its last question",
    )
    shorten: Literal["middle", "start"] = Field(
        "middle", description="where a question that is too long loses a part; the system prompt and answers stay whole"
    )
    date: str = Field(
        "2025-01-01",
        description="the day that a template is told which writes today's date: tokens must not depend on the day",
    )
    long_response: Literal["reject", "truncate"] = Field(
        "reject", description="a response beyond max_length: leave the row out and count it, or cut it (EOS kept)"
    )

    @field_validator("date", mode="before")
    @classmethod
    def _is_a_day(cls, value: Any) -> Any:
        """YAML reads an unquoted day as one; JSON knows none."""
        if isinstance(value, datetime.date):
            return value.isoformat()
        try:
            return datetime.date.fromisoformat(value).isoformat()
        except (TypeError, ValueError):
            raise ValueError("a day as 2025-01-31 was expected") from None

    @model_validator(mode="after")
    def _knows_its_template(self) -> "Tokens":
        name = self.template
        if name not in TEMPLATES and not name.endswith(JINJA) and "{" not in name:
            raise ValueError(f"template {name!r} is none of {', '.join(TEMPLATES)}, and no {JINJA} file")
        return self

    @property
    def template_name(self) -> str:
        """The template's name; a file's text, which a resolved task holds, is `custom`."""
        return self.template if self.template in TEMPLATES else CUSTOM.name


def _one_of(names: Collection[str]) -> AfterValidator:
    def known(name: str) -> str:
        if name not in names:
            *first, last = (repr(one) for one in names)
            raise ValueError(f"Input should be {', '.join(first)} or {last}")
        return name

    return AfterValidator(known)


def _trained_by(specs: Iterable[MethodSpec[Any]]) -> str:
    first, *others = (spec.trains for spec in specs)
    return f"what is trained: {first}; or, to compare, {', '.join(others)}"


class _Method(Group):
    method: Annotated[str, _one_of(METHOD_SPECS)] = Field(
        DEFAULT_METHOD, description=_trained_by(METHOD_SPECS.values())
    )


class _Head(Group):
    head: Literal["auto", "train", "new"] = Field(
        "auto",
        description="a head that the base has: is as its other weights (auto: frozen, unless all are tuned), trained "
        "whole (train) or replaced (new)",
    )
    head_start: Literal["fitted", "random"] = Field(
        "fitted",
        description="a new head's first values: fitted to the training rows on the frozen base, the penalty on its "
        "weights by the validation rows (labels with a tenth of the outputs, where more is trained); or random",
    )
    calibrate: bool = Field(
        True,
        description="of a classification: once trained, a new head's outputs are divided by one number, chosen on the "
        "validation rows, so that it is as sure as it is right; labels stay the same",
    )
    pooling: Literal["auto", "model", "mean"] = Field(
        "auto",
        description="what a new head reads: the model's own pooler, or the mean over a text's tokens; auto: the mean "
        "where the base's files have no pooler, or say that it was trained so",
    )


def method_groups(specs: Iterable[MethodSpec[Any]]) -> type[Group]:
    """A model with a field per method that has a group of parameters: `train.<name>`."""
    groups: dict[str, Any] = {
        spec.name: (spec.parameters, spec.parameters()) for spec in specs if spec.parameter_names and not spec.flat
    }
    return create_model("MethodGroups", __base__=Group, **groups)


if TYPE_CHECKING:

    class MethodGroups(Group):
        """A method's parameters are read by `MethodSpec.settings`, which knows their type."""
else:
    MethodGroups = method_groups(METHOD_SPECS.values())


# The last of these comes first in a file that is written.
class Train(MethodGroups, _Head, BiasParameters, _Method):
    """What is trained, and how."""

    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: each label has the same weight in the loss, however many rows it has"
    )
    learning_rate: float | None = Field(
        None, gt=0, le=100, description="peak; empty: by method and by the base's width (biases want the most)"
    )
    epochs: float | None = Field(
        None,
        gt=0,
        description="passes over the training rows; empty: 12, or as many as 2,250 steps take, but 3 at least",
    )
    min_steps: int = Field(400, ge=1, description="at least so many steps: a few epochs of few rows under-train biases")
    batch_size: int = Field(32, ge=1, description="rows per optimizer step, over all ranks and accumulation")
    micro_batch_tokens: int = Field(
        0,
        ge=0,
        description="tokens per forward pass, padding included; lower it when memory runs out; 0: 512 on a CPU, 16,384 "
        "on an accelerator",
    )
    warmup: Share = Field(0.06, description="share of the steps in which the rate climbs to its peak")
    head_learning_rate: float | None = Field(
        None,
        gt=0,
        le=100,
        description="peak for a new head (of a classification or regression), trained whole; empty: likewise",
    )
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="the rate after warm-up")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    evaluate_every: int = Field(100, ge=1, description="steps between looks at the validation rows")
    patience: int = Field(
        0,
        ge=0,
        description="looks at the validation rows without a better one that end training (from min_steps on); 0: none",
    )
    keep: Literal["best", "last"] = Field(
        "best",
        description="what is kept: the last step, or the best on the validation rows: by loss; of labels the last step "
        "that is not clearly less accurate than the most accurate one",
    )
    seed: int = Field(0, ge=0, lt=2**32, description="order of the rows, first values of a head or adapter, dropout")
    threads: int = Field(2, ge=1, description="CPU threads; part of the result, since sums round differently")

    @property
    def unused(self) -> set[str]:
        """Names of the parameters that this method does not look at."""
        spec = method_spec(self.method)
        others = [other.parameter_names for other in METHOD_SPECS.values() if other.name != spec.name]
        return (set(LEARNING_RATES) - set(spec.learning_rates)).union(*others)

    def numbers(self) -> dict[str, Any]:
        """The parameters that decide what is trained, by name: neither the unused ones nor those that only refuse."""
        return self.model_dump(exclude={*self.unused, "target"})


class ResolvedTrain(Train):
    """The parameters of a training that is about to begin: no rate is left open."""

    learning_rate: float = Field(gt=0, le=100, description="peak for what the method trains")
    head_learning_rate: float = Field(gt=0, le=100, description="peak for a new head")


class Run(Group):
    """How a training is run.

    What comes out differs by rounding, and in several processes by what dropout draws: nothing is trained again for it.
    """

    processes: int = Field(1, ge=1, description="processes that share each step's rows, over all machines")
    launch: Annotated[str, StringConstraints(strip_whitespace=True)] = Field(
        "",
        description="what starts them, up to the script: accelerate launch --config_file …; empty: they are started on "
        "this machine",
    )
    shard: bool = Field(False, description="spread the frozen base over the processes (FSDP): one larger than a card")
    compile: bool = Field(False, description="torch.compile for the base's layers: slower to begin")
    recompute: bool = Field(
        False,
        description="keep no activations inside of layers and compute them again: less memory, up to half more time",
    )
    tenants_at_once: int = Field(
        0,
        ge=0,
        description="tenants of a fleet that are trained side by side; 0: one on a CPU, so that nobody's delta depends "
        "on who is trained with it, 64 on an accelerator",
    )
    checkpoint_every: float = Field(
        30.0, ge=0, description="seconds between checkpoints, from which a crash resumes; 0: one after each step"
    )
    reuse: bool = Field(
        True,
        description="a training or evaluation that was done before (equal fingerprint): copy its outs from its record",
    )


class Evaluate(Group):
    """How answers are made and scored."""

    max_new_tokens: int = Field(64, ge=1, description="longest generated answer, in tokens")
    temperature: float = Field(
        0.0,
        ge=0.0,
        le=10.0,
        description="0: the likeliest token each time (greedy); from 0.001: drawn, the wilder the higher",
    )
    top_p: float = Field(1.0, gt=0.0, le=1.0, description="drawn among the likeliest tokens that make up this share")
    seed: int = Field(0, ge=0, lt=2**63, description="of drawing answers")
    batch_size: int = Field(64, ge=1, description="rows generated at once")
    examples: int = Field(
        0,
        ge=0,
        le=64,
        description="training rows that the untuned base is shown before each question, as one would who does not "
        "train; the tuned model must be better than that too (texts that models write); 0: none",
    )
    metrics: str = Field("", description="a Python file in custom/ whose functions score answers (instruction tasks)")
    slices: tuple[str, ...] = Field((), description="columns whose values are scored apart")
    samples: int = Field(20, ge=0, description="test rows shown in samples.md")

    @field_validator("temperature")
    @classmethod
    def _can_be_divided_by(cls, value: float) -> float:
        """Scores divided by almost nothing are infinite, and nothing can be drawn by them."""
        if 0 < value < 0.001:
            raise ValueError("0, or from 0.001 to 10")
        return value


# What a task is unless it says so: the first kind.
DEFAULT_KIND = next(iter(LEARNINGS))
# A floor that nobody chose.
FLOOR = 0.5


class Gates(Group):
    """What a candidate must show before `biasline promote` makes it champion."""

    metric: str = Field(
        "auto",
        min_length=1,
        description="the metric that decides, or one of evaluate.metrics; auto: the first of its kind or the preset's, "
        f"of open answers {LOG_LIKELIHOOD}. {described()}",
    )
    floor: float = Field(
        FLOOR,
        description="the tuned model must reach this (where lower is better: must not exceed it); of a log-likelihood, "
        "which has no natural floor, only a negative one counts",
    )
    better_than_base: bool = Field(
        True,
        description="the paired 95 % interval of tuned - base must lie above zero; and, where the model has a head, "
        "that of tuned - head alone above -head_margin; of answers, that of tuned - base with evaluate.examples",
    )
    head_margin: float = Field(
        0.0,
        ge=0,
        description="how much worse than a head alone on the frozen base (or the base with evaluate.examples) the "
        "model may be, in the metric's unit: a margin where that is nearly perfect, or the test rows are few",
    )
    margin: float = Field(
        0.03,
        ge=0,
        description="how much worse it may be than the champion, and than the best champion so far, in the metric's "
        "unit: the paired 95 % interval of the difference must lie above -margin",
    )
    slice_drop: float = Field(
        0.1,
        ge=0,
        description="no slice may be shown (at 95 % over all slices) to have fallen below the champion's by more than "
        "this",
    )
    tenants_worse: Share = Field(
        0.05,
        description="of a fleet, the share of tenants that may be shown to be worse off than with the champion (at a "
        "false discovery rate of 10 %)",
    )
    carry_over: bool = Field(
        True,
        description="of a fleet, whether tenants that are shown to be worse off keep the champion's delta in the "
        "version that is promoted",
    )
    max_bytes: int = Field(100_000_000, ge=1, description="largest delta, in bytes; of a fleet their mean")
    max_latency: float = Field(2.0, gt=0, description="longest time of one row, as a multiple of the untuned base's")
    max_quarantine: float = Field(0.2, ge=0, le=1, description="largest share of the raw rows that broke the contract")
    uncommitted: Literal["allow", "warn", "deny"] = Field(
        "warn",
        description="code or parameters (src, stages, dvc.yaml, params.yaml) that are in no commit, when the model was "
        "made or when it is judged",
    )
    shadow_agreement: Share = Field(
        0.0,
        description="the share of users' rows to which it must say the same as the champion, where a server asked both "
        "(`--shadow`): the lower end of the 95 % interval must reach it; 0: not asked for",
    )
    traffic: str = Field("", description="the folder where that server keeps what it answered (`--traffic`)")
    require_signature: str = Field(
        "",
        description="a public key, PEM, that the candidate must be signed by (`biasline sign`), as a path from the "
        "project's folder; empty: not asked for",
    )
    own: str = Field("", description="a Python file in custom/ whose functions are further gates")

    @model_validator(mode="after")
    def _agreement_is_read_somewhere(self) -> "Gates":
        if self.shadow_agreement and not self.traffic:
            raise ValueError("shadow_agreement wants gates.traffic: the folder that `biasline serve --traffic` fills")
        return self


class Task(Group):
    """One data set on one base."""

    kind: Annotated[str, _one_of(LEARNINGS)] = Field(
        DEFAULT_KIND, description="; ".join(f"{one.name}: {one.told}" for one in LEARNINGS.values())
    )
    base: str = Field(min_length=1, description="the base's pin, written by `biasline pin`")
    data: str = Field(min_length=1, description="the raw data file")
    source: Source = Source()
    tenants: Tenants = Tenants()
    quality: Quality = Quality()
    split: Split = Split()
    augment: Augment = Augment()
    load: Load = Load()
    tokens: Tokens = Tokens()
    train: Train = Train()
    run: Run = Run()
    evaluate: Evaluate = Evaluate()
    gates: Gates = Gates()

    def of_one(self) -> "Task":
        """The same task without tenants: the shared delta serves all."""
        return self.model_copy(update={"tenants": Tenants()})

    @model_validator(mode="after")
    def _fits_its_kind(self) -> "Task":
        learning = find_learning(self.kind)
        preset = GLUE.get(self.source.preset)
        if preset is not None and preset.kind != self.kind:
            raise ValueError(f"source.preset {self.source.preset} is a {preset.kind}: say so (kind: {preset.kind})")
        if self.train.class_weights != "none" and not learning.class_weights:
            raise ValueError(
                f"train.class_weights {self.train.class_weights}: no loss of this kind weighs labels ({self.kind})"
            )
        if method_spec(self.train.method).needs_head and not learning.headed:
            raise ValueError(f"train.method {self.train.method}: a task of kind {self.kind} has no head of its own")
        if self.evaluate.metrics and not find_answering(self.kind).own_metrics:
            raise ValueError(f"evaluate.metrics {self.evaluate.metrics}: there are no answers to score ({self.kind})")
        if self.evaluate.examples and not find_answering(self.kind).takes_examples:
            raise ValueError(f"evaluate.examples {self.evaluate.examples}: the base writes no answers ({self.kind})")
        if self.load.quantize and (self.run.shard or not method_spec(self.train.method).freezes_base):
            other = "run.shard" if self.run.shard else f"train.method {self.train.method}"
            raise ValueError(f"load.quantize {self.load.quantize}: {other} needs weights that are not quantized")
        if self.tenants.many and not method_spec(self.train.method).makes_delta:
            raise ValueError(f"tenants.column {self.tenants.column}: method {self.train.method} trains no delta")
        if self.train.target not in ("", "transformers") and learning.headed:
            raise ValueError(
                f"train.target {self.train.target}: its models write texts, this task is of kind {self.kind}"
            )
        if self.tenants.many and self.run.shard:
            raise ValueError(
                f"tenants.column {self.tenants.column}: run.shard: a fleet's base is whole in each process"
            )
        self._check_floor()
        # A file's own names are known when it is read, by evaluation.
        known = ("auto", *deciding(self.kind))
        if self.gates.metric not in known and not self.evaluate.metrics:
            raise ValueError(f"gates.metric {self.gates.metric!r} is none of a {self.kind}: {', '.join(known)}")
        return self

    def _check_floor(self) -> None:
        """Whether the metric that decides can reach the floor; a project's own may have any value."""
        name, floor = self.metric, self.gates.floor
        if name not in deciding(self.kind):
            return
        metric = find_metric(self.kind, name)
        low, high = metric.bounds
        if metric.no_floor:
            if floor > high and floor != FLOOR:
                raise ValueError(f"gates.floor: {floor:g} is above {high:g}, and {name} lies below")
        # A correlation below 0 is worse than none, and no floor.
        elif not max(low, 0.0) <= floor <= high:
            span = f"{max(low, 0.0):g} … {high:g}"
            raise ValueError(f"gates.floor: {floor:g} is beyond {span}, which {name} lies in")

    @property
    def metric(self) -> str:
        """The metric that decides, as far as parameters say; answers may call for another, see `decided_by`."""
        if self.gates.metric != "auto":
            return self.gates.metric
        return GLUE[self.source.preset].metric if self.source.preset else main_metric(self.kind).name

    def decided_by(self, metrics: Mapping[str, Any]) -> str:
        """The metric that decides about an evaluated model: what parameters name, else what its evaluation chose.

        Args:
            metrics: its metrics.json; the earliest evaluations name no metric.
        """
        return metrics.get("metric", self.metric) if self.gates.metric == "auto" else self.metric

    def declared(self, name: str, measured: Collection[str] = ()) -> Metric:
        """What is known of a metric: its row of the table, or that it is one of the project's own.

        Args:
            name: the metric's.
            measured: what an evaluation measured, which may be own metrics that parameters know no more.

        Raises:
            BiaslineError: for a name that is neither.
        """
        if not is_metric(self.kind, name) and (self.evaluate.metrics or name in measured):
            return own_metric(name, self.kind)
        return find_metric(self.kind, name)


class Params(Group):
    """params.yaml: its tasks by name."""

    tasks: dict[str, Task]
