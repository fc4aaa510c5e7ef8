"""Every bias of a model: where it sits, what it does, how large it is, and where one is missing."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import nn

from biasline.bitfit.architectures import architecture_of
from biasline.bitfit.pretrained import Config
from biasline.bitfit.roles import NORM_SCALE, OUTPUT_SCALES, UNKNOWN, Architecture, Cut, Fused, Heads
from biasline.errors import BiaslineError


@dataclass(frozen=True)
class Bias:
    """One bias, or the part of a fused bias that has one role; also a scale vector, or a parameter of a head.

    Attributes:
        name: parameter name as in `model.named_parameters()`.
        role: one of `biasline.bitfit.roles.ROLES`, or that of a scale vector, as `norm_scale`.
        layer: number of the Transformer layer, or None outside the layers.
        shape: shape of the whole parameter.
        cut: the entries meant, inside the flattened parameter; None means all of them.
    """

    name: str
    role: str
    layer: int | None
    shape: tuple[int, ...]
    cut: Cut | None = None

    @property
    def key(self) -> str:
        """Unique name: the parameter's, with `#role` behind it where only a part is meant."""
        return self.name if self.cut is None else f"{self.name}#{self.role}"

    @property
    def count(self) -> int:
        """Number of entries."""
        return torch.Size(self.shape).numel() if self.cut is None else self.cut.count

    def read(self, parameter: torch.Tensor) -> torch.Tensor:
        """The entries, flattened, as a new tensor in the parameter's dtype."""
        return self._view(parameter.detach()).flatten().clone()

    def write(self, parameter: torch.Tensor, values: torch.Tensor) -> None:
        """Put `values` in place, cast to the parameter's dtype; all other entries stay byte-identical."""
        with torch.no_grad():
            place = self._view(parameter)
            place.copy_(values.view(place.shape))

    def leading(self, entries: int, head_width: int) -> "Bias":
        """Only the first `entries` of each attention head."""
        whole = self.cut or Cut(0, self.count, self.count, 1)
        return replace(self, cut=whole.leading(entries, head_width))

    def _view(self, parameter: torch.Tensor) -> torch.Tensor:
        if self.cut is None:
            return parameter
        flat = parameter.view(-1)
        return flat.as_strided(
            (self.cut.repeats, self.cut.width),
            (self.cut.stride * flat.stride(0), flat.stride(0)),
            flat.storage_offset() + self.cut.start * flat.stride(0),
        )


@dataclass(frozen=True)
class Inventory:
    """All biases of a model and the numbers beside them.

    Attributes:
        biases: whole biases, and the parts of fused ones, in model order; parameters tied by storage once. Those of a
            head have the role `head`.
        missing: biases that linear layers and norms do not have, and that could be injected.
        scales: the norms' scale vectors.
        outputs: the scale vectors that can be put on the outputs of linear layers of attention and MLP.
        head: every parameter of a head, weights and all.
        total: number of parameters of the model, tied ones once.
        model_type: the Transformers model type, or the class name of a plain module.
        head_width: entries per attention head; 0 where not known.
        key_entries: how many leading entries of each head's key bias can change the output, of `head_width`.
        known: whether the architecture is in the table of roles.
    """

    biases: tuple[Bias, ...]
    missing: tuple[Bias, ...]
    scales: tuple[Bias, ...]
    outputs: tuple[Bias, ...]
    head: tuple[Bias, ...]
    total: int
    model_type: str
    head_width: int
    key_entries: int
    known: bool

    def summary(self) -> dict[str, Any]:
        """Counts as plain data, for a pin or a report: a head apart from the biases and from their share."""
        biases = [bias for bias in self.biases if bias.role != "head"]
        count = sum(bias.count for bias in biases)
        return {
            "model_type": self.model_type,
            "parameters": self.total,
            "biases": count,
            "share": count / self.total if self.total else 0.0,
            "roles": by_role(biases),
            "injectable": by_role(self.missing),
            "norm_scales": sum(scale.count for scale in self.scales),
            "head": sum(entry.count for entry in self.head),
        }


def by_role(biases: Iterable[Bias]) -> dict[str, int]:
    """Role → number of entries, in order of appearance."""
    counts: Counter[str] = Counter()
    for bias in biases:
        counts[bias.role] += bias.count
    return dict(counts)


