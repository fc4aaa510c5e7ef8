"""What is used of a model of Transformers, for signatures: its own types say less, and are loaded lazily."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

# A config of Transformers: which attributes it has depends on the family of models.
Config = Any


class PretrainedModel(nn.Module):
    """A model as Transformers loads it (`PreTrainedModel`), to a type checker; none is ever made of this class.

    A class and no protocol, since such a model is a `torch.nn.Module` as well, and types of Python know no "both".
    """

    if TYPE_CHECKING:
        config: Config
        generation_config: Any
        device: torch.device
        base_model: "PretrainedModel"
        base_model_prefix: str

        def get_input_embeddings(self) -> nn.Embedding: ...
        def get_output_embeddings(self) -> nn.Linear: ...
        def get_encoder(self) -> nn.Module: ...
        def activation_checkpointing_enable(self, options: dict[str, Any]) -> None: ...
        def disable_input_require_grads(self) -> None: ...
        def can_generate(self) -> bool: ...
        def generate(self, **arguments: Any) -> torch.Tensor: ...
        def tie_weights(self) -> None: ...
        def save_pretrained(self, folder: str | Path, **arguments: Any) -> None: ...
