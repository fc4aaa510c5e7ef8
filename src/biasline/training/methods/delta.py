"""Methods whose artifact is a delta: trained in place, with what the base had kept beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from biasline.bitfit import BiasDelta, BiasTuning, by_role
from biasline.bitfit.delta import frozen_hashes
from biasline.bitfit.pretrained import PretrainedModel
from biasline.training.methods.method import PreparedModel, Provenance


def prepared_delta(tuning: BiasTuning, what: str, notes: Sequence[str] = ()) -> PreparedModel:
    """A base of which a delta is trained."""
    frozen = frozen_hashes(tuning)  # now, while the base is whole in this process

    def save(target: Path, provenance: Provenance) -> None:
        delta = BiasDelta.of(
            tuning,
            base={"name": provenance.pin.name, "digest": provenance.pin.digest},
            about=provenance.about,
            labels=provenance.labels,
            score=provenance.score,
            frozen=frozen,
        )
        delta.save(target)

    chosen = tuning.selection
    return PreparedModel(
        model=cast(PretrainedModel, tuning.model),
        tuning=tuning,
        total=tuning.inventory.total,
        counts={"biases": chosen.count, **chosen.scales, "head": tuning.head_count},
        what=what,
        roles=by_role(chosen.biases),
        save=save,
        notes=notes,
        injected=len(tuning.injection.names),
    )


def restore_delta(model: PretrainedModel, artifact: Path) -> Any:
    """The base with the delta applied in place."""
    BiasDelta.load(artifact).apply(model)
    return model
