"""Every parameter of the base, as fine-tuning without any of this trains them."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from biasline.bitfit import inspect_biases
from biasline.bitfit.pretrained import PretrainedModel
from biasline.params import Train
from biasline.params.methods.full import SPEC
from biasline.training.methods.method import Method, PeakRates, PreparedModel, Provenance
from biasline.training.methods.whole import WholeTuning, count_entries


def _prepare(model: PretrainedModel, head: list[str], params: Train) -> PreparedModel:
    inventory = inspect_biases(model)
    model.requires_grad_(True)
    parts: dict[str, list[nn.Parameter]] = {"weights": [], "head": []}
    for name, part in model.named_parameters():
        parts["head" if name in head else "weights"].append(part)

    def save(target: Path, provenance: Provenance) -> None:
        # Parameters that are tied come once. One key of metadata: several come in an order of each process's own.
        weights = {name: part.detach().contiguous() for name, part in model.named_parameters()}
        save_file(weights, target, {"base": provenance.pin.name})

    counts = count_entries(parts)
    return PreparedModel(
        model=model,
        tuning=WholeTuning(parts),
        total=inventory.total,
        counts=counts,
        what="every parameter",
        roles={"weights": counts["weights"]},
        save=save,
    )


def _restore(model: PretrainedModel, artifact: Path) -> Any:
    weights = load_file(artifact)
    with torch.no_grad():
        for name, part in model.named_parameters():
            part.copy_(weights[name])
    return model


METHOD = Method(spec=SPEC, peaks=PeakRates(tuned=0.0384, head=0.384), prepare=_prepare, restore=_restore)
