"""Learning rates where parameters name none, and a word about those that fit another method."""

from biasline.bitfit.pretrained import PretrainedModel
from biasline.params import DEFAULT_METHOD, ResolvedTrain, Train
from biasline.params.method_spec import LEARNING_RATES
from biasline.training.methods import get_method

# A rate that differs so many times from the usual one is noted.
_FAR = 5


def resolve_learning_rates(params: Train, model: PretrainedModel) -> ResolvedTrain:
    """The parameters with learning rates in the place of those that were left out, to two digits."""
    method = get_method(params.method)
    width = model.config.get_text_config().hidden_size
    peaks = (float(f"{peak / width:.2g}") for peak in (method.peaks.tuned, method.peaks.head))
    given = (getattr(params, name) for name in LEARNING_RATES)
    rates = {
        name: peak if rate is None else rate for name, rate, peak in zip(LEARNING_RATES, given, peaks, strict=True)
    }
    own = method.spec.learning_rates[0]
    rates = {name: rate if name in method.spec.learning_rates else rates[own] for name, rate in rates.items()}
    return ResolvedTrain.model_construct(**(dict(params) | rates))


def unusual_learning_rates(params: Train, model: PretrainedModel) -> list[str]:
    """What should be said about learning rates that were made for biases, where something else is trained."""
    if params.method == DEFAULT_METHOD:
        return []
    usual = resolve_learning_rates(params.model_copy(update=dict.fromkeys(LEARNING_RATES)), model)
    notes = []
    for name in get_method(params.method).spec.learning_rates:
        given, taken = getattr(params, name), getattr(usual, name)
        if given is not None and not taken / _FAR < given < taken * _FAR:
            notes.append(
                f"train.{name} is {given:g}; {params.method} usually takes {taken:g} on a base of this width: leave it "
                "out, or the comparison is one of rates"
            )
    return notes
