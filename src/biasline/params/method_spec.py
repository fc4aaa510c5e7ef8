"""What everybody knows of a method of tuning without loading torch: its parameters, its artifact, its words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, cast

from biasline.layout import DELTA_FILE
from biasline.params.group import Group, GroupT

if TYPE_CHECKING:
    from biasline.params.task import Train

# The learning rates in `train`: of what is tuned, and of a new head.
LEARNING_RATES = ("learning_rate", "head_learning_rate")


# What `trainable` in train.json counts beside what a method tunes: scales, which are no biases, and a new head.
SCALES = ("norm_scale", "scale")
_BESIDE = (*SCALES, "head")


def tuned_count(counts: Mapping[str, float]) -> int:
    """Entries that a method tunes, without scales and a new head: what the trained share is of.

    Args:
        counts: what is trained → number of entries; `total` and `share` may be among them.
    """
    return int(sum(count for name, count in counts.items() if name not in (*_BESIDE, "total", "share")))


def scale_count(counts: Mapping[str, float]) -> int:
    """Entries of scales; arguments as `tuned_count`."""
    return int(sum(counts.get(name, 0) for name in SCALES))


class NoParameters(Group):
    """Of a method that has no parameters of its own."""


@dataclass(frozen=True, kw_only=True)
class MethodSpec(Generic[GroupT]):
    """One method, as parameters, cards, comparisons and the registry know it; how it trains is in `training.methods`.

    Attributes:
        name: the value of `train.method`, and the name of its module here and in `training.methods`.
        order: its place where methods are listed, the lowest first.
        trains: what it trains, as the description of `train.method` says it.
        parameters: the group of its own parameters, `train.<name>` in params.yaml.
        flat: its parameters are keys of `train` itself (those of biases are, since before there were other methods).
        learning_rates: those of `LEARNING_RATES` that it uses; the first is the one that a comparison shows.
        needs_head: it trains nothing but a head, so that a task without one cannot take it.
        artifact: name of the file or folder, below the task's `model/`, that it writes.
        registrable: its models may be registered and promoted; else they are there to be compared with.
        libraries: distributions whose versions decide what it trains, beside torch and transformers.
        freezes_base: every weight of the base stays as it is.
        card_title: how its model card begins; the base's name follows.
        card_training: what it trained, as its model card says it, from its parameters and the number of trained
            entries per role in words.
        tuned_part: what of the base it tunes, in a word or two: part of a run's name, and a column of the runs' table.
            `all` or its own name where there is nothing to choose.
        run_params: further parameters that its runs are compared by, under names that no other method has.
    """

    name: str
    order: int
    trains: str
    parameters: type[GroupT]
    flat: bool = False
    learning_rates: tuple[str, ...] = LEARNING_RATES
    needs_head: bool = False
    artifact: str
    registrable: bool
    libraries: tuple[str, ...] = ()
    freezes_base: bool
    card_title: str
    card_training: Callable[[GroupT, str], str]
    tuned_part: Callable[[GroupT], str]
    run_params: Callable[[GroupT], Mapping[str, Any]]

    def __post_init__(self) -> None:
        if self.registrable and not self.makes_delta:
            raise ValueError(f"method {self.name}: only a delta can be registered, and its artifact is {self.artifact}")
        if not self.learning_rates or not set(self.learning_rates) <= set(LEARNING_RATES):
            raise ValueError(f"method {self.name}: its learning rates must be some of {', '.join(LEARNING_RATES)}")

    @property
    def makes_delta(self) -> bool:
        """Whether its artifact is a delta, which any base of the same pin takes and gives back."""
        return self.artifact == DELTA_FILE

    @property
    def parameter_names(self) -> set[str]:
        """Keys of `train` that are its own."""
        names = set(self.parameters.model_fields)
        return names if self.flat or not names else {self.name}

    def settings(self, train: "Train") -> GroupT:
        """Its own parameters out of all parameters of training."""
        if self.flat:
            return cast("GroupT", train)
        return cast("GroupT", getattr(train, self.name)) if self.parameter_names else self.parameters()
