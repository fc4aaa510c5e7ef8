"""Zero biases for layers that have none, and scales of one for the outputs of linear layers.

A linear layer and torch's layer norm add a bias by themselves once they have one. An RMS norm does not, nor does a
linear layer of someone's own that forgets it: there a forward hook adds it. No layer scales its outputs: that is always
a hook, after the bias. A scale is kept in fp32 whatever the model is in: bf16 knows nothing between 1 and 1.0078.
"""

from collections.abc import Iterable, Mapping

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from biasline.bitfit.inventory import linear_outputs
from biasline.errors import BiaslineError


class Injection:
    """Zero biases and scales of one put into a model, until `remove`.

    Args:
        model: changed in place, and not kept; its outputs stay what they were, bit by bit, until one is written to.
        lengths: parameter name (`….bias`, `….scale`) → number of entries.

    Raises:
        BiaslineError: where there is no such layer, or it has one already.
    """

    def __init__(self, model: nn.Module, lengths: Mapping[str, int]) -> None:
        self._hooks: dict[str, RemovableHandle] = {}
        self.names: list[str] = []
        self.add(model, lengths)

    def add(self, model: nn.Module, lengths: Mapping[str, int]) -> None:
        """Put in some more; all or none."""
        before = list(self.names)
        try:
            for name, length in lengths.items():
                self._add(model, name, length)
        except BaseException:
            self.remove(model, [name for name in self.names if name not in before])
            raise

    def remove(self, model: nn.Module, names: Iterable[str] | None = None) -> None:
        """Take what was put into `model` away again, or some of it; without all of it the model is what it was."""
        for name in list(self.names if names is None else names):
            module = model.get_submodule(name.rpartition(".")[0])
            self.names.remove(name)
            if name in self._hooks:
                self._hooks.pop(name).remove()
                del module._parameters[name.rpartition(".")[2]]
            else:
                module.register_parameter("bias", None)

    def _add(self, model: nn.Module, name: str, length: int) -> None:
        path, _, attribute = name.rpartition(".")
        try:
            module = model.get_submodule(path)
        except AttributeError:
            raise BiaslineError(f"tensor {name}: the model has no layer {path}", "take its own base") from None
        weight = getattr(module, "weight", None)
        if attribute == "scale" and isinstance(weight, torch.Tensor):
            self._add_scale(module, name, length)
            return
        if attribute != "bias" or not isinstance(weight, torch.Tensor):
            raise BiaslineError(f"tensor {name}: no bias can be injected there", "take its own base")
        if getattr(module, "bias", None) is not None:
            raise BiaslineError(f"tensor {name}: the layer has a bias already", "take its own base")
        # The weight of a quantized layer has a shape of its own.
        room = linear_outputs(module) or weight.shape[0]
        if room != length:
            raise BiaslineError(f"tensor {name}: {length} entries, the layer has room for {room}", "take its own base")
        dtype = weight.dtype if weight.is_floating_point() else torch.float32
        with torch.inference_mode(False):  # or it could never be written to outside of it
            zeros = torch.zeros(length, dtype=dtype, device=weight.device)
            module.register_parameter("bias", nn.Parameter(zeros, requires_grad=False))
        self.names.append(name)
        if not _adds_by_itself(module):
            self._hooks[name] = module.register_forward_hook(_add_bias, prepend=True)

    def _add_scale(self, module: nn.Module, name: str, length: int) -> None:
        outputs = linear_outputs(module)
        if not outputs or hasattr(module, "scale"):
            raise BiaslineError(f"tensor {name}: no scale can be put there", "take its own base")
        if outputs != length:
            raise BiaslineError(f"tensor {name}: {length} entries, the layer has {outputs}", "take its own base")
        with torch.inference_mode(False):
            ones = torch.ones(length, device=module.get_parameter("weight").device)
            module.register_parameter("scale", nn.Parameter(ones, requires_grad=False))
        self.names.append(name)
        self._hooks[name] = module.register_forward_hook(_scale)


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


def _scale(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
    assert isinstance(module.scale, torch.Tensor)
    # What it differs from one by, first: a scale near one would be rounded to one.
    return torch.addcmul(output, output, (module.scale - 1).to(output.dtype))
