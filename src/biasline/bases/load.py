"""Loading a checked base, frozen, with an explicit dtype."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from biasline.bases.pin import Pin
from biasline.errors import BiaslineError, shown
from biasline.params import Load


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
        model = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=getattr(torch, load.dtype),
            use_safetensors=not pin.has_bin,
            weights_only=True,
            local_files_only=True,
            trust_remote_code=load.trust_remote_code,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise BiaslineError(f"base {pin.name}: {shown(folder)} does not load: {str(error).splitlines()[0]}") from None
    return _frozen(model)


def _frozen(model: nn.Module) -> nn.Module:
    model.requires_grad_(False)
    return model.eval()
