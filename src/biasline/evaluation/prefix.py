"""What all rows begin with: its keys and values are computed once, and stand before each row of every batch.

A template's system prompt and an instruction that stands before each text are most of what a base reads of short texts.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from biasline.bitfit.asked import of_tenants
from biasline.bitfit.pretrained import PretrainedModel
from biasline.tokens.saved import IGNORED

# Fewer tokens are not worth a cache.
_LEAST = 16


@dataclass(frozen=True)
class Prefix:
    """Tokens that rows begin with.

    Attributes:
        ids: of them.
        cache: Transformers' keys and values of them, of one row.
    """

    ids: list[int]
    cache: Any

    def of_batch(self, rows: int) -> Any:
        """Keys and values for so many rows, which a model may write behind."""
        made = copy.deepcopy(self.cache)
        made.batch_repeat_interleave(rows)
        return made


def shared_prefix(model: PretrainedModel, rows: Sequence[Sequence[int]]) -> Prefix | None:
    """What all rows begin with; None where that is short, or a model keeps something else of what it has read.

    Args:
        model: a causal language model in eval mode.
        rows: token ids; of each at least one is left behind the prefix.
    """
    # Each tenant's keys and values are its own.
    if len(rows) < 2 or of_tenants() or not getattr(model, "_supports_default_dynamic_cache", lambda: False)():
        return None
    first, last = min(map(list, rows)), max(map(list, rows))  # in order, these two differ first
    length = 0
    for one, other in zip(first[:-1], last[:-1], strict=False):
        if one != other:
            break
        length += 1
    length = min(length, min(map(len, rows)) - 1)
    if length < _LEAST:
        return None
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    ids, cache = list(first[:length]), DynamicCache(config=model.config)
    with torch.inference_mode():
        model(input_ids=torch.tensor([ids], device=model.device), past_key_values=cache, use_cache=True)
    # A window that slides would have forgotten some of it; a state that is no keys and values cannot be written behind.
    plain = all(type(layer) is DynamicLayer and layer.get_seq_length() == length for layer in cache.layers)
    return Prefix(ids, cache) if plain else None


def shared_prompt(model: PretrainedModel, columns: Mapping[str, Sequence[Sequence[int]]]) -> Prefix | None:
    """What all rows of a token set begin with, before any token that is supervised; as `shared_prefix`.

    Args:
        model: a causal language model in eval mode.
        columns: the token set's `input_ids` and `labels`.
    """
    prompts = []
    for ids, labels in zip(columns["input_ids"], columns["labels"], strict=True):
        supervised = (place for place, label in enumerate(labels) if label != IGNORED)
        prompts.append(ids[: next(supervised, len(ids))])
    return shared_prefix(model, prompts)
