"""Skills that work on whole sentences and answer with one."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from biasline.demo import lexicon
from biasline.demo.lexicon import NOUNS, Noun
from biasline.demo.skill import Case, Skill, combined, is_held


@dataclass(frozen=True)
class Clause:
    """One plain sentence in both languages, with its negation."""

    held: bool
    en: str
    zh: str
    en_not: str
    zh_not: str


def _animals() -> list[Noun]:
    return [noun for noun in NOUNS if noun.category == "animal"]


def _by_name() -> dict[str, Noun]:
    return {noun.en: noun for noun in NOUNS}


def _place_en(animal: Noun, room: Noun) -> str:
    return f"The {animal.en} is in the {room.en}."


def _place_zh(animal: Noun, room: Noun) -> str:
    return f"{animal.zh}在{room.zh}里。"


@cache
def clauses() -> tuple[Clause, ...]:
    """Every plain sentence that the sentence skills work on; held ones appear nowhere in the corpus."""
    nouns = _by_name()
    found = []
    for animal in _animals():
        for en, zh in lexicon.TRAITS.items():
            found.append(
                Clause(
                    is_held("trait", animal.en, en),
                    f"The {animal.en} is {en}.",
                    f"{animal.zh}很{zh}。",
                    f"The {animal.en} is not {en}.",
                    f"{animal.zh}不{zh}。",
                )
            )
        for room in (nouns[name] for name in lexicon.ROOMS):
            found.append(
                Clause(
                    is_held("place", animal.en, room.en),
                    _place_en(animal, room),
                    _place_zh(animal, room),
                    f"The {animal.en} is not in the {room.en}.",
                    f"{animal.zh}不在{room.zh}里。",
                )
            )
    for who_en, who_zh in lexicon.PEOPLE.items():
        for liked in (nouns[name] for name in lexicon.LIKED):
            found.append(
                Clause(
                    is_held("like", who_en, liked.en),
                    f"{who_en} like {liked.plural}.",
                    f"{who_zh}喜欢{liked.zh}。",
                    f"{who_en} do not like {liked.plural}.",
                    f"{who_zh}不喜欢{liked.zh}。",
                )
            )
    return tuple(found)


def negations() -> list[Skill]:
    """Making a sentence negative, in English and Chinese."""
    return [
        combined(
            "negation",
            "en",
            ((c.held, Case({"s": c.en}, c.en_not)) for c in clauses()),
            asks=r"""
                Make this sentence negative.\n{s}
                Say that it is not so:\n{s}
                Negate: {s}
                Write the negative sentence.\n{s}
                Put a "not" into the sentence: {s}
                Deny it.\n{s}
                What is the negative of "{s}"
            """,
            new_asks=r"""
                Turn the sentence into a negative one.\n{s}
                Rewrite this with "not".\n{s}
            """,
            states=r"""
                It is not true: {s} {answer}
                {s} No! {answer}
                {answer}
                {s} / {answer}
                "{s}" is wrong. {answer}
            """,
            weight=1.0,
        ),
        combined(
            "negation",
            "zh",
            ((c.held, Case({"s": c.zh}, c.zh_not)) for c in clauses()),
            asks=r"""
                改成否定句。\n{s}
                请把句子变成否定句：{s}
                否定这句话：{s}
                写出否定句。\n{s}
                加上“不”字。\n{s}
                “{s}”的否定句是什么？
            """,
            new_asks=r"""
                把下面的句子改为否定句。\n{s}
                请用“不”改写这句话。\n{s}
            """,
            states=r"""
                {s}不对，{answer}
                {s}不！{answer}
                {answer}
                {s}/{answer}
                “{s}”是错的。{answer}
            """,
            weight=1.0,
        ),
    ]


def translate_sentences() -> list[Skill]:
    """Translating sentences between English and Chinese."""
    return [
        combined(
            "translate_sentence",
            "en",
            ((c.held, Case({"s": c.en}, c.zh)) for c in clauses()),
            asks=r"""
                Translate the sentence into Chinese.\n{s}
                Translate into Chinese: {s}
                Say it in Chinese:\n{s}
                How do you say this sentence in Chinese?\n{s}
                翻译成中文：{s}
                请把这句话翻译成中文。\n{s}
                英译中\n{s}
            """,
            new_asks=r"""
                Please write this sentence in Chinese.\n{s}
                将下面的英文句子译成中文。\n{s}
            """,
            states=r"""
                {s} {answer}
                {s}\n{answer}
                {answer}\n{s}
                {s} In Chinese {answer}
                “{s}”的意思是“{answer}”
                {s}
            """,
            weight=1.8,
        ),
        combined(
            "translate_sentence",
            "zh",
            ((c.held, Case({"s": c.zh}, c.en)) for c in clauses()),
            asks=r"""
                请把这句话翻译成英文。\n{s}
                翻译成英文：{s}
                用英语说：\n{s}
                这句话用英语怎么说？\n{s}
                中译英\n{s}
                Translate the sentence into English.\n{s}
                Translate into English: {s}
            """,
            new_asks=r"""
                将下面的中文句子译成英文。\n{s}
                Please write this sentence in English.\n{s}
            """,
            states=r"""
                {s}{answer}
                {s}\n{answer}
                {answer}\n{s}
                {s}英语是：{answer}
                “{s}”用英语说是“{answer}”
                {s}
            """,
            weight=1.8,
        ),
    ]


def past() -> list[Skill]:
    """Putting a sentence into the past, in English and Chinese."""
    nouns = _by_name()
    english, chinese = [], []
    for who_en, who_zh in lexicon.PEOPLE.items():
        who = who_en if who_en == "I" else who_en.lower()
        for deed in lexicon.DEEDS:
            for thing in (nouns[name] for name in deed.objects):
                held = is_held("deed", who_en, deed.present, thing.en)
                now = f"Today {who} {deed.present} the {thing.en}."
                then = f"Yesterday {who} {deed.past} the {thing.en}."
                english.append((held, Case({"s": now}, then)))
                now, then = f"今天{who_zh}{deed.zh}{thing.zh}。", f"昨天{who_zh}{deed.zh}了{thing.zh}。"
                chinese.append((held, Case({"s": now}, then)))
    return [
        combined(
            "past",
            "en",
            english,
            asks=r"""
                Put this sentence into the past.\n{s}
                Say it about yesterday:\n{s}
                Change to the past tense: {s}
                And yesterday?\n{s}
                Write the past tense.\n{s}
                What is the past of "{s}"
            """,
            new_asks=r"""
                Rewrite the sentence in the past tense.\n{s}
                Make it a sentence about yesterday.\n{s}
            """,
            states=r"""
                {s} {answer}
                {answer} {s}
                {answer}
                {s} And before? {answer}
                {s} / {answer}
            """,
            weight=1.0,
        ),
        combined(
            "past",
            "zh",
            chinese,
            asks=r"""
                把句子改成昨天的。\n{s}
                说说昨天：{s}
                改成过去：{s}
                昨天呢？\n{s}
                写成过去的事。\n{s}
                “{s}”改成昨天怎么说？
            """,
            new_asks=r"""
                请把这句话改写成昨天发生的事。\n{s}
                用“昨天”改写下面的句子。\n{s}
            """,
            states=r"""
                {s}{answer}
                {answer}{s}
                {answer}
                {s}以前呢？{answer}
                {s}/{answer}
            """,
            weight=1.0,
        ),
    ]


def _passages(tell: Callable[[Noun, Noun], str], join: str, name: Callable[[Noun], str]) -> list[tuple[bool, Case]]:
    """Two or three animals, each in a room, and a question about one of them.

    Free passages use free pairs only; a held one asks about a held pair, among others of either sort.
    """
    rng = random.Random(7)
    nouns = _by_name()
    animals, rooms = _animals(), [nouns[room] for room in lexicon.ROOMS]
    cases = []
    for _ in range(8000):
        size = rng.choice((2, 2, 2, 3))
        pairs = list(zip(rng.sample(animals, size), rng.sample(rooms, size), strict=True))
        asked, room = rng.choice(pairs)
        held = [is_held("place", animal.en, where.en) for animal, where in pairs]
        asked_held = is_held("place", asked.en, room.en)
        if any(held) and not asked_held:
            continue
        passage = join.join(tell(animal, where) for animal, where in pairs)
        cases.append((asked_held, Case({"p": passage, "x": name(asked)}, tell(asked, room))))
    return cases


def reading() -> list[Skill]:
    """Answering a question about a sentence, in English and Chinese."""
    return [
        combined(
            "reading",
            "en",
            _passages(_place_en, " ", lambda noun: noun.en),
            asks=r"""
                Where is the {x}?\n{p}
                {p} Where is the {x}?
                {p}\nWhere is the {x}?
                Read: {p} Now, where is the {x}?
                Where can we find the {x}?\n{p}
                Say where the {x} is.\n{p}
                In which place is the {x}?\n{p}
            """,
            new_asks=r"""
                Read the text and tell me where the {x} is.\n{p}
                Answer in a sentence: where is the {x}?\n{p}
            """,
            states=r"""
                {p} So, where is the {x}? {answer}
                {p} Yes, {answer}
                {p} As I said, {answer}
                {p}
            """,
            weight=1.8,
        ),
        combined(
            "reading",
            "zh",
            _passages(_place_zh, "", lambda noun: noun.zh),
            asks=r"""
                {x}在哪里？\n{p}
                {p}{x}在哪里？
                {p}\n{x}在哪里？
                读一读：{p}请问{x}在哪里？
                哪里能找到{x}？\n{p}
                说出{x}在哪里。\n{p}
                {x}在什么地方？\n{p}
            """,
            new_asks=r"""
                阅读短文，告诉我{x}在哪里。\n{p}
                用一句话回答：{x}在哪里？\n{p}
            """,
            states=r"""
                {p}那么{x}在哪里？{answer}
                {p}对，{answer}
                {p}我说过：{answer}
                {p}
            """,
            weight=1.8,
        ),
    ]
