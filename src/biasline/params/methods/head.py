"""A task's head alone, on the frozen base: what biases have to be better than."""

from biasline.layout import DELTA_FILE
from biasline.params.method_spec import MethodSpec, NoParameters

SPEC = MethodSpec(
    name="head",
    order=1,
    trains="a new head alone",
    parameters=NoParameters,
    learning_rates=("head_learning_rate",),
    needs_head=True,
    artifact=DELTA_FILE,
    registrable=True,
    freezes_base=True,
    card_title="A head alone on",
    card_training=lambda chosen, roles: "The head alone",
    tuned_part=lambda chosen: "head",
    run_params=lambda chosen: {},
)
