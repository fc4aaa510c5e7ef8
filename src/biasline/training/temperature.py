"""How sure a classifier is: one number that its outputs are divided by, chosen on the validation rows.

A head that was trained until it was right is surer than it is right. Dividing its outputs changes no label (Guo et al.
2017, "On Calibration of Modern Neural Networks").
"""

from collections.abc import Sequence
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
    rows = Rows(valid)
    layers = _trained_layers(model)
    if layers and len(rows) < _FEWEST:
        return {}, [f"{len(rows)} validation rows are too few to tell how sure the model should be"]
    layer = _last_of(layers, model, rows) if layers else None
    if layer is None:
        return {}, []
    temperature = best_temperature(*outputs_and_labels(model, rows, ClassLabels(), train))
    with torch.no_grad():
        for part in layer.parameters():
            part.div_(temperature)
    return {"temperature": f"{temperature:g}"}, []


def best_temperature(outputs: np.ndarray, labels: np.ndarray) -> float:
    """The number that outputs, (rows, labels), are to be divided by for the labels, (rows,), to be the likeliest."""
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    right, every = outputs[np.arange(len(labels)), labels], outputs.mean(1)
    # Rows that are all right do not say that no row would be wrong (Platt 1999).
    doubt = 1 / (len(labels) + 2)
    wanted = (1 - doubt) * right + doubt * every

    def loss(logarithm: float) -> float:
        temperature = np.exp(logarithm)
        return float((logsumexp(outputs / temperature, axis=1) - wanted / temperature).mean())

    found = minimize_scalar(loss, bounds=(np.log(_LOWEST), np.log(_HIGHEST)), method="bounded")
    return float(np.exp(found.x).round(_DIGITS))


def _trained_layers(model: PretrainedModel) -> list[nn.Linear]:
    """Linear layers with as many outputs as there are labels, all of which was trained."""
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear)
        and module.out_features == model.config.num_labels
        and all(part.requires_grad for part in module.parameters())
    ]


@torch.no_grad()
def _last_of(layers: Sequence[nn.Linear], model: PretrainedModel, rows: Rows) -> nn.Linear | None:
    """The layer whose outputs are the model's: a matrix of LoRA's may have as many outputs as there are labels."""
    given: dict[nn.Module, torch.Tensor] = {}

    def note(layer: nn.Module, _: Any, output: torch.Tensor) -> None:
        given[layer] = output

    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        batch = ClassLabels().collate([rows[0]], model.config.pad_token_id).to(model.device)
        logits = model(**batch.inputs).logits
    finally:
        for hook in hooks:
            hook.remove()
    # Of a decoder they are those of one of its tokens.
    found = {layer: output.reshape(-1, logits.shape[-1]).eq(logits).all(-1).any() for layer, output in given.items()}
    return next((layer for layer in reversed(layers) if found.get(layer)), None)
