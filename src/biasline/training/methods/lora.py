"""LoRA (Hu et al. 2021) on the linear layers of chosen roles."""

from biasline.bitfit import inspect_biases, select_linears
from biasline.bitfit.pretrained import PretrainedModel
from biasline.params import Train
from biasline.params.methods.lora import SPEC
from biasline.training.methods.method import Method, PeakRates, PreparedModel
from biasline.training.methods.peft_adapter import head_modules, prepared_adapter, restore_adapter


def _prepare(model: PretrainedModel, head: list[str], params: Train) -> PreparedModel:
    from peft import LoraConfig

    chosen = SPEC.settings(params)
    targets = select_linears(inspect_biases(model), chosen.layers)
    config = LoraConfig(
        r=chosen.rank,
        lora_alpha=chosen.alpha,
        lora_dropout=chosen.dropout,
        target_modules=sorted(targets),
        modules_to_save=head_modules(head),
    )
    what = f"LoRA of rank {chosen.rank} on {len(targets)} linear layers ({chosen.layers})"
    return prepared_adapter(model, config, params, what)


METHOD = Method(spec=SPEC, peaks=PeakRates(tuned=0.384, head=0.384), prepare=_prepare, restore=restore_adapter)
