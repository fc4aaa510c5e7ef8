"""Methods whose artifact is an adapter of PEFT's, in the folder that PEFT saves."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from biasline.bitfit import inspect_biases
from biasline.bitfit.pretrained import PretrainedModel
from biasline.errors import BiaslineError, first_line
from biasline.jsonfile import dump_json, load_json
from biasline.params import Train
from biasline.training.methods.method import PreparedModel, Provenance
from biasline.training.methods.whole import WholeTuning, count_entries

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel


def head_modules(head: list[str]) -> list[str] | None:
    """The modules of a head that is trained whole, as PEFT's `modules_to_save` takes them."""
    return sorted({name.rpartition(".")[0] for name in head}) or None


def prepared_adapter(model: PretrainedModel, config: "PeftConfig", params: Train, what: str) -> PreparedModel:
    """What PEFT makes of a config, seeded; the rest of the base is frozen.

    Args:
        model: the base.
        config: of the adapter.
        params: for the seed of its first values.
        what: what is trained, in words.

    Raises:
        BiaslineError: where PEFT finds no place for it in this base.
    """
    from peft import get_peft_model

    total = inspect_biases(model).total
    torch.manual_seed(params.seed)
    try:
        with _without_future_warnings():
            adapted = get_peft_model(model, config)
    except (ValueError, KeyError, AttributeError, NotImplementedError) as error:
        raise BiaslineError(
            f"{what}: not on a {model.config.model_type}: {first_line(error)}", "choose other layers or another method"
        ) from None
    parts: dict[str, list[nn.Parameter]] = {"adapter": [], "head": []}
    for name, part in adapted.named_parameters():
        if part.requires_grad:
            parts["head" if ".modules_to_save." in name else "adapter"].append(part)

    def save(target: Path, provenance: Provenance) -> None:
        save_adapter(adapted, target, provenance.pin.name)

    counts = count_entries(parts)
    return PreparedModel(
        model=adapted,
        tuning=WholeTuning(parts),
        total=total,
        counts=counts,
        what=what,
        roles={"adapter": counts["adapter"]},
        save=save,
    )


def save_adapter(adapted: "PeftModel", target: Path, base: str) -> None:
    """Write the adapter's folder, the same bytes each time.

    Args:
        adapted: what PEFT made.
        target: the folder.
        base: what the adapter's config calls the base.
    """
    adapted.save_pretrained(str(target))
    (target / "README.md").unlink(missing_ok=True)  # a form to be filled in
    path = target / "adapter_config.json"
    config = load_json(path, "train again") | {"base_model_name_or_path": base}
    # Sets come in an order of each process's own.
    config = {key: sorted(value) if isinstance(value, list) else value for key, value in config.items()}
    path.write_text(dump_json(config), encoding="utf-8")


def restore_adapter(model: PretrainedModel, artifact: Path) -> Any:
    """The adapter around the base."""
    from peft import PeftModel

    with _without_future_warnings():
        return PeftModel.from_pretrained(model, str(artifact)).eval()


@contextmanager
def _without_future_warnings() -> Iterator[None]:
    """Without what PEFT is told to change by later versions of Transformers: nothing for a user to do."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
