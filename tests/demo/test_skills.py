from string import Formatter

import pytest

from biasline.demo.skill import HELD_SHARE, is_held
from biasline.demo.skills import all_skills


def named(name, language):
    [skill] = [skill for skill in all_skills() if (skill.name, skill.language) == (name, language)]
    return skill


def answer(skill, **slots):
    [found] = {case.answer for case in skill.free + skill.held if case.slots == slots}
    return found


def test_there_are_ten_skills_and_more_in_either_language():
    assert len({skill.name for skill in all_skills() if skill.language == "en"}) >= 10
    assert len({skill.name for skill in all_skills() if skill.language == "zh"}) >= 10


@pytest.mark.parametrize(
    ("name", "language", "slots", "expected"),
    [
        ("translate_en_zh", "en", {"x": "apple"}, "苹果"),
        ("translate_zh_en", "zh", {"x": "苹果"}, "apple"),
        ("antonym", "en", {"x": "big"}, "small"),
        ("antonym", "zh", {"x": "小"}, "大"),
        ("category", "zh", {"x": "苹果"}, "水果"),
        ("colour", "en", {"x": "banana"}, "yellow"),
        ("plural", "en", {"x": "wolf"}, "wolves"),
        ("measure_word", "zh", {"x": "马"}, "匹"),
        ("home", "en", {"x": "bee"}, "hive"),
        ("next", "zh", {"x": "星期日"}, "星期一"),
        ("sum", "en", {"a": "12", "b": "9"}, "21"),
        ("compare", "zh", {"a": "7", "b": "12"}, "12"),
        ("negation", "en", {"s": "They like bats."}, "They do not like bats."),
        ("negation", "zh", {"s": "猫在厨房里。"}, "猫不在厨房里。"),
        ("translate_sentence", "en", {"s": "The cat is big."}, "猫很大。"),
        ("past", "en", {"s": "Today I eat the apple."}, "Yesterday I ate the apple."),
        ("past", "zh", {"s": "今天我吃苹果。"}, "昨天我吃了苹果。"),
    ],
)
def test_answers(name, language, slots, expected):
    assert answer(named(name, language), **slots) == expected


def test_a_passage_contains_its_answer():
    for language in ("en", "zh"):
        for case in named("reading", language).free[:200]:
            assert case.answer in case.slots["p"]
            assert case.slots["x"] in case.answer


def test_reviews_lean_to_neither_side():
    for language, kind in (("en", "positive"), ("zh", "正面")):
        cases = named("sentiment", language).free
        assert 0.45 < sum(case.answer == kind for case in cases) / len(cases) < 0.55


def test_every_template_can_be_filled():
    for skill in all_skills():
        blanks = {*skill.free[0].slots, "answer"}
        for template in skill.asks + skill.new_asks + skill.states:
            assert {name for _, name, _, _ in Formatter().parse(template) if name is not None} <= blanks
        assert all("{answer}" not in ask for ask in skill.asks + skill.new_asks)


def test_new_asks_are_new():
    for skill in all_skills():
        assert skill.new_asks
        assert not set(skill.new_asks) & set(skill.asks)


def test_held_is_a_fixed_share_that_never_moves():
    held = [n for n in range(4000) if is_held("some", n)]
    assert len(held) / 4000 == pytest.approx(HELD_SHARE, abs=0.02)
    assert held[:5] == [7, 23, 26, 29, 37]


@pytest.mark.parametrize("name", ["sum", "compare", "negation", "translate_sentence", "past", "reading", "sentiment"])
def test_what_can_be_worked_out_is_partly_held(name):
    for skill in all_skills():
        if skill.name == name:
            assert 0.15 < len(skill.held) / len(skill.held + skill.free) < 0.4
            assert not {str(case.slots) for case in skill.held} & {str(case.slots) for case in skill.free}
