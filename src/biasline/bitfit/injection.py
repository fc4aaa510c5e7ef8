"""Zero biases for layers that have none.

A linear layer and torch's layer norm add a bias by themselves once they have one. An RMS norm does not, nor does a
linear layer of someone's own that forgets it: there a forward hook adds it.
"""

from collections.abc import Mapping

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from biasline.errors import BiaslineError


class Injection:
    """Zero biases put into a model, until `remove`.

    Args:
        model: changed in place, and not kept; its outputs stay what they were, bit by bit, until a bias is written to.
        lengths: parameter name (`….bias`) → number of entries.

    Raises:
        BiaslineError: where there is no such layer, or it has a bias already.
    """

    def __init__(self, model: nn.Module, lengths: Mapping[str, int]) -> None:
        self._hooks: dict[str, RemovableHandle] = {}
        self.names: list[str] = []
        try:
            for name, length in lengths.items():
                self._add(model, name, length)
        except BaseException:
            self.remove(model)
            raise

    def remove(self, model: nn.Module) -> None:
        """Take the biases away from `model` again; it is what it was."""
        for name in self.names:
            module = model.get_submodule(name.rpartition(".")[0])
            if name in self._hooks:
                self._hooks[name].remove()
                del module._parameters["bias"]
            else:
                module.register_parameter("bias", None)
        self.names, self._hooks = [], {}

    def _add(self, model: nn.Module, name: str, length: int) -> None:
        path, _, attribute = name.rpartition(".")
        try:
            module = model.get_submodule(path)
        except AttributeError:
            raise BiaslineError(f"tensor {name}: the model has no layer {path}", "take its own base") from None
        weight = getattr(module, "weight", None)
        if attribute != "bias" or not isinstance(weight, torch.Tensor):
            raise BiaslineError(f"tensor {name}: no bias can be injected there", "take its own base")
        if getattr(module, "bias", None) is not None:
            raise BiaslineError(f"tensor {name}: the layer has a bias already", "take its own base")
        if weight.shape[0] != length:
            raise BiaslineError(
                f"tensor {name}: {length} entries, the layer has room for {weight.shape[0]}", "take its own base"
            )
        dtype = weight.dtype if weight.is_floating_point() else torch.float32
        with torch.inference_mode(False):  # or it could never be written to outside of it
            zeros = torch.zeros(length, dtype=dtype, device=weight.device)
            module.register_parameter("bias", nn.Parameter(zeros, requires_grad=False))
        self.names.append(name)
        if not _adds_by_itself(module):
            self._hooks[name] = module.register_forward_hook(_add_bias)


@torch.no_grad()
def _adds_by_itself(module: nn.Module) -> bool:
    """Whether the layer's own forward pass adds its bias; a forward pass of someone's own is tried out."""
    if type(module).forward in (nn.Linear.forward, nn.LayerNorm.forward):
        return True
    if not isinstance(module, nn.Linear) or module.weight.is_meta:
        return False
    probe = torch.ones(1, module.in_features, dtype=module.bias.dtype, device=module.bias.device)
    without = module(probe)
    module.bias.fill_(1.0)
    added = not torch.equal(module(probe), without)
    module.bias.zero_()
    return added


def _add_bias(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
    assert isinstance(module.bias, torch.Tensor)
    return output + module.bias.to(output.dtype)
