"""Biases of the base, chosen by role, layer or name: what this project is about."""

from typing import Any, Literal

from pydantic import Field

from biasline.layout import DELTA_FILE
from biasline.params.group import Group
from biasline.params.method_spec import MethodSpec


class BiasParameters(Group):
    """Which biases are trained."""

    biases: str = Field(
        "attention+mlp",
        min_length=1,
        description="roles or groups joined by '+': all, attention+mlp, query+mlp_in, value, norm, …; and, no longer "
        "BitFit proper, scales of linear layers' outputs or of norms: scale, mlp_scale, value_scale, norm_scale, …",
    )
    scale_learning_rate: float = Field(
        1e-2, gt=0, le=100, description="peak for scales, which are near one whatever the base's width"
    )
    layers: str = Field("", description="only these layers, as '0-3' or '2,5,7-'; empty: every layer")
    pattern: str = Field("", description="only biases whose parameter name matches this regular expression")
    inject: str = Field("", description="roles whose layers get a zero bias if they have none: all, attention, mlp, …")
    target: Literal["", "transformers", "llama.cpp", "vllm", "sglang"] = Field(
        "",
        description="the program that is to serve the model without Biasline: biases that it would leave out are "
        "refused before training; empty: none",
    )


def _card_training(chosen: BiasParameters, roles: str) -> str:
    return f"Biases `{chosen.biases}` ({roles})"


def _run_params(chosen: BiasParameters) -> dict[str, Any]:
    return {"biases": chosen.biases, "layers": chosen.layers or "all"}


SPEC = MethodSpec(
    name="bitfit",
    order=0,
    trains="biases",
    parameters=BiasParameters,
    flat=True,
    artifact=DELTA_FILE,
    registrable=True,
    freezes_base=True,
    card_title="A bias-only delta of",
    card_training=_card_training,
    tuned_part=lambda chosen: chosen.biases,
    run_params=_run_params,
)
