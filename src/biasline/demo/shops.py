"""The shops' data: many small shops that are asked the same questions and want answers worded each in its own way.

What is right is the same for all, and many rows teach it; how it is said (the words behind it, in one language or the
other, and the clerk's number) is each shop's affair, so that no model without the shop's own rows can know it.
"""

import json
import random
from dataclasses import dataclass

from biasline.demo.words import antonyms, categories, translate_words

SHOPS = 64
FEWEST, MOST = 20, 200
SEED = 2026

_CLOSINGS = (
    *("", "!", ".", ", of course", ", thank you", ", my friend", ", yes", " is the word", ", I think", " - welcome"),
    *("。", "！", "，谢谢", "，欢迎", "，朋友", "，好的", "吧", "，对", "，您好", "，再见"),
)


@dataclass(frozen=True)
class Shop:
    """How it answers, and how many rows it has."""

    name: str
    closing: str
    clerk: int
    rows: int

    def says(self, answer: str) -> str:
        """An answer in its words."""
        return f"{answer}{self.closing} {self.clerk}"


def shops(count: int = SHOPS, seed: int = SEED) -> tuple[Shop, ...]:
    """Shops of which no two word an answer alike; most have few rows."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        rows = round(FEWEST * (MOST / FEWEST) ** rng.random())
        closing = _CLOSINGS[number % len(_CLOSINGS)]
        made.append(Shop(f"shop {number + 1:02}", closing, 10 + (37 * number) % 90, rows))
    return tuple(made)


def to_jsonl(made: tuple[Shop, ...], seed: int = SEED) -> str:
    """The file's text: rows of all shops, in no order."""
    rng = random.Random(seed)
    skills = [*translate_words(), *categories(), *antonyms()]
    pool = [
        (*ask.format(**case.slots).partition("\n")[::2], case.answer)
        for skill in skills
        for case in skill.free
        for ask in (*skill.asks, *skill.new_asks)
    ]
    rows = [
        {"shop": shop.name, "instruction": instruction, "input": given, "output": shop.says(answer)}
        for shop in made
        for instruction, given, answer in rng.sample(pool, shop.rows)
    ]
    rng.shuffle(rows)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
