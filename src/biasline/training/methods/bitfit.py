"""BitFit (Ben Zaken et al. 2022): biases of the frozen base, in place."""

from biasline.bitfit import tune_biases
from biasline.bitfit.engines import check_target
from biasline.bitfit.pretrained import PretrainedModel
from biasline.params import Train
from biasline.params.methods.bitfit import SPEC
from biasline.training.methods.delta import prepared_delta, restore_delta
from biasline.training.methods.method import Method, PeakRates, PreparedModel


def _prepare(model: PretrainedModel, head: list[str], params: Train) -> PreparedModel:
    chosen = SPEC.settings(params)
    tuning = tune_biases(model, chosen.biases, chosen.layers, chosen.pattern, inject=chosen.inject, head=head)
    if chosen.target:
        check_target(chosen.target, model, tuning.selection.biases, tuning.injection.names)
    return prepared_delta(tuning, f"biases {chosen.biases}", tuning.selection.notes)


METHOD = Method(spec=SPEC, peaks=PeakRates(tuned=1.92, head=0.384), prepare=_prepare, restore=restore_delta)
