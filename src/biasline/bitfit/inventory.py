"""Every bias of a model: where it sits, what it does, how large it is, and where one is missing."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from biasline.bitfit.roles import ARCHITECTURES, FUSED_PARTS, UNKNOWN, Fused


@dataclass(frozen=True)
class Bias:
    """One bias, or the part of a fused bias that has one role.

    Attributes:
        name: parameter name as in `model.named_parameters()`.
        role: one of `biasline.bitfit.roles.ROLES`.
        layer: number of the Transformer layer, or None outside the layers.
        shape: shape of the whole parameter.
        ranges: half-open index ranges inside the flattened parameter; None means all of it.
    """

    name: str
    role: str
    layer: int | None
    shape: tuple[int, ...]
    ranges: tuple[tuple[int, int], ...] | None = None

    @property
    def key(self) -> str:
        """Unique name: the parameter's, with `#role` behind it where only a part is meant."""
        return self.name if self.ranges is None else f"{self.name}#{self.role}"

    @property
    def count(self) -> int:
        """Number of entries."""
        if self.ranges is None:
            return torch.Size(self.shape).numel()
        return sum(stop - start for start, stop in self.ranges)

    def read(self, parameter: torch.Tensor) -> torch.Tensor:
        """The entries, flattened, as a new tensor in the parameter's dtype."""
        flat = parameter.detach().reshape(-1)
        if self.ranges is None:
            return flat.clone()
        return torch.cat([flat[start:stop] for start, stop in self.ranges])

    def write(self, parameter: torch.Tensor, values: torch.Tensor) -> None:
        """Put flat `values` in place, cast to the parameter's dtype; all other entries stay byte-identical."""
        with torch.no_grad():
            flat = parameter.view(-1)
            values = values.to(device=flat.device, dtype=flat.dtype)
            if self.ranges is None:
                flat.copy_(values)
                return
            offset = 0
            for start, stop in self.ranges:
                flat[start:stop] = values[offset : offset + stop - start]
                offset += stop - start


@dataclass(frozen=True)
class Missing:
    """A linear layer without a bias, where one could be injected."""

    module: str
    role: str
    layer: int | None
    count: int


@dataclass(frozen=True)
class Inventory:
    """All biases of a model and the numbers beside them.

    Attributes:
        biases: whole biases, and the parts of fused ones, in model order; parameters tied by storage once.
        missing: linear layers that have no bias.
        total: number of parameters of the model, tied ones once.
        model_type: the Transformers model type, or the class name of a plain module.
        key_acts: whether a key bias can change this model's output.
        known: whether the architecture is in the table of roles.
    """

    biases: tuple[Bias, ...]
    missing: tuple[Missing, ...]
    total: int
    model_type: str
    key_acts: bool
    known: bool

    def by_role(self) -> dict[str, int]:
        """Role → number of entries."""
        counts: Counter[str] = Counter()
        for bias in self.biases:
            counts[bias.role] += bias.count
        return dict(counts)

    def named(self) -> dict[str, Bias]:
        return {bias.key: bias for bias in self.biases}

    def summary(self) -> dict[str, Any]:
        """Counts as plain data, for a pin or a report."""
        count = sum(bias.count for bias in self.biases)
        return {
            "model_type": self.model_type,
            "parameters": self.total,
            "biases": count,
            "share": count / self.total if self.total else 0.0,
            "roles": self.by_role(),
        }


def inspect_biases(model: nn.Module) -> Inventory:
    """Find every bias of `model`; works on meta tensors too.

    A bias is a one-dimensional floating-point `nn.Parameter` that its module keeps as `bias` or `…_bias`. Buffers of
    that name (causal masks of old checkpoints) and embeddings (T5's `relative_attention_bias.weight`) are not.
    """
    config = getattr(model, "config", None)
    model_type = getattr(config, "model_type", None)
    architecture = ARCHITECTURES.get(str(model_type), UNKNOWN)
    heads = int(getattr(config, "num_attention_heads", 0) or 0)

    biases: list[Bias] = []
    missing: list[Missing] = []
    seen: set[tuple[int, int]] = set()
    for path, module in model.named_modules():
        role, layer = architecture.role_of(path)
        for attribute, parameter in module.named_parameters(recurse=False):
            if not _is_bias(attribute, parameter) or _storage(parameter) in seen:
                continue
            seen.add(_storage(parameter))
            name = f"{path}.{attribute}" if path else attribute
            shape = tuple(parameter.shape)
            if isinstance(role, Fused):
                for part in FUSED_PARTS:
                    ranges = role.ranges(part, parameter.numel(), heads)
                    biases.append(Bias(name, part, layer, shape, ranges))
            else:
                biases.append(Bias(name, role, layer, shape))
        if isinstance(module, nn.Linear) and module.bias is None:
            told = "+".join(FUSED_PARTS) if isinstance(role, Fused) else role
            missing.append(Missing(path, told, layer, module.out_features))

    storages = {_storage(parameter): parameter.numel() for parameter in model.parameters()}
    return Inventory(
        tuple(biases),
        tuple(missing),
        sum(storages.values()),
        str(model_type or type(model).__name__),
        architecture.key_acts,
        architecture is not UNKNOWN,
    )


def value_hash(values: torch.Tensor) -> str:
    """First 16 hex digits of the sha256 over the entries as little-endian fp32."""
    return hashlib.sha256(values.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


def _is_bias(attribute: str, parameter: nn.Parameter) -> bool:
    named = attribute == "bias" or attribute.endswith("_bias") or attribute.startswith("bias_")
    return named and parameter.ndim == 1 and parameter.is_floating_point()


def _storage(parameter: torch.Tensor) -> tuple[int, int]:
    """Equal for parameters that share memory. Meta tensors have none: there only one object is one parameter."""
    if parameter.is_meta:
        return id(parameter), 0
    return parameter.data_ptr() or id(parameter), parameter.numel()
