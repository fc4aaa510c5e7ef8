"""Skills of single words: translation, opposites, and what is known about a thing."""

from __future__ import annotations

from functools import cache

from biasline.demo import lexicon
from biasline.demo.lexicon import NOUNS
from biasline.demo.skill import Skill, knowledge


@cache
def dictionary() -> tuple[tuple[str, str], ...]:
    """All (English, Chinese) pairs that "translate this word" may be asked about; a bijection."""
    pairs = [(noun.en, noun.zh) for noun in NOUNS]
    for en_a, en_b, zh_a, zh_b in lexicon.ANTONYMS:
        pairs += [(en_a, zh_a), (en_b, zh_b)]
    pairs += [(deed.present, deed.zh) for deed in lexicon.DEEDS]
    pairs += lexicon.COLOURS.items()
    known_en, known_zh = set(), set()
    unique = []
    for en, zh in pairs:
        if en not in known_en and zh not in known_zh:
            unique.append((en, zh))
        known_en.add(en)
        known_zh.add(zh)
    return tuple(unique)


def translate_words() -> list[Skill]:
    """Translating words between English and Chinese."""
    to_zh = knowledge(
        "translate_en_zh",
        "en",
        dictionary(),
        asks=r"""
            What is the Chinese word for {x}?
            How do you say {x} in Chinese?
            What is "{x}" in Chinese?
            What does {x} mean in Chinese?
            Translate into Chinese: {x}
            Translate this word into Chinese.\n{x}
            Chinese, please.\n{x}
            Give the Chinese for this word:\n{x}
            {x} in Chinese
            “{x}”用中文怎么说？
            {x}的中文是什么？
            翻译成中文：{x}
            请把这个单词翻译成中文。\n{x}
            英译中\n{x}
            {x}是什么意思？
        """,
        new_asks=r"""
            Please tell me the Chinese word for {x}.
            Translate the English word into Chinese.\n{x}
            请用中文说出这个英文单词。\n{x}
            英文单词{x}翻译成中文是什么？
        """,
        states=r"""
            The Chinese word for {x} is {answer}.
            In Chinese, {x} is {answer}.
            {x}:{answer}
            {x} = {answer}
            {x} means {answer}.
            {x} {answer}
            {x}的中文是{answer}。
            “{x}”的意思是“{answer}”。
            单词{x}，中文{answer}
        """,
        weight=2.2,
    )
    to_en = knowledge(
        "translate_zh_en",
        "zh",
        ((zh, en) for en, zh in dictionary()),
        asks=r"""
            “{x}”用英语怎么说？
            {x}的英文是什么？
            {x}用英文怎么说？
            翻译成英文：{x}
            请把这个词翻译成英文。\n{x}
            中译英\n{x}
            写出英文：\n{x}
            {x}的英语单词是什么？
            What is the English word for {x}?
            How do you say {x} in English?
            What is "{x}" in English?
            Translate into English: {x}
            Translate this word into English.\n{x}
            English, please.\n{x}
            {x} in English
        """,
        new_asks=r"""
            请说出{x}的英文单词。
            把下面的中文词译成英文。\n{x}
            Please tell me the English word for {x}.
            Translate the Chinese word into English.\n{x}
        """,
        states=r"""
            {x}的英文是{answer}。
            {x}用英语说是{answer}。
            {x}：{answer}
            {x}={answer}
            {x} {answer}
            “{x}”的英语单词是“{answer}”。
            The English word for {x} is {answer}.
            {x} means {answer}.
        """,
        weight=2.2,
    )
    return [to_zh, to_en]


def antonyms() -> list[Skill]:
    """Naming the opposite of a word, in English and Chinese."""
    english = [pair for a, b, _, _ in lexicon.ANTONYMS for pair in ((a, b), (b, a))]
    chinese = [pair for _, _, a, b in lexicon.ANTONYMS for pair in ((a, b), (b, a))]
    return [
        knowledge(
            "antonym",
            "en",
            english,
            asks=r"""
                What is the opposite of {x}?
                Give the opposite of {x}.
                The opposite of {x}?
                What is the antonym of {x}?
                Which word means the opposite of "{x}"?
                Name the opposite.\n{x}
                Find the antonym of this word:\n{x}
                Not {x}, but what?
                opposite of {x}
            """,
            new_asks=r"""
                Tell me the opposite of {x}.
                Write the antonym of the word.\n{x}
                What word is the opposite of the word {x}?
            """,
            states=r"""
                The opposite of {x} is {answer}.
                {x} is the opposite of {answer}.
                {x} and {answer} are opposites.
                Not {x} but {answer}.
                The antonym of "{x}" is "{answer}".
                {x} / {answer}
                {x}, opposite = {answer}
            """,
        ),
        knowledge(
            "antonym",
            "zh",
            chinese,
            asks=r"""
                {x}的反义词是什么？
                “{x}”的反义词是什么？
                写出{x}的反义词。
                与{x}相反的词是什么？
                找出反义词：{x}
                请写出反义词。\n{x}
                不是{x}，是什么？
                {x}的相反是什么？
                说出相反的词\n{x}
            """,
            new_asks=r"""
                请告诉我{x}的反义词。
                给出下面词语的反义词。\n{x}
                哪个词和{x}意思相反？
            """,
            states=r"""
                {x}的反义词是{answer}。
                “{x}”和“{answer}”是反义词。
                {x}与{answer}相反。
                不是{x}，是{answer}。
                {x}，反义词：{answer}
                {x}/{answer}
                和{x}相反的词是{answer}。
            """,
        ),
    ]


