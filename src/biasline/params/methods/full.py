"""Every parameter of the base."""

from biasline.params.method_spec import MethodSpec, NoParameters

SPEC = MethodSpec(
    name="full",
    order=4,
    trains="everything",
    parameters=NoParameters,
    artifact="weights.safetensors",
    registrable=False,
    freezes_base=False,
    card_title="All weights, tuned, of",
    card_training=lambda chosen, roles: "Every parameter",
    tuned_part=lambda chosen: "all",
    run_params=lambda chosen: {},
)