def inspect_biases(model: nn.Module) -> Inventory:
    """Find every bias of `model`; works on meta tensors too.

    A bias is a floating-point `nn.Parameter` that its module keeps as `bias` or `…_bias`. Buffers of that name (causal
    masks of old checkpoints) and embeddings (T5's `relative_attention_bias.weight`) are not.

    Raises:
        BiaslineError: for a parameter without a shape as yet (lazy modules).
    """
    model = unwrapped(model)
    config: Config = getattr(model, "config", None)
    model_type = str(getattr(config, "model_type", None) or type(model).__name__)
    architecture = architecture_of(model_type)
    text = config.get_text_config(decoder=True) if hasattr(config, "get_text_config") else config
    heads = _heads(architecture, text)

    biases: list[Bias] = []
    missing: list[Bias] = []
    scales: list[Bias] = []
    outputs: list[Bias] = []
    head: list[Bias] = []
    seen: set[tuple[int, int]] = set()
    width = 0
    for path, module in model.named_modules():
        role, layer = architecture.role_of(path)
        own = []
        for attribute, parameter in module.named_parameters(recurse=False):
            if isinstance(parameter, nn.UninitializedParameter):
                raise BiaslineError(
                    f"{_joined(path, attribute)} has no shape as yet", "run the model once on an input, then inspect it"
                )
            if storage_of(parameter) not in seen:
                seen.add(storage_of(parameter))
                own.append((attribute, parameter))
        for attribute, parameter in own:
            name, shape = _joined(path, attribute), tuple(parameter.shape)
            if role == "head":
                head.append(Bias(name, "head", layer, shape))
            if _is_bias(attribute, parameter):
                biases += _parts(name, role, layer, shape, heads)
            elif is_norm(module) and attribute == "weight" and parameter.ndim == 1:
                scales.append(Bias(name, NORM_SCALE, layer, shape))
        if length := _bias_lacks(module):
            missing += _parts(_joined(path, "bias"), _injected_role(module, role), layer, (length,), heads)
        if length := linear_outputs(module):
            parts = _parts(_joined(path, "scale"), role, layer, (length,), heads)
            outputs += (replace(part, role=OUTPUT_SCALES[part.role]) for part in parts if part.role in OUTPUT_SCALES)
        if heads and isinstance(module, nn.Linear):
            if isinstance(role, Fused):
                width = heads.width(module.out_features)
            elif role == "key":
                width = module.out_features // heads.keys
        elif heads and isinstance(role, Fused):  # GPT-2's own kind of linear layer
            width = heads.width(next(part.numel() for name, part in module.named_parameters() if name == "bias"))

    storages = {storage_of(parameter): parameter.numel() for parameter in model.parameters()}
    return Inventory(
        tuple(biases),
        tuple(missing),
        tuple(scales),
        tuple(outputs),
        tuple(head),
        sum(storages.values()),
        model_type,
        width,
        architecture.keys(text, width) if heads else 0,
        architecture is not UNKNOWN,
    )


def unwrapped(model: nn.Module) -> nn.Module:
    """The model inside `torch.compile` and data-parallel wrappers, whose parameters are its own under other names."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
        else:
            return model


def is_norm(module: nn.Module) -> bool:
    """Whether a module scales what it normalises by one vector, as layer norm and the many kinds of RMS norm do.

    Every family of models brings its own RMS norm; what they share is the name and that one vector is all they hold.
    """
    own = dict(module.named_parameters(recurse=False))
    scale = own.get("weight")
    return (
        scale is not None
        and scale.ndim == 1
        and set(own) <= {"weight", "bias"}
        and "Norm" in type(module).__name__
        and next(module.children(), None) is None
    )


def linear_outputs(module: nn.Module) -> int:
    """How many outputs a linear layer has, GPT-2's own kind too; 0 for any other module."""
    if isinstance(module, nn.Linear):
        return module.out_features
    return int(cast(int, module.nf)) if is_transposed(module) else 0


def is_transposed(module: nn.Module) -> bool:
    """Whether a module is GPT-2's own kind of linear layer, whose weight is (inputs, outputs)."""
    return type(module).__name__ == "Conv1D" and hasattr(module, "nf")


def value_hash(values: torch.Tensor) -> str:
    """First 16 hex digits of the sha256 over the entries as little-endian fp32."""
    return hashlib.sha256(values.detach().float().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


def _heads(architecture: Architecture, config: Config) -> Heads | None:
    if architecture is UNKNOWN:
        return None
    return Heads(int(config.num_attention_heads), architecture.key_heads(config))


def _joined(path: str, attribute: str) -> str:
    return f"{path}.{attribute}" if path else attribute


def _parts(
    name: str, role: str | Fused, layer: int | None, shape: tuple[int, ...], heads: Heads | None
) -> Iterator[Bias]:
    if not isinstance(role, Fused):
        yield Bias(name, role, layer, shape)
        return
    assert heads is not None
    for part, cut in role.cuts(shape[0], heads).items():
        yield Bias(name, part, layer, shape, cut)


def _is_bias(attribute: str, parameter: nn.Parameter) -> bool:
    named = attribute == "bias" or attribute.endswith("_bias") or attribute.startswith("bias_")
    return named and parameter.is_floating_point()


def _bias_lacks(module: nn.Module) -> int:
    """Length of the bias that could be injected; 0 where there is one or none makes sense."""
    if getattr(module, "bias", None) is not None:
        return 0
    if isinstance(module, nn.Linear):
        return module.out_features
    return module.get_parameter("weight").numel() if is_norm(module) else 0


def _injected_role(module: nn.Module, role: str | Fused) -> str | Fused:
    return "norm" if role == "other" and is_norm(module) else role


def storage_of(parameter: torch.Tensor) -> tuple[int, int]:
    """Equal for parameters that share memory. Meta tensors have none: there only one object is one parameter."""
    if parameter.is_meta:
        return id(parameter), 0
    return parameter.data_ptr() or id(parameter), parameter.numel()
