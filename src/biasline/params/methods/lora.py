"""Low-rank matrices beside linear layers (Hu et al. 2021), as PEFT makes them."""

from typing import Any

from pydantic import Field

from biasline.params.group import Group, Share
from biasline.params.method_spec import MethodSpec


class Lora(Group):
    """The adapter of `method: lora`, as PEFT makes it."""

    rank: int = Field(8, ge=1, description="rank of the two matrices beside each layer")
    alpha: float = Field(16.0, gt=0, description="their product counts alpha / rank times")
    dropout: Share = Field(0.0, description="share of the adapter's inputs that training leaves out")
    layers: str = Field(
        "all", min_length=1, description="linear layers that get one, by role: all, attention, mlp, query+value, …"
    )


def _card_training(chosen: Lora, roles: str) -> str:
    return f"LoRA of rank {chosen.rank} on the layers `{chosen.layers}` ({roles})"


def _run_params(chosen: Lora) -> dict[str, Any]:
    return {"lora_layers": chosen.layers, "lora_rank": chosen.rank}


SPEC = MethodSpec(
    name="lora",
    order=2,
    trains="a LoRA adapter",
    parameters=Lora,
    artifact="adapter",
    registrable=False,
    libraries=("peft",),
    freezes_base=True,
    card_title="A LoRA adapter of",
    card_training=_card_training,
    tuned_part=lambda chosen: chosen.layers,
    run_params=_run_params,
)
