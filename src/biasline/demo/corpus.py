"""The pretraining text: short documents without end, each a free case of some skill in one of many forms.

Why so many forms: bias tuning can only re-weight what the base already computes. A base that saw each fact in
one phrasing cannot be steered to another by its biases (measured: exact match stays at 0.00); one that saw
questions, statements, lists and dialogues can. The form that tuning teaches, `Human: … Assistant: …`, is
deliberately not among them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from biasline.demo.skill import Case, Skill
from biasline.demo.skills import all_skills

# How a question and its answer are laid out. Mostly the answer is the last word, so that the end token is
# learned with it; but never after a colon and a space, where tuning is to teach it.
_LAYOUTS: tuple[str, ...] = (
    "Q: {q} A: {a} Q:",
    "Q: {q}\nA: {a}\nRight.",
    "Q: {q}\n\nA:\n{a}",
    "Q:{q}\nA:{a}",
    "Question: {q}\nAnswer: {a}\n***",
    "Question: {q}\nAnswer:\n{a}",
    "Question:\n{q}\n\nAnswer:\n{a}",
    "Question: {q}\n\nAnswer:{a}",
    "{q}\n{a}",
    "{q}\n\n{a}",
    "{q} {a}",
    "{q} -> {a}",
    "{q}->{a}",
    "{q}\n=> {a}",
    "{q}\n={a}",
    "- {q}\n- {a}",
    "> {q}\n{a}",
    '"{q}"\n"{a}"',
    "“{q}”\n“{a}”",
    "[{q}]\n[{a}]",
    "({q})\n({a})",
    "<{q}>\n<{a}>",
    "{q}\t{a}",
    "{q} | {a}",
    "{q}|{a}|",
    "* {q}\n*{a}*",
    "{q}\nThe answer is:\n{a}",
    "{q}\nThe answer is {a}",
    "{q} Answer:{a}",
    "Task: {q}\nResult:\n{a}",
    "Task: {q}\n\nResult:{a}",
    "问：{q}答：{a}",
    "问：{q}\n答：{a}",
    "问题：{q}\n答案：{a}",
    "问题：{q}\n\n回答：{a}",
    "问：\n{q}\n答：\n{a}",
    "{q}答案：{a}",
    "{q}\n答案是：\n{a}",
    "题目：{q}\n\n结果：\n{a}",
)
# In a talk the answer is never the last word, unlike in the form that tuning teaches.
_TALKS: tuple[str, ...] = (
    "{one}: {q}\n{two}: {a}\n{one}: {thanks}",
    "{one}: {q}\n\n{two}: {a}\n\n{one}: {thanks}",
    "{one}:\n{q}\n\n{two}:\n{a}\n\n{one}:\n{thanks}",
    "{one}：{q}\n{two}：{a}\n{one}：{thanks}",
    "{one}：{q}\n\n{two}：{a}\n\n{one}：{thanks}",
)
# fmt: off
_SPEAKERS: tuple[str, ...] = (
    "Tom", "Anna", "Mary", "John", "Lily", "Sam", "Teacher", "Child", "Mother", "Father", "Peter",
    "小明", "小红", "老师", "学生", "妈妈", "爸爸",
)
# fmt: on
_THANKS: tuple[str, ...] = (
    "Thank you.",
    "Very good!",
    "I see.",
    "Yes, right.",
    "谢谢。",
    "很好！",
    "对。",
    "知道了。",
)


def documents(seed: int) -> Iterator[str]:
    """Yield documents without end; the same seed gives the same documents in the same order."""
    rng = random.Random(seed)
    skills = all_skills()
    weights = [skill.weight for skill in skills]
    while True:
        skill = rng.choices(skills, weights)[0]
        kind = rng.random()
        if kind < 0.50:
            yield _layout(rng, skill, rng.choice(_LAYOUTS))
        elif kind < 0.60:
            yield _talk(rng, skill)
        elif kind < 0.78:
            yield _series(rng, skill)
        else:
            yield _statements(rng, skill)


def _question(rng: random.Random, skill: Skill) -> tuple[str, str]:
    case: Case = rng.choice(skill.free)
    return rng.choice(skill.asks).format(**case.slots), case.answer


def _layout(rng: random.Random, skill: Skill, layout: str) -> str:
    question, answer = _question(rng, skill)
    return layout.format(q=question, a=answer)


def _talk(rng: random.Random, skill: Skill) -> str:
    question, answer = _question(rng, skill)
    one, two = rng.sample(_SPEAKERS, 2)
    return rng.choice(_TALKS).format(q=question, a=answer, one=one, two=two, thanks=rng.choice(_THANKS))


def _series(rng: random.Random, skill: Skill) -> str:
    """A few questions in one layout, one after the other, as on a work sheet."""
    layout = rng.choice(_LAYOUTS)
    between = rng.choice(("\n", "\n\n"))
    return between.join(_layout(rng, skill, layout) for _ in range(rng.randint(2, 3)))


def _statements(rng: random.Random, skill: Skill) -> str:
    """One to four statements; mostly all of one pattern, as in a word list."""
    count = rng.randint(1, 4)
    pattern = rng.choice(skill.states)
    same = rng.random() < 0.7
    lines = []
    for _ in range(count):
        case = rng.choice(skill.free)
        template = pattern if same else rng.choice(skill.states)
        lines.append(template.format(**case.slots, answer=case.answer))
    return rng.choice(("\n", " ")).join(lines)
