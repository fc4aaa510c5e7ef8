"""Prefix tuning (Li and Liang 2021): keys and values of virtual tokens before each layer's own."""

from biasline.bitfit.pretrained import PretrainedModel
from biasline.errors import BiaslineError
from biasline.params import Task, Train
from biasline.params.methods.prefix import SPEC
from biasline.training.methods.method import ExtraPositions, Method, PeakRates, PreparedModel
from biasline.training.methods.peft_adapter import head_modules, prepared_adapter, restore_adapter


def _prepare(model: PretrainedModel, head: list[str], params: Train) -> PreparedModel:
    from peft import PrefixTuningConfig

    count = SPEC.settings(params).tokens
    # The kind of model says how PEFT hands the prefix on.
    answers = hasattr(model, "prepare_inputs_for_generation")
    if not answers and not head:
        raise BiaslineError(
            "train.method prefix: with a prefix PEFT trains the base's own head as well", "set train.head: train or new"
        )
    task_type = "CAUSAL_LM" if answers else "SEQ_CLS"
    config = PrefixTuningConfig(task_type=task_type, num_virtual_tokens=count, modules_to_save=head_modules(head))
    return prepared_adapter(model, config, params, f"a prefix of {count} virtual tokens in each layer")


def _check(task: Task) -> None:
    # The prefix lies among cached keys and values.
    if task.run.recompute:
        raise BiaslineError("run.recompute: what is recomputed has no cache for the prefix", "leave it out")


def _extra_positions(params: Train) -> ExtraPositions:
    count = SPEC.settings(params).tokens
    return ExtraPositions(count, f"a prefix of {count}", "train.prefix.tokens")


METHOD = Method(
    spec=SPEC,
    peaks=PeakRates(tuned=3.84, head=0.384),
    prepare=_prepare,
    restore=restore_adapter,
    check=_check,
    extra_positions=_extra_positions,
)
