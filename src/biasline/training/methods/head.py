"""A head alone, on the frozen base."""

from biasline.bitfit import tune_head
from biasline.bitfit.pretrained import PretrainedModel
from biasline.params import Train
from biasline.params.methods.head import SPEC
from biasline.training.methods.delta import prepared_delta, restore_delta
from biasline.training.methods.method import Method, PeakRates, PreparedModel


def _prepare(model: PretrainedModel, head: list[str], params: Train) -> PreparedModel:
    return prepared_delta(tune_head(model, head), "the head alone")


METHOD = Method(spec=SPEC, peaks=PeakRates(tuned=1.92, head=1.92), prepare=_prepare, restore=restore_delta)
