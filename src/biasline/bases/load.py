"""Loading a checked base, frozen, with an explicit dtype."""

import pickle
from pathlib import Path
from typing import Any

import torch

from biasline.bases.pin import Pin
from biasline.errors import BiaslineError, shown
from biasline.params import Load


def best_device() -> torch.device:
    """Where a model is evaluated or served: the accelerator if there is one, else the CPU."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return found if found is not None else torch.device("cpu")


def load_causal_lm(pin: Pin, folder: Path, load: Load) -> Any:
    """The base as a causal language model on the CPU, in eval mode, every parameter frozen.

    Args:
        pin: the base's pin.
        folder: where its files lie, already verified.
        load: dtype, and whether pickled weights and remote code are allowed.

    Errors: `BiaslineError` for pickled weights that params do not allow, and for what Transformers cannot load.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    if pin.has_bin and not load.allow_bin:
        raise BiaslineError(
            f"base {pin.name}: its weights are pickled (.bin)",
            "set load.allow_bin: true for the task to read them with weights_only=True",
        )
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            str(folder),
            output_loading_info=True,
            dtype=getattr(torch, load.dtype),
            use_safetensors=not pin.has_bin,
            weights_only=True,
            local_files_only=True,
            trust_remote_code=load.trust_remote_code,
        )
    except (OSError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        raise BiaslineError(f"base {pin.name}: {shown(folder)} does not load: {str(error).splitlines()[0]}") from None
    if info["missing_keys"]:
        # Transformers would fill them at random, and here they would stay so.
        raise BiaslineError(
            f"base {pin.name}: no weights for {sorted(info['missing_keys'])[0]}, which {type(model).__name__} needs",
            "take a base that was trained as a causal language model",
        )
    model.requires_grad_(False)
    return model.eval()
