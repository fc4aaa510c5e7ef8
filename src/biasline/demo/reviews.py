"""The skill of telling a kind review from an unkind one."""

from __future__ import annotations

import random
import re

from biasline.demo import lexicon
from biasline.demo.skill import Case, Skill, capitalised, combined, is_held, lines

_REVIEWS_EN = lines("""
    The {s} was {w}.
    The {s} is really {w}.
    A very {w} {s}.
    What {aw} {s}!
    I think the {s} is {w}.
    {W}, {aw} {s}.
    The {s} was so {w}, {end}
    {W} {s}, {end}
    We found the {s} very {w}.
    My friend says the {s} is {w}, {end}
    I read about this {s} last week. It is {w}.
    The {s} was {w} and {v}.
    Such {aw} and {v} {s}!
    It is {aw} {s}. {End}
""")
_ENDS_EN = (
    lines("""
        I loved it.
        I will come again.
        I am happy with it.
        well done!
        thank you!
        everyone should try it.
        five stars.
        I can recommend it.
        worth every penny.
    """),
    lines("""
        I hated it.
        I will never come again.
        I want my money back.
        never again!
        what a waste of time!
        nobody should try it.
        one star.
        I cannot recommend it.
        not worth the money.
    """),
)
_REVIEWS_ZH = lines("""
    这{m}{s}很{w}。
    这{m}{s}真{w}！
    {s}太{w}了。
    {s}非常{w}，{end}
    我觉得{s}很{w}。
    {w}的{s}！
    真是一{m}{w}的{s}，{end}
    朋友说这{m}{s}很{w}。
    {s}{w}，{end}
    上周看到这{m}{s}，感觉{w}。
    {s}又{w}又{v}。
    {s}特别{w}，也很{v}，{end}
    {w}，{end}
""")
_ENDS_ZH = (
    lines("""
        我很喜欢。
        下次还会来。
        非常满意。
        值得推荐。
        五星好评！
        谢谢！
        大家都应该试试。
        物有所值。
        没有白来。
    """),
    lines("""
        我很讨厌。
        再也不来了。
        非常失望。
        不推荐。
        给一星差评！
        我要退钱。
        大家千万别试。
        浪费时间。
        白花钱了。
    """),
)


def _with_article(adjective: str) -> str:
    article = "an" if re.match("[aeio]|un|ug|hon", adjective) else "a"
    return f"{article} {adjective}"


def _reviews(language: str) -> list[tuple[bool, Case]]:
    """Reviews of a line or two, held or free by their subject and first word of judgement.

    A sixth of them deny the contrary ("not good"), so that the tone is more than the mood of one word.
    """
    english = language == "en"
    rng = random.Random(11)
    words = (lexicon.GOOD_EN, lexicon.BAD_EN) if english else (lexicon.GOOD_ZH, lexicon.BAD_ZH)
    ends = _ENDS_EN if english else _ENDS_ZH
    labels = ("positive", "negative") if english else ("正面", "负面")
    cases: dict[str, tuple[bool, Case]] = {}
    while len(cases) < 9000:
        subject_en, subject_zh, measure = rng.choice(lexicon.REVIEWED)
        subject = subject_en if english else subject_zh
        tone = rng.randrange(2)
        denied = rng.random() < 1 / 6
        word, second = rng.sample(words[1 - tone if denied else tone], 2)
        end = rng.choice(ends[tone])
        if denied:
            said = f"The {subject} was not {word}. " if english else f"这{measure}{subject}一点也不{word}。"
            text = (said + rng.choice(("", capitalised(end)))).strip()
        else:
            text = rng.choice(_REVIEWS_EN if english else _REVIEWS_ZH).format(
                s=subject,
                m=measure,
                w=word,
                v=second,
                end=end,
                W=capitalised(word),
                aw=_with_article(word),
                End=capitalised(end),
            )
        closing = capitalised(rng.choice(ends[tone]))
        cases.setdefault(
            text,
            (
                is_held("review", subject_en, word),
                Case({"r": text, "closing": closing, "stars": str(5 - 4 * tone)}, labels[tone]),
            ),
        )
    return list(cases.values())


def sentiments() -> list[Skill]:
    """Telling whether a review is positive or negative, in English and Chinese."""
    return [
        combined(
            "sentiment",
            "en",
            _reviews("en"),
            asks=r"""
                Is this review positive or negative?\n{r}
                What is the sentiment of this review?\n{r}
                {r} Is that positive or negative?
                Sentiment of the review: {r}
                Name the sentiment.\n{r}
                Positive or negative?\n{r}
                {r}\nIs the writer positive or negative?
            """,
            new_asks=r"""
                Decide whether the review is positive or negative.\n{r}
                Classify the sentiment of the text.\n{r}
            """,
            states=r"""
                {r} The review is {answer}.
                {r} That is {answer}.
                {r} ({answer})
                {answer}: {r}
                {r} {closing}
                {closing} {r}
                {r} Stars: {stars}
            """,
            weight=1.8,
        ),
        combined(
            "sentiment",
            "zh",
            _reviews("zh"),
            asks=r"""
                这条评论是正面还是负面？\n{r}
                这条评论的情感是什么？\n{r}
                {r}这是正面还是负面？
                判断情感：{r}
                说出评论的情感。\n{r}
                正面还是负面？\n{r}
                {r}\n作者的态度是正面还是负面？
            """,
            new_asks=r"""
                请判断下面的评论是正面还是负面。\n{r}
                给这段文字做情感分类。\n{r}
            """,
            states=r"""
                {r}这条评论是{answer}的。
                {r}这是{answer}的。
                {r}（{answer}）
                {answer}：{r}
                {r}{closing}
                {closing}{r}
                {r}星级：{stars}
            """,
            weight=1.8,
        ),
    ]
