"""Virtual tokens before each layer's keys and values (Li and Liang 2021), as PEFT makes them."""

from typing import Any

from pydantic import Field

from biasline.params.group import Group
from biasline.params.method_spec import MethodSpec


class Prefix(Group):
    """What `method: prefix` puts before each layer's keys and values, as PEFT makes it."""

    tokens: int = Field(16, ge=1, description="virtual tokens whose keys and values are trained, in every layer")


def _card_training(chosen: Prefix, roles: str) -> str:
    return f"A prefix of {chosen.tokens} virtual tokens in each layer ({roles})"


def _run_params(chosen: Prefix) -> dict[str, Any]:
    return {"prefix_tokens": chosen.tokens}


SPEC = MethodSpec(
    name="prefix",
    order=3,
    trains="a prefix",
    parameters=Prefix,
    artifact="adapter",
    registrable=False,
    libraries=("peft",),
    freezes_base=True,
    card_title="A prefix before",
    card_training=_card_training,
    tuned_part=lambda chosen: f"{chosen.tokens} tokens",
    run_params=_run_params,
)
