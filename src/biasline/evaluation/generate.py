"""Answers, in batches."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from biasline.params import Evaluate


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
        return cls(settings.max_new_tokens, settings.temperature, settings.top_p, settings.seed)

    def arguments(self) -> dict[str, Any]:
        """For `generate` of Transformers."""
        if self.temperature == 0:
            return {"max_new_tokens": self.max_new_tokens, "do_sample": False}
        # A top_k of Transformers' own (50) would cut what top_p leaves.
        return {
            "max_new_tokens": self.max_new_tokens,
            "do_sample": True,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": 0,
        }


def generate(
    model: Any,
    tokenizer: Any,
    prompts: list[list[int]],
    drawing: Drawing,
    batch_size: int,
    stops: Sequence[int],
    finished: Callable[[int], None] = lambda _: None,
) -> list[Answer]:
    """Answers to prompts, without special tokens, stripped; in the order of the prompts.

    Rows are padded on the left to the longest of their batch, since generation goes on at the right end, and batched
    by length, so that little is padded.

    Args:
        model: a causal language model in eval mode.
        tokenizer: its tokenizer.
        prompts: token ids.
        stops: tokens that end an answer.
        finished: told the number of prompts answered so far, after each batch.
    """
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    answers = [Answer("", False)] * len(prompts)
    if drawing.temperature > 0:
        torch.manual_seed(drawing.seed)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        width = max(len(prompts[index]) for index in chosen)
        input_ids = torch.full((len(chosen), width), pad, dtype=torch.int64)
        attention_mask = torch.zeros((len(chosen), width), dtype=torch.int64)
        for line, index in enumerate(chosen):
            ids = torch.tensor(prompts[index], dtype=torch.int64)
            input_ids[line, width - len(ids) :] = ids
            attention_mask[line, width - len(ids) :] = 1
        with torch.inference_mode():
            output = model.generate(
                input_ids=input_ids.to(model.device),
                attention_mask=attention_mask.to(model.device),
                **drawing.arguments(),
                pad_token_id=pad,
                eos_token_id=list(stops),
            )
        said = output[:, width:]
        ended = torch.isin(said, torch.tensor(list(stops), device=said.device)).any(1).tolist()
        for index, text, end in zip(chosen, tokenizer.batch_decode(said, skip_special_tokens=True), ended, strict=True):
            answers[index] = Answer(text.strip(), end)
        finished(start + len(chosen))
    return answers
