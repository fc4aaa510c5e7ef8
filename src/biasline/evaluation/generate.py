"""Greedy answers, in batches."""

from collections.abc import Callable, Sequence
from typing import Any

import torch


def generate(
    model: Any,
    tokenizer: Any,
    prompts: list[list[int]],
    max_new_tokens: int,
    batch_size: int,
    stops: Sequence[int],
    finished: Callable[[int], None] = lambda _: None,
) -> list[str]:
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
    answers = [""] * len(prompts)
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
                max_new_tokens=max_new_tokens,
                do_sample=False,
                pad_token_id=pad,
                eos_token_id=list(stops),
            )
        texts = tokenizer.batch_decode(output[:, width:], skip_special_tokens=True)
        for index, text in zip(chosen, texts, strict=True):
            answers[index] = text.strip()
        finished(start + len(chosen))
    return answers
