"""How each method trains: biases, a head alone, a LoRA adapter, a prefix, or everything; one module each.

BitFit is what this project is about; the others are what it is compared with, on the same data, by the same loop. The
module of a method that `biasline.params.methods` declares lies here under the same name and defines `METHOD`.
"""

from importlib import import_module
from typing import Any

from biasline.bitfit.pretrained import PretrainedModel
from biasline.errors import BiaslineError
from biasline.layout import TaskPlace
from biasline.params import METHOD_SPECS, Train, method_spec
from biasline.training.methods.method import (
    ExtraPositions,
    Method,
    PeakRates,
    PreparedModel,
    Provenance,
    Tuning,
)
from biasline.training.methods.whole import WholeTuning

__all__ = [
    "METHODS",
    "ExtraPositions",
    "Method",
    "PeakRates",
    "PreparedModel",
    "Provenance",
    "Tuning",
    "WholeTuning",
    "apply_tuned",
    "get_method",
    "prepare_model",
]

METHODS: dict[str, Method] = {name: import_module(f"{__name__}.{name}").METHOD for name in METHOD_SPECS}


def get_method(name: str) -> Method:
    """The method of that name.

    Raises:
        BiaslineError: where there is none.
    """
    return METHODS[method_spec(name).name]


def prepare_model(model: PretrainedModel, head: list[str], params: Train) -> PreparedModel:
    """Freeze a base but for what `params.method` trains.

    Args:
        model: the base.
        head: names of the parameters of a new head, trained whole whatever the method.
        params: what is trained, and how.

    Raises:
        BiaslineError: where the method has nothing to train in this base.
    """
    return get_method(params.method).prepare(model, head, params)


def apply_tuned(name: str, model: PretrainedModel, place: TaskPlace) -> Any:
    """A base, loaded as for training, with what was trained in its place.

    Args:
        name: the method's.
        model: the base.
        place: of the task that it was trained for.

    Returns:
        the model to ask; for an adapter another object around the same base.

    Raises:
        BiaslineError: where nothing was trained yet, or it does not fit the base.
    """
    method = get_method(name)
    artifact = place.model / method.spec.artifact
    if not artifact.exists():
        raise BiaslineError(f"{artifact}: not there", f"dvc repro train@{place.task}")
    return method.restore(model, artifact)