def categories() -> list[Skill]:
    """Saying what kind of thing a word is, in English and Chinese."""
    return [
        knowledge(
            "category",
            "en",
            ((noun.en, noun.category) for noun in NOUNS),
            asks=r"""
                What kind of thing is {x}?
                What category does {x} belong to?
                Which group is {x} in?
                Name the category of {x}.
                Classify this word:\n{x}
                What is the category?\n{x}
                What kind of word is "{x}"?
                category of {x}
            """,
            new_asks=r"""
                Tell me the category of {x}.
                To which category does this word belong?\n{x}
                Put {x} into a category.
            """,
            states=r"""
                {x} belongs to the category {answer}.
                {x} is a kind of {answer}.
                {x}, category = {answer}
                The category of {x} is {answer}.
                {x} ({answer})
                {answer}: {x}
            """,
        ),
        knowledge(
            "category",
            "zh",
            ((noun.zh, lexicon.CATEGORIES[noun.category]) for noun in NOUNS),
            asks=r"""
                {x}是什么类别？
                {x}属于哪一类？
                {x}是哪一种东西？
                给{x}分类。
                说出类别：{x}
                请给这个词分类。\n{x}
                属于什么类别？\n{x}
                “{x}”的类别是什么？
            """,
            new_asks=r"""
                请告诉我{x}属于什么类别。
                下面的词属于哪个类别？\n{x}
                把{x}归类。
            """,
            states=r"""
                {x}属于{answer}。
                {x}是一种{answer}。
                {x}的类别是{answer}。
                {x}（{answer}）
                {x}，类别：{answer}
                {answer}：{x}
            """,
        ),
    ]


def colours() -> list[Skill]:
    """Naming the colour of a thing, in English and Chinese."""
    coloured = [noun for noun in NOUNS if noun.colour]
    return [
        knowledge(
            "colour",
            "en",
            ((noun.en, noun.colour) for noun in coloured),
            asks=r"""
                What colour is {x}?
                Which colour does {x} have?
                What is the colour of {x}?
                Name the colour of {x}.
                Name the colour.\n{x}
                Which colour is this?\n{x}
                colour of {x}
                Say the colour of "{x}".
            """,
            new_asks=r"""
                Tell me the usual colour of {x}.
                What colour is this thing?\n{x}
                In which colour would you paint {x}?
            """,
            states=r"""
                The colour of {x} is {answer}.
                {x} is {answer} in colour.
                {x}, colour = {answer}
                {answer} like {x}
                {x} ({answer})
                The {x} is {answer}.
            """,
            weight=0.8,
        ),
        knowledge(
            "colour",
            "zh",
            ((noun.zh, lexicon.COLOURS[noun.colour]) for noun in coloured),
            asks=r"""
                {x}是什么颜色？
                {x}的颜色是什么？
                {x}是哪种颜色的？
                说出{x}的颜色。
                说出颜色：{x}
                什么颜色？\n{x}
                请写出颜色。\n{x}
                “{x}”的颜色？
            """,
            new_asks=r"""
                请告诉我{x}是什么颜色的。
                下面的东西是什么颜色？\n{x}
                画{x}要用什么颜色？
            """,
            states=r"""
                {x}是{answer}的。
                {x}的颜色是{answer}。
                {answer}的{x}
                {x}，颜色：{answer}
                {x}（{answer}）
                像{x}一样的{answer}
            """,
            weight=0.8,
        ),
    ]


# The categories whose plurals are asked for; all of their nouns have one.
_COUNTED = ("animal", "fruit", "vegetable", "clothing", "furniture", "tool")


