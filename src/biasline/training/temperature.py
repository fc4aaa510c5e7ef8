"""How sure a classifier is: one number that its outputs are divided by, chosen on the validation rows.

A head that was trained until it was right is surer than it is right. Dividing its outputs changes no label (Guo et al.
2017, "On Calibration of Modern Neural Networks").
"""

from typing import Any

import numpy as np
import torch
from torch import nn

from biasline.bitfit.pretrained import PretrainedModel
from biasline.params import Train
from biasline.training.batches import Rows
from biasline.training.loss import ClassLabels
from biasline.training.outputs import outputs_and_labels

# Fewer rows tell too little; and the temperatures that are tried.
_FEWEST, _LOWEST, _HIGHEST = 20, 0.1, 10.0
_DIGITS = 6


def calibrate(model: PretrainedModel, valid: Any, train: Train) -> tuple[dict[str, str], list[str]]:
    """Divide the outputs of a trained head by the temperature at which the validation rows are likeliest.

    The last layer's weight and bias are divided, so that nobody who asks the model needs to know. A head that is frozen
    stays as it is.

    Args:
        model: the classifier, in eval mode; its last layer is changed in place.
        valid: the validation rows in tokens, each with the number of its label.
        train: parameters of training, for the size of a forward pass.

    Returns:
        the temperature under its name, and notes; neither where nothing was divided.
    """
    layer, rows = _trained_layer(model), Rows(valid)
    if layer is None:
        return {}, []
    if len(rows) < _FEWEST:
        return {}, [f"{len(rows)} validation rows are too few to tell how sure the model should be"]
    temperature = best_temperature(*outputs_and_labels(model, rows, ClassLabels(), train))
    with torch.no_grad():
        for part in layer.parameters():
            part.div_(temperature)
    return {"temperature": f"{temperature:g}"}, []


def best_temperature(outputs: np.ndarray, labels: np.ndarray) -> float:
    """The number that outputs, (rows, labels), are to be divided by for the labels, (rows,), to be the likeliest."""
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    right = outputs[np.arange(len(labels)), labels]

    def loss(logarithm: float) -> float:
        temperature = np.exp(logarithm)
        return float((logsumexp(outputs / temperature, axis=1) - right / temperature).mean())

    found = minimize_scalar(loss, bounds=(np.log(_LOWEST), np.log(_HIGHEST)), method="bounded")
    return float(np.exp(found.x).round(_DIGITS))


def _trained_layer(model: PretrainedModel) -> nn.Linear | None:
    """The linear layer that gives a head's outputs, if all of it was trained."""
    layers = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear)
        and module.out_features == model.config.num_labels
        and all(part.requires_grad for part in module.parameters())
    ]
    return layers[-1] if layers else None
