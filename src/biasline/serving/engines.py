"""Where other programs have a place for a bias: what they would leave out is refused before.

Read in the sources of llama.cpp (0c1e57098).
"""

from collections.abc import Mapping, Sequence

from biasline.errors import BiaslineError

LLAMA_CPP = "llama.cpp"
_QKV = frozenset({"query", "key", "value"})
_ATTENTION = _QKV | {"attention_output"}
_ALL = _ATTENTION | {"mlp_in", "mlp_out"}
# Program → type of model → roles of the biases that it adds.
ARRIVES: Mapping[str, Mapping[str, frozenset[str]]] = {
    LLAMA_CPP: {
        "llama": _ALL,
        "mistral": _ALL,
        "qwen2": _QKV,
        "qwen3": _QKV,
        "gemma": _QKV,
        "gemma2": _QKV,
        "gemma3": _QKV,
        "gemma3_text": _QKV,
    },
}
_NAMED = 3


def check_arrives(engine: str, model_type: str, roles: Mapping[str, str], way_out: str = "") -> None:
    """Refuse what an engine would leave out.

    Args:
        engine: a key of `ARRIVES`.
        model_type: of Transformers.
        roles: name of a parameter → role of its bias.
        way_out: beside choosing other biases.

    Raises:
        BiaslineError: naming the first parameters that would be left out.
    """
    known = ARRIVES[engine].get(model_type)
    other = f", or {way_out}" * bool(way_out)
    if known is None:
        raise BiaslineError(
            f"{engine}: which biases it adds to {model_type} is not known here (it is of "
            f"{', '.join(sorted(ARRIVES[engine]))})",
            f"take another target{other}",
        )
    lost = [name for name, role in roles.items() if role not in known]
    if lost:
        raise BiaslineError(
            f"{engine} has no place for {_listed(lost)} of {model_type}: it would refuse the file, or answer without "
            "them",
            f"train the biases that arrive there (train.biases: {'+'.join(sorted(known))}){other}",
        )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
