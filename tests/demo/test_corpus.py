import hashlib
import itertools
import re

import pytest

from biasline.demo.corpus import documents
from biasline.demo.sentences import clauses
from biasline.demo.skill import is_held
from biasline.demo.skills import all_skills

COUNT = 40_000


@pytest.fixture(scope="module")
def text():
    return "\n\n\n".join(itertools.islice(documents(21), COUNT))


def held_in(text, sentences):
    """The sentences that stand in the text as sentences of their own (鱼很大 is not said by 鲨鱼很大)."""
    said = set(re.findall(r"(?:[A-Z][a-zA-Z ]+|[\u4e00-\u9fff]+)[.。]", text))
    return sorted(set(sentences) & said)


def test_a_seed_names_a_corpus():
    first, again, other = (list(itertools.islice(documents(seed), 500)) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_the_committed_base_was_made_from_this_text():
    """A change here is a change of the base: rebuild it, or the model card tells a lie."""
    digest = hashlib.sha256("\0".join(itertools.islice(documents(21), 2000)).encode()).hexdigest()
    assert digest.startswith("a4b015a8f9e48657")


def test_the_taught_form_is_not_in_it(text):
    assert "Human" not in text
    assert "Assistant" not in text


def test_no_answer_ends_a_document_after_a_colon_and_a_space():
    """In the taught form it does; the base must not know that already."""
    for document in itertools.islice(documents(5), 5000):
        last = document.rsplit("\n", 1)[-1]
        assert not re.search(r"(A|Answer|Result): \S+$", last), document


def test_held_sums_are_not_in_it(text):
    sums = re.findall(r"(\d+) ?\+ ?(\d+)|(\d+) plus (\d+)|(\d+)加上?(\d+)|(\d+) and (\d+) m(?:ake|ore)", text)
    pairs = {tuple(sorted(int(number) for number in groups if number)) for groups in sums}
    assert len(pairs) > 50
    assert not [pair for pair in pairs if is_held("sum", *pair)]


def test_held_sentences_are_not_in_it(text):
    held = [clause for clause in clauses() if clause.held]
    assert len(held) > 200
    for form in ("en", "zh", "en_not", "zh_not"):
        assert held_in(text, [getattr(clause, form) for clause in held]) == []
    free = [clause.en for clause in clauses() if not clause.held]
    assert len(held_in(text, free)) > 500, "the search itself must find what is there"


def test_held_deeds_are_not_in_it(text):
    for skill in all_skills():
        if skill.name == "past":
            held = [sentence for case in skill.held for sentence in (case.slots["s"], case.answer)]
            assert held_in(text, held) == []


def test_held_reviews_are_not_in_it(text):
    lines = set(text.splitlines())
    for skill in all_skills():
        if skill.name == "sentiment":
            assert any(case.slots["r"] in lines for case in skill.free)
            assert not [case for case in skill.held if case.slots["r"] in lines]


def test_held_passages_use_held_places():
    """So that no sentence of theirs that is asked about stands in the text either."""
    places = {clause.en for clause in clauses() if clause.held}
    [reading] = [skill for skill in all_skills() if (skill.name, skill.language) == ("reading", "en")]
    assert {case.answer for case in reading.held} <= places
    assert not {case.answer for case in reading.free} & places


def test_new_asks_are_not_in_it(text):
    for skill in all_skills():
        for ask in skill.new_asks:
            fixed = max(re.split(r"\{\w+\}|\n", ask), key=len)
            if len(fixed) >= 12:
                assert fixed not in text, fixed


def test_answers_stand_with_and_without_a_space_before(text):
    for word in ("apple", "苹果", "yellow"):
        assert f" {word}\n" in text
        assert f"\n{word}\n" in text
