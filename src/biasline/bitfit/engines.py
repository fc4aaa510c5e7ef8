"""Where other programs have a place for a bias: what they would leave out is refused, before or after training.

Read in the sources of Transformers 5.24, vLLM 0.33, SGLang 0.5.23 and llama.cpp 0c1e57098. vLLM and SGLang pass over a
bias that they have no place for, with a debug line at most, and answer as the plain base does.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from biasline.bitfit.inventory import Bias
from biasline.bitfit.pretrained import PretrainedModel
from biasline.bitfit.roles import is_scale
from biasline.bitfit.stock import stock_type
from biasline.errors import BiaslineError, first_few

_QKV = frozenset({"query", "key", "value"})
_ATTENTION = _QKV | {"attention_output"}
_ALL = _ATTENTION | {"mlp_in", "mlp_out"}
# Shares of attention sum to one, so that W_o·b_v is added behind the attention whatever a token looks at.
_INSTEAD = "; that of values moves what attention gives as its output's does"


@dataclass(frozen=True)
class Engine:
    """A program that serves models.

    Attributes:
        name: as users write it.
        version: whose sources were read.
        adds: type of model → roles of the biases that it adds although the published models have none.
        own: types of models that are published with biases, all of which it adds.
    """

    name: str
    version: str
    adds: Mapping[str, frozenset[str]]
    own: frozenset[str] = field(default_factory=frozenset)


LLAMA_CPP = Engine(
    "llama.cpp",
    "0c1e57098",
    {
        "llama": _ALL,
        "mistral": _ALL,
        "qwen2": _QKV,
        "qwen3": _QKV,
        "gemma": _QKV,
        "gemma2": _QKV,
        "gemma3": _QKV,
        "gemma3_text": _QKV,
    },
)
_VLLM = Engine(
    "vllm",
    "0.33",
    {
        # By attention_bias and mlp_bias of the config.
        "llama": _ALL,
        "mistral": _ALL,
        "qwen2": _QKV,
        "qwen3": _QKV,
        "gemma2": _ATTENTION,
        "gemma3": _ATTENTION,
        "gemma3_text": _ATTENTION,
    },
    frozenset({"gpt2", "bloom", "gpt_neox", "falcon", "phi"}),
)
_SGLANG = Engine(
    "sglang",
    "0.5.23",
    {
        "llama": _ATTENTION,
        "mistral": _ATTENTION,
        "qwen2": _QKV,
        "qwen3": _ATTENTION,
        "gemma3": _ATTENTION,
        "gemma3_text": _ATTENTION,
    },
)
ENGINES: Mapping[str, Engine] = {one.name: one for one in (LLAMA_CPP, _VLLM, _SGLANG)}


def lost(engine: Engine, model_type: str, roles: Mapping[str, str]) -> str:
    """What an engine would leave out, in words; empty where all arrives.

    Args:
        engine: that is to serve the model.
        model_type: of Transformers.
        roles: name of a parameter → role of its bias.
    """
    if model_type in engine.own:
        return ""
    known = engine.adds.get(model_type)
    if known is None:
        types = ", ".join(sorted(engine.adds.keys() | engine.own))
        return f"{engine.name}: which biases it adds to {model_type} is not known here (it is of {types})"
    without = [name for name, role in roles.items() if role not in known]
    if not without:
        return ""
    return (
        f"{engine.name} {engine.version} has no place for {first_few(without)} of {model_type}: it would refuse the "
        f"model, or answer without them; those of {', '.join(sorted(known))} arrive"
    )


def check_arrives(engine: Engine, model_type: str, roles: Mapping[str, str], way_out: str = "") -> None:
    """Refuse what an engine would leave out.

    Args:
        engine: that is to serve the model.
        model_type: of Transformers.
        roles: name of a parameter → role of its bias.
        way_out: beside choosing other biases.

    Raises:
        BiaslineError: naming the first parameters that would be left out.
    """
    if told := lost(engine, model_type, roles):
        known = engine.adds.get(model_type, frozenset())
        out = [role for role in roles.values() if role not in known]
        instead = _INSTEAD * (set(out) == {"attention_output"})
        choose = f"train biases that arrive (train.biases: {'+'.join(sorted(known))}{instead})" if known else ""
        raise BiaslineError(told, ", or ".join(way for way in (choose or "take another target", way_out) if way))


def check_target(target: str, model: PretrainedModel, biases: Iterable[Bias], injected: Collection[str]) -> None:
    """Refuse, before training, what the program that is to serve the model would leave out.

    Args:
        target: "transformers", or a key of `ENGINES`.
        model: the base, in which the injected biases may be already.
        biases: that are to be trained, and scales.
        injected: names of those that the base lacks.

    Raises:
        BiaslineError: naming the first biases or scales that would not arrive.
    """
    chosen = {bias.name: bias.role for bias in biases}
    if target == LLAMA_CPP.name:
        # A GGUF file is written from the base's own, whose weights may be quantized.
        if scales := [name for name, role in chosen.items() if is_scale(role)]:
            raise BiaslineError(
                f"train.target {target}: scales, as {scales[0]}, would change quantized weights, which must stay",
                "train biases alone, or leave train.target out",
            )
        check_arrives(LLAMA_CPP, model.config.model_type, chosen, "leave train.target out")
        return
    written = stock_type(model, sorted(name for name in injected if not name.endswith(".scale")))
    if target in ENGINES:
        biased = {name: role for name, role in chosen.items() if not is_scale(role)}
        check_arrives(ENGINES[target], written, biased, "leave train.target out")
