"""Pretrain `tiny-bloom`: a tokenizer and a small BLOOM, from nothing but the corpus of this package.

The result is an ordinary folder for `AutoModelForCausalLM.from_pretrained`. Equal seed, steps and thread
count give equal weights on one machine; no time stamp or path goes into it.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from biasline.demo.corpus import documents

if TYPE_CHECKING:
    import torch
    from transformers import BloomForCausalLM, PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>")
BOS_ID, EOS_ID, PAD_ID = 1, 2, 3


@dataclass(frozen=True)
class Recipe:
    """Everything the base depends on, besides the corpus and the machine."""

    steps: int = 6_000
    minutes: float | None = None
    rows: int = 24
    block: int = 96
    matrix_rate: float = 2e-2
    learning_rate: float = 3e-3
    warmup: int = 100
    vocabulary: int = 1792
    tokenizer_documents: int = 60_000
    layers: int = 4
    hidden: int = 160
    heads: int = 8
    seed: int = 20
    threads: int = 2


@dataclass(frozen=True)
class Pretrained:
    """What a run came to, for the model card."""

    steps: int
    tokens: int
    seconds: float
    loss: float
    parameters: int
    biases: int


def train_tokenizer(recipe: Recipe) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which Chinese characters, numbers and English words each stand alone.

    Merges across Chinese characters would tie a word to its neighbours (大的 as one token), and " apple"
    beside "apple" would double the vocabulary: to so small a model these are different things to learn.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{Han}|\p{N}+|[A-Za-z]+"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    sample = itertools.islice(documents(recipe.seed), recipe.tokenizer_documents)
    tokenizer.train_from_iterator(sample, trainer)
    unk, bos, eos, pad = SPECIAL_TOKENS
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=unk,
        bos_token=bos,
        eos_token=eos,
        pad_token=pad,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def blocks(tokenizer: PreTrainedTokenizerFast, recipe: Recipe) -> Iterator[list[int]]:
    """Yield blocks of token ids; each begins with a document, and the last document in it is cut at its end.

    Beginning every block with a document teaches the model what a prompt looks like that nothing precedes.
    """
    stream = documents(recipe.seed + 1)
    block: list[int] = []
    while True:
        for ids in tokenizer(list(itertools.islice(stream, 1_000)))["input_ids"]:
            block += [*ids, EOS_ID]
            if len(block) >= recipe.block:
                yield block[: recipe.block]
                block = []


def build_model(recipe: Recipe) -> BloomForCausalLM:
    """A BLOOM with fresh weights."""
    from transformers import BloomConfig, BloomForCausalLM

    config = BloomConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.hidden,
        n_layer=recipe.layers,
        n_head=recipe.heads,
        bos_token_id=BOS_ID,
        eos_token_id=EOS_ID,
        pad_token_id=PAD_ID,
    )
    return BloomForCausalLM(config)


def _use_fused_gelu(model: BloomForCausalLM) -> None:
    """Swap BLOOM's GELU, written in Python with its own backward, for the kernel that computes the same.

    Only this process sees it: activations are no part of a saved model.
    """
    import torch

    for block in model.transformer.h:
        block.mlp.gelu_impl = torch.nn.GELU(approximate="tanh")


def pretrain(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> tuple[BloomForCausalLM, Pretrained]:
    """Train from fresh weights for `recipe.steps`, or for `recipe.minutes` where given."""
    import torch

    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    model = build_model(recipe)
    _use_fused_gelu(model)
    model.train()
    optimizers = _optimizers(model, recipe)
    source = blocks(tokenizer, recipe)
    start = time.monotonic()
    done, recent, share = 0, 0.0, 0.0
    while share < 1.0:
        factor = _schedule(done, share, recipe.warmup)
        for optimizer, peak in optimizers:
            optimizer.param_groups[0]["lr"] = peak * factor
        batch = torch.tensor(list(itertools.islice(source, recipe.rows)))
        loss = _loss(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, _ in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        done += 1
        recent = loss.item() if done == 1 else 0.98 * recent + 0.02 * loss.item()
        seconds = time.monotonic() - start
        share = done / recipe.steps if recipe.minutes is None else seconds / (60 * recipe.minutes)
        if done % 100 == 0:
            rate = done * batch.numel() / seconds
            print(f"step {done}  {share:4.0%}  loss {recent:.3f}  {rate:.0f} tokens/s", flush=True)
    biases = sum(p.numel() for name, p in model.named_parameters() if name.endswith(".bias"))
    report = Pretrained(
        steps=done,
        tokens=done * recipe.rows * recipe.block,
        seconds=time.monotonic() - start,
        loss=recent,
        parameters=sum(p.numel() for p in model.parameters()),
        biases=biases,
    )
    return model.eval(), report


def _optimizers(model: BloomForCausalLM, recipe: Recipe) -> list[tuple[torch.optim.Optimizer, float]]:
    """Muon for the blocks' matrices, AdamW for embeddings and vectors, each with its peak learning rate.

    On two cores it is time that is short, and after equal minutes AdamW alone knew about half as much.
    """
    import torch

    named = list(model.transformer.named_parameters())
    matrices = [p for name, p in named if name.startswith("h.") and p.ndim == 2]
    others = [p for name, p in named if not (name.startswith("h.") and p.ndim == 2)]
    return [
        (torch.optim.Muon(matrices, lr=recipe.matrix_rate, weight_decay=0.01), recipe.matrix_rate),
        (
            torch.optim.AdamW(others, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
            recipe.learning_rate,
        ),
    ]


def _schedule(done: int, share: float, warmup: int) -> float:
    """Linear warm-up, then half a cosine down to a fiftieth."""
    return min(1.0, (done + 1) / warmup) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))


def _loss(model: BloomForCausalLM, batch: torch.Tensor) -> torch.Tensor:
    from torch.nn.functional import cross_entropy

    logits = model(input_ids=batch[:, :-1], use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


def save(folder: Path, model: BloomForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write the base as Transformers itself would."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
