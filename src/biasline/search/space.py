"""What is searched: choices of biases, learning rates around the usual ones, and how long training lasts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from biasline.bitfit import inspect_biases, select_biases
from biasline.bitfit.pretrained import PretrainedModel
from biasline.errors import BiaslineError
from biasline.params import ResolvedTrain, Train, method_spec
from biasline.params.methods.bitfit import SPEC as BITFIT

if TYPE_CHECKING:
    from optuna import Trial

# Beside the task's own; one that has scales is BitFit no longer, and its line in params.yaml says so.
_BIASES = ("attention+mlp", "all", "query+mlp_in", "attention+mlp+scale")
# Times the task's own steps.
_LENGTHS = (0.5, 1.0, 2.0)
# A rate is drawn between the usual one over and times this, evenly in its logarithm.
_SPAN = 5.0
# No parameter may be higher.
_HIGHEST = 100.0
_SCALE_RATE = "scale_learning_rate"


@dataclass(frozen=True)
class Space:
    """The choices and ranges.

    Attributes:
        train: the task's own parameters, which are the first point tried.
        biases: choices of biases; none where the method has no such choice.
        rates: parameter of `train` → the usual rate.
        epochs: passes over the training rows that the task's own parameters come to.
    """

    train: Train
    biases: tuple[str, ...]
    rates: Mapping[str, float]
    epochs: float

    @classmethod
    def of(
        cls, settings: ResolvedTrain, train: Train, model: PretrainedModel, head: Sequence[str], epochs: float
    ) -> "Space":
        """The space of a task.

        Args:
            settings: its parameters, with the rates that they come to.
            train: its parameters as they are.
            model: the base.
            head: names of the parameters of a new head; without one its rate counts for nothing.
            epochs: see the attribute.
        """
        names = [name for name in method_spec(train.method).learning_rates if head or name != "head_learning_rate"]
        rates = {name: getattr(settings, name) for name in names}
        if train.method != BITFIT.name:
            return cls(train, (), rates, epochs)
        inventory, biases = inspect_biases(model), [train.biases]
        for one in _BIASES:
            try:
                select_biases(inventory, one, train.layers, train.pattern, train.inject)
            except BiaslineError:
                continue  # this base has no such biases
            biases.append(one)
        return cls(train, tuple(dict.fromkeys(biases)), {**rates, _SCALE_RATE: train.scale_learning_rate}, epochs)

    @property
    def usual(self) -> dict[str, Any]:
        """The point that the task's own parameters are."""
        return {**({"biases": self.train.biases} if self.biases else {}), **self.rates, "length": 1.0}

    def draw(self, trial: "Trial") -> dict[str, Any]:
        """A point, as the search suggests it."""
        drawn: dict[str, Any] = {}
        if self.biases:
            drawn["biases"] = trial.suggest_categorical("biases", self.biases)
        for name, rate in self.rates.items():
            drawn[name] = trial.suggest_float(name, rate / _SPAN, min(rate * _SPAN, _HIGHEST), log=True)
        drawn["length"] = trial.suggest_categorical("length", _LENGTHS)
        return drawn

    def changes(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        """The parameters of `train` that a point changes, rates to two digits; none where it is the task's own."""
        found: dict[str, Any] = {}
        if drawn.get("biases", self.train.biases) != self.train.biases:
            found["biases"] = drawn["biases"]
        scaled = "scale" in str(drawn.get("biases", ""))
        for name, rate in self.rates.items():
            if drawn[name] != rate and (scaled or name != _SCALE_RATE):
                found[name] = float(f"{drawn[name]:.2g}")
        if drawn["length"] != 1.0:
            found["epochs"] = float(f"{self.epochs * drawn['length']:.4g}")
            found["min_steps"] = max(1, round(self.train.min_steps * drawn["length"]))
        return found