def counting_words() -> list[Skill]:
    """Giving the plural of an English noun, and the measure word of a Chinese one."""
    return [
        knowledge(
            "plural",
            "en",
            ((noun.en, noun.plural) for noun in NOUNS if noun.category in _COUNTED),
            asks=r"""
                What is the plural of {x}?
                Give the plural of {x}.
                One {x}, two what?
                Write the plural.\n{x}
                Plural form of this word:\n{x}
                plural of {x}
                How do you write more than one {x}?
                Put "{x}" into the plural.
            """,
            new_asks=r"""
                Tell me the plural of the word {x}.
                What is the plural form of this noun?\n{x}
                If there are many, what do you call {x}?
            """,
            states=r"""
                The plural of {x} is {answer}.
                One {x}, two {answer}.
                one {x}, many {answer}
                {x}, plural = {answer}
                a {x}, some {answer}
                {x} / {answer}
            """,
        ),
        knowledge(
            "measure_word",
            "zh",
            ((noun.zh, noun.measure) for noun in NOUNS),
            asks=r"""
                {x}的量词是什么？
                {x}用什么量词？
                一什么{x}？
                写出{x}的量词。
                量词：{x}
                请写出量词。\n{x}
                用哪个量词？\n{x}
                “{x}”前面用什么量词？
            """,
            new_asks=r"""
                请告诉我{x}的量词。
                给下面的名词选一个量词。\n{x}
                数{x}的时候用什么量词？
            """,
            states=r"""
                {x}的量词是{answer}。
                一{answer}{x}
                两{answer}{x}
                三{answer}{x}
                {x}，量词：{answer}
                {x}用量词“{answer}”。
                这{answer}{x}和那{answer}{x}
            """,
        ),
    ]


def homes() -> list[Skill]:
    """Saying where an animal lives, in English and Chinese."""
    housed = [noun for noun in NOUNS if noun.home]
    return [
        knowledge(
            "home",
            "en",
            ((noun.en, noun.home) for noun in housed),
            asks=r"""
                Where does the {x} live?
                What is the home of the {x}?
                In what does a {x} live?
                Name the home of the {x}.
                Where does this animal live?\n{x}
                Name its home.\n{x}
                home of the {x}
                Where do you find a {x}?
            """,
            new_asks=r"""
                Tell me where the {x} lives.
                What is this animal's home?\n{x}
                Where is a {x} at home?
            """,
            states=r"""
                The {x} lives in the {answer}.
                The home of the {x} is the {answer}.
                {x}, home = {answer}
                A {x} in its {answer}
                In the {answer} lives a {x}.
            """,
            weight=0.6,
        ),
        knowledge(
            "home",
            "zh",
            ((noun.zh, lexicon.HOMES[noun.home]) for noun in housed),
            asks=r"""
                {x}住在哪里？
                {x}的家在哪里？
                {x}住在什么地方？
                说出{x}的家。
                家在哪里？\n{x}
                这种动物住在哪里？\n{x}
                “{x}”的家是什么？
                在哪里能找到{x}？
            """,
            new_asks=r"""
                请告诉我{x}住在哪儿。
                下面的动物家在哪里？\n{x}
                {x}回家要去哪里？
            """,
            states=r"""
                {x}住在{answer}里。
                {x}的家是{answer}。
                {x}，家：{answer}
                {answer}里住着{x}。
                {answer}是{x}的家。
            """,
            weight=0.6,
        ),
    ]


def successors() -> list[Skill]:
    """Saying what comes next in an order or after a number, in English and Chinese."""
    numbers = [(str(n), str(n + 1)) for n in range(lexicon.COUNTED_TO)]

    def following(orders: tuple[tuple[str, ...], ...]) -> list[tuple[str, str]]:
        return [(a, b) for row in orders for a, b in zip(row, row[1:] + row[:1], strict=True)]

    return [
        knowledge(
            "next",
            "en",
            following(lexicon.ORDERS_EN) + numbers,
            asks=r"""
                What comes after {x}?
                What is next after {x}?
                What follows {x}?
                After {x} comes what?
                Name the next one.\n{x}
                What comes next?\n{x}
                next after {x}
                Which one follows "{x}"?
            """,
            new_asks=r"""
                Tell me what comes right after {x}.
                Continue with the next one.\n{x}
                Which is the next one after {x}?
            """,
            states=r"""
                After {x} comes {answer}.
                {x}, {answer}
                {answer} follows {x}.
                First {x}, then {answer}.
                {x}, next = {answer}
                {answer} is after {x}.
            """,
        ),
        knowledge(
            "next",
            "zh",
            following(lexicon.ORDERS_ZH) + numbers,
            asks=r"""
                {x}后面是什么？
                {x}之后是什么？
                {x}的下一个是什么？
                {x}过后是什么？
                说出下一个。\n{x}
                下一个是什么？\n{x}
                写出下一个：{x}
                “{x}”的后面是哪一个？
            """,
            new_asks=r"""
                请告诉我{x}的下一个。
                接下来是哪一个？\n{x}
                紧跟在{x}后面的是什么？
            """,
            states=r"""
                {x}后面是{answer}。
                {x}、{answer}
                {x}之后是{answer}。
                先是{x}，再是{answer}。
                {x}的下一个是{answer}。
                {answer}在{x}的后面。
            """,
        ),
    ]
