"""Answers, in batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from biasline.bases.tokenizer import Tokenizer
from biasline.bitfit.asked import batch_of, batches
from biasline.bitfit.pretrained import PretrainedModel
from biasline.evaluation.prefix import Prefix
from biasline.params import Evaluate
from biasline.progress import Advance


class Answer(NamedTuple):
    """What a model said, and whether it came to an end by itself."""

    text: str
    ended: bool


@dataclass(frozen=True)
class Drawing:
    """How each token is chosen.

    Attributes:
        max_new_tokens: longest answer.
        temperature: 0 takes the likeliest token each time; above, tokens are drawn.
        top_p: drawn among the likeliest tokens that make up this share.
        seed: of drawing; the same rows in the same batches give the same answers.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0

    @classmethod
    def of(cls, settings: Evaluate) -> "Drawing":
        """As a task's parameters say."""
        return cls(settings.max_new_tokens, settings.temperature, settings.top_p, settings.seed)

    def config(self, stops: Sequence[int], pad: int) -> Any:
        """A `GenerationConfig` of Transformers of these settings alone.

        Args:
            stops: tokens that end an answer.
            pad: token to pad with.
        """
        from transformers import GenerationConfig

        settings: dict[str, Any] = {"max_new_tokens": self.max_new_tokens, "do_sample": self.temperature > 0}
        if self.temperature > 0:
            # A top_k of Transformers' own (50) would cut what top_p leaves.
            settings |= {"temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        return GenerationConfig(**settings, eos_token_id=list(stops), pad_token_id=pad)


def generate(
    model: PretrainedModel,
    tokenizer: Tokenizer,
    prompts: list[list[int]],
    drawing: Drawing,
    batch_size: int,
    stops: Sequence[int],
    advance: Advance = lambda _: None,
    prefix: Prefix | None = None,
) -> list[Answer]:
    """Answers to prompts, without special tokens, stripped; in the order of the prompts.

    Rows are padded on the left to the longest of their batch, since generation goes on at the right end, and batched
    by length, so that little is padded.

    Args:
        model: a causal language model in eval mode.
        tokenizer: its tokenizer.
        prompts: token ids.
        drawing: how tokens are chosen, and how many at most.
        batch_size: prompts answered at once.
        stops: tokens that end an answer.
        advance: told of each batch how many prompts it answered.
        prefix: what all prompts begin with, of this model.
    """
    from transformers import GenerationConfig

    # Transformers takes what a config leaves open from the one that came with the base: a penalty or a search that its
    # authors chose for a chat would decide what an evaluation measures. Nobody else asks the model from now on.
    model.generation_config = GenerationConfig()
    pad, ends = model.config.pad_token_id, torch.tensor(list(stops))
    config = drawing.config(stops, pad)
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    answers = [Answer("", False)] * len(prompts)
    if drawing.temperature > 0:
        torch.manual_seed(drawing.seed)
    first = prefix.ids if prefix else []
    for chosen in batches(order, batch_size):
        width = max(len(prompts[index]) for index in chosen)
        input_ids = torch.full((len(chosen), width), pad, dtype=torch.int64)
        attention_mask = torch.zeros((len(chosen), width), dtype=torch.int64)
        # Padding stands behind what all have in common.
        input_ids[:, : len(first)] = torch.tensor(first, dtype=torch.int64)
        attention_mask[:, : len(first)] = 1
        for line, index in enumerate(chosen):
            ids = torch.tensor(prompts[index][len(first) :], dtype=torch.int64)
            input_ids[line, width - len(ids) :] = ids
            attention_mask[line, width - len(ids) :] = 1
        with torch.inference_mode(), batch_of(chosen):
            output = model.generate(
                input_ids=input_ids.to(model.device),
                attention_mask=attention_mask.to(model.device),
                generation_config=config,
                **({"past_key_values": prefix.of_batch(len(chosen))} if prefix else {}),
            )
        said = output[:, width:].cpu()
        ended = torch.isin(said, ends)
        # An end of turn need not be a special token, which decoding would skip.
        lengths = torch.where(ended.any(1), ended.int().argmax(1), said.shape[1]).tolist()
        texts = tokenizer.batch_decode(
            [ids[:length] for ids, length in zip(said.tolist(), lengths, strict=True)], skip_special_tokens=True
        )
        for index, text, length in zip(chosen, texts, lengths, strict=True):
            answers[index] = Answer(text.strip(), length < said.shape[1])
        advance(len(chosen))
    return answers
