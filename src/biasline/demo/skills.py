"""All skills of the demo, in a fixed order; a new one is listed here."""

from __future__ import annotations

from functools import cache

from biasline.demo import numbers, reviews, sentences, words
from biasline.demo.skill import Skill


@cache
def all_skills() -> tuple[Skill, ...]:
    """Every skill in every language, in a fixed order."""
    builders = (
        words.translate_words,
        words.antonyms,
        words.categories,
        words.colours,
        words.counting_words,
        words.homes,
        words.successors,
        numbers.sums,
        numbers.comparisons,
        sentences.negations,
        sentences.translate_sentences,
        sentences.past,
        sentences.reading,
        reviews.sentiments,
    )
    return tuple(skill for build in builders for skill in build())
