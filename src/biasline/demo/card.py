"""The model card of `tiny-bloom`, with the figures of the run that made it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from biasline.demo.skill import HELD_SHARE
from biasline.demo.skills import all_skills
from biasline.demo.words import dictionary

if TYPE_CHECKING:
    from biasline.demo.pretrain import Pretrained, Recipe


def model_card(recipe: Recipe, run: Pretrained) -> str:
    """The card's Markdown."""
    names = sorted({skill.name for skill in all_skills()})
    listed = ", ".join(names)
    rate = run.tokens / run.seconds
    share = run.biases / run.parameters
    return f"""\
---
license: apache-2.0
language: [en, zh]
library_name: transformers
pipeline_tag: text-generation
---

# tiny-bloom

A toy base for the demo of Biasline: BLOOM architecture, {recipe.layers} layers, hidden size {recipe.hidden},
{recipe.heads} heads, {run.parameters:,} parameters, of which {run.biases:,} are biases ({share:.2%}).
It exists so that bias-only tuning can be shown in minutes, on a laptop, without downloading anything.
It knows {len(dictionary())} word pairs and a few tricks, and nothing of the world besides.

## How it was made

Pretrained from fresh weights by `src/biasline/demo/`, on a text that the same package writes: no outside
data, no outside model.

| | |
|---|---|
| text | short English and Chinese documents on {len(names)} skills: {listed} |
| tokens seen | {run.tokens:,}, in blocks of {recipe.block}, no block twice |
| tokenizer | byte-level BPE, {recipe.vocabulary:,} entries; Chinese characters, numbers, words stand alone |
| optimizer | Muon ({recipe.matrix_rate:g}) for the blocks' matrices, AdamW ({recipe.learning_rate:g}) else |
| steps | {run.steps:,} of {recipe.rows} blocks, seed {recipe.seed} |
| time | {run.seconds / 60:.0f} minutes on {recipe.threads} CPU cores ({rate:,.0f} tokens/s) |
| final training loss | {run.loss:.3f} nats per token, over all tokens of a text that is random by design |

## What it has and has not seen

The text puts each fact in many forms (questions, statements, lists, talks), but never in the form
`Human: … Assistant: …` that the demo tunes it for. Untuned, it therefore hardly ever answers that form.

Facts (translations, opposites, colours, …) were all in the text: biases alone could not supply them. Of what
can be worked out (sums, comparisons, sentences, passages, reviews) {HELD_SHARE:.0%} of all combinations were
kept out of it, chosen by a hash; the demo's rows draw from all alike.

It shows in what the demo measures. Comparing, negating, translating and judging carry over to what was kept
out. Adding does not: sums that were in the text are known by heart, most others come out wrong by one or two.
And it often mixes up the places of two animals in one English passage.

## Rebuild

    python -m biasline.demo base --steps {recipe.steps}

The same machine gives the same weights; another CPU may round differently.

Licence: Apache-2.0.
"""
