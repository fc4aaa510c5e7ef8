"""The stock form of a model with injected biases: one that plain Transformers reloads with them.

Nothing is assumed about a config's switches: a model is built from the changed config on the meta device, and its
parameters are held against those that are needed.
"""

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar, cast

import torch
from torch import nn

from biasline.bitfit.architectures import architecture_of
from biasline.bitfit.injection import Injection
from biasline.bitfit.pretrained import Config, PretrainedModel
from biasline.errors import BiaslineError

ModelT = TypeVar("ModelT", bound=nn.Module)

Finish = Callable[[], nn.Module]


def stock_form(model: nn.Module, injected: Sequence[str]) -> Finish:
    """Find a stock model that has a place for each injected bias.

    Args:
        model: the base, without them as yet.
        injected: their parameter names.

    Returns:
        what is to be called once the biases are in the model. It gives `model` itself with its config changed; or,
        where another model type holds the same computation with biases, a new model that shares the tensors.

    Raises:
        BiaslineError: naming the first bias that no stock model has a place for. `model` is left as it was.
    """
    model = _stock(model, injected)
    place = _place(model, injected)
    if not place.moves:
        return lambda: _switched(model, place.flags, place.lengths)
    for flag in place.flags:
        setattr(place.config, flag, True)
    return lambda: _moved(model, _on_meta(place.model_class, place.config))


def stock_type(model: nn.Module, injected: Sequence[str]) -> str:
    """The type (`model_type` of a config) of the stock model that `stock_form` would give.

    Args:
        model: the base.
        injected: names of injected biases, which may be in it already.

    Raises:
        BiaslineError: as `stock_form`.
    """
    model = _stock(model, injected)
    config = _place(model, injected).config if injected else model.config
    return str(config.model_type)


def _stock(model: nn.Module, injected: Sequence[str]) -> PretrainedModel:
    if not hasattr(model, "config") or not hasattr(model, "save_pretrained"):
        raise _homeless(type(model).__name__, min(injected, default="of any layer"))
    return cast(PretrainedModel, model)


class _Place(NamedTuple):
    """A stock model with a place for each injected bias.

    Attributes:
        model_class, config: of it.
        flags: switches of the config that bring biases; not set yet.
        lengths: name → length of each bias that it then has.
        moves: whether it is of another type than the base.
    """

    model_class: type[PretrainedModel]
    config: Config
    flags: list[str]
    lengths: dict[str, int]
    moves: bool


def _place(model: PretrainedModel, injected: Sequence[str]) -> _Place:
    architecture = architecture_of(model.config.model_type)
    needed = set(injected)
    flags, lengths = _with_flags(type(model), model.config, architecture.flags, needed)
    if needed <= lengths.keys():
        return _Place(type(model), model.config, flags, lengths, moves=False)
    if architecture.layout:
        target_class, config = _other_layout(model, architecture.layout)
        # A place is needed for the biases that the base has, too.
        needed |= {name for name, _ in model.named_parameters() if name.endswith(".bias")}
        flags, lengths = _with_flags(target_class, config, architecture_of(architecture.layout).flags, needed)
        if needed <= lengths.keys():
            return _Place(target_class, config, flags, lengths, moves=True)
    raise _homeless(type(model).__name__, min(needed - lengths.keys()))


def _with_flags(
    model_class: type[nn.Module], config: Config, flags: Sequence[str], needed: set[str]
) -> tuple[list[str], dict[str, int]]:
    """The switches that bring a needed bias, and name → length of all biases that a model with them has."""
    plain = _bias_lengths(model_class, config)
    all_on, chosen = copy.deepcopy(config), []
    for flag in flags:
        tried = copy.deepcopy(config)
        setattr(tried, flag, True)
        if (_bias_lengths(model_class, tried).keys() - plain.keys()) & needed:
            setattr(all_on, flag, True)
            chosen.append(flag)
    return chosen, _bias_lengths(model_class, all_on)


def _bias_lengths(model_class: type[nn.Module], config: Config) -> dict[str, int]:
    parameters = _on_meta(model_class, config).named_parameters()
    return {name: part.numel() for name, part in parameters if name.endswith(".bias")}


def _on_meta(model_class: type[ModelT], config: Config) -> ModelT:
    with torch.device("meta"):
        return model_class(config)


def _switched(model: PretrainedModel, flags: Sequence[str], lengths: dict[str, int]) -> nn.Module:
    """A switch brings biases to more layers than were asked for: those get zeros."""
    present = {name for name, _ in model.named_parameters()}
    Injection(model, {name: length for name, length in lengths.items() if name not in present})
    for flag in flags:
        setattr(model.config, flag, True)  # in place: the model's inner parts hold the same config
    return model


def _other_layout(model: PretrainedModel, layout: str) -> tuple[type[PretrainedModel], Config]:
    import transformers

    config = model.config
    types = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    if types - {"full_attention"} or (window is not None and window < config.max_position_embeddings):
        raise BiaslineError(
            f"{type(model).__name__}: its attention looks back {window} tokens only, which {layout} cannot",
            "keep the delta form: load the base and apply the delta",
        )
    config_class = transformers.CONFIG_MAPPING[layout]
    known = config_class().to_dict().keys() - {"model_type", "architectures", "transformers_version"}
    made = config_class(**{key: value for key, value in config.to_dict().items() if key in known})
    ours, theirs = (one.__name__.removesuffix("Config") for one in (type(config), config_class))
    return getattr(transformers, type(model).__name__.replace(ours, theirs)), made


@torch.no_grad()
def _moved(model: PretrainedModel, target: PretrainedModel) -> nn.Module:
    """The tensors of `model` in a model of another type; what that has besides must be biases, and gets zeros."""
    found = target.load_state_dict(model.state_dict(), strict=False, assign=True)
    odd = [*found.unexpected_keys, *(name for name in found.missing_keys if not name.endswith(".bias"))]
    if odd:
        raise _not_the_same(model, target, f"{odd[0]} is in one of them only")
    for name in found.missing_keys:
        layer = cast(nn.Linear, target.get_submodule(name.rpartition(".")[0]))
        layer.bias = nn.Parameter(torch.zeros(layer.out_features, dtype=layer.weight.dtype, device=layer.weight.device))
    # What is computed from the config (rotary frequencies) lies in buffers that no file holds.
    for path, module in list(target.named_modules()):
        if any(buffer.is_meta for buffer in module.buffers(recurse=False)):
            target.set_submodule(path, model.get_submodule(path))
    target.tie_weights()
    if model.can_generate():
        target.generation_config = model.generation_config
    target.train(model.training)
    ids = torch.arange(8, device=model.device)[None] % model.config.vocab_size
    if not torch.allclose(model(ids)[0], target(ids)[0], rtol=1e-4, atol=1e-5):
        raise _not_the_same(model, target, "they give other outputs")
    return target


def _not_the_same(model: nn.Module, target: nn.Module, why: str) -> BiaslineError:
    return BiaslineError(
        f"{type(model).__name__} as {type(target).__name__}: {why}",
        "keep the delta form: load the base and apply the delta",
    )


def _homeless(model_class: str, name: str) -> BiaslineError:
    return BiaslineError(
        f"tensor {name}: stock {model_class} has no place for this bias, so it would be lost on reload",
        "keep the delta form: load the base and apply the delta",
    )
