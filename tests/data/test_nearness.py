import random

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biasline.data import nearness

LONG = (
    "On a cold morning the old clock in the tower struck seven while the baker carried two trays of warm bread across "
    "the square and a dog slept under the only bench that the sun had found so early in the year."
)


def changed(text, words, seed=0):
    """The same with some of its words replaced."""
    parts, choice = text.split(), random.Random(seed)
    for place in choice.sample(range(len(parts)), words):
        parts[place] = f"word{place}"
    return " ".join(parts)


def near_duplicates(texts, threshold, parts=None):
    return nearness.near_duplicates(
        pl.Series(texts, dtype=pl.String), threshold, None if parts is None else pl.Series(parts)
    )


def test_a_long_text_with_a_word_changed_is_near_and_one_with_many_is_not():
    texts = [LONG, changed(LONG, 1), changed(LONG, 12), LONG.upper() + "!!"]
    assert near_duplicates(texts, 0.8) == {1: 0, 3: 0}
    assert near_duplicates(texts, 0.99) == {3: 0}


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        ("24小时有多少分钟？", "24 小时有多少分钟？", True),
        ("What is love?", "what is love", True),
        ("Ｗｈａｔ ｉｓ ｌｏｖｅ", "What is love", True),
        ("9+5=?", "9-5=?", False),
        ("What is 1.5?", "What is 15?", False),
        ("What is love?", "What is life?", False),
        ("?", "!", False),
    ],
)
def test_short_texts_are_near_where_only_marks_differ(one, other, near):
    assert near_duplicates([one, other], 0.8) == ({1: 0} if near else {})


def test_texts_are_held_against_those_of_earlier_parts_only():
    held_out = [LONG, "What is love?", changed(LONG, 1, seed=3)]
    texts = ["Say hello", "say hello!", changed(LONG, 1), changed(LONG, 1, seed=2), "what is love"]
    assert near_duplicates(held_out + texts, 0.8, [0] * 3 + [1] * 5) == {5: 0, 6: 0, 7: 1}


def test_what_is_found_does_not_depend_on_the_chunks(monkeypatch):
    texts = [changed(LONG, words, seed) for seed in range(20) for words in (0, 1, 8, 20)] + ["so", "so!", ""] * 9
    whole = near_duplicates(texts, 0.8)
    monkeypatch.setattr(nearness, "_CHUNK", 7)
    assert near_duplicates(texts, 0.8) == whole
    assert near_duplicates([], 0.8) == {}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=12), max_size=12))
def test_every_repetition_points_at_an_earlier_text_that_is_none(texts):
    found = near_duplicates(texts, 0.8)
    assert all(earlier < index and earlier not in found for index, earlier in found.items())
    assert near_duplicates(texts, 0.8) == found


def test_planted_copies_are_found_among_thousands():
    choice = random.Random(0)
    words = [f"w{n}" for n in range(500)]
    texts = [" ".join(choice.choices(words, k=60)) for _ in range(3000)]
    planted = {3000 + place: origin for place, origin in enumerate(range(0, 3000, 30))}
    texts += [changed(texts[origin], 2, seed=origin) for origin in planted.values()]
    found = near_duplicates(texts, 0.8)
    assert set(found) <= set(planted)
    assert len(found) >= 0.95 * len(planted)
    assert all(planted[index] == earlier for index, earlier in found.items())


def test_shorter_texts_are_held_against_held_out_ones_too_unless_their_numbers_differ():
    held_out = "a stylish and moody film of fourteen slow words that ends well at last"
    texts = [held_out, held_out + " and", held_out.replace("well", "badly"), "so " + held_out]
    assert near_duplicates(texts, 0.8, [0, 1, 1, 1]) == {1: 0, 3: 0}
    assert near_duplicates(texts, 0.8) == {}
    numbered = "take 3 of the red apples out of the big bag and give me 4"
    assert near_duplicates([numbered, numbered[:-1] + "5", numbered + " please"], 0.8, [0, 1, 1]) == {2: 0}
    assert near_duplicates([numbered, numbered + " 5"], 0.8, [0, 1]) == {}
    plain = " ".join(LONG.split()[:31])
    assert near_duplicates([plain, plain.rsplit(" ", 2)[0]], 0.8, [0, 1]) == {1: 0}


def test_copies_are_found_whatever_the_threshold_among_templated_rows():
    """Four hundred words in common and thirteen of their own: buckets are full of rows that are no copies."""
    choice = random.Random(1)
    preamble = " ".join(choice.choices([f"p{n}" for n in range(300)], k=400))
    held_out = [preamble + " " + " ".join(choice.choices([f"v{n}" for n in range(400)], k=13)) for _ in range(200)]
    order = choice.sample(range(200), 200)
    found = near_duplicates(held_out + [held_out[n].upper() for n in order], 0.99, [0] * 200 + [1] * 200)
    assert found == {200 + place: origin for place, origin in enumerate(order)}


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        ("on day 3 alpha out", "on day 3 alpha out!", True),
        ("What is C++?", "What is C#?", False),
        ("ok 😀", "ok 😡", False),
        ("ok 😀", "OK 😀.", True),
    ],
)
def test_marks_count_beside_digits_and_symbols_always(one, other, near):
    assert near_duplicates([one, other], 0.8) == ({1: 0} if near else {})


@pytest.mark.parametrize(
    ("asked", "one", "other"),
    [
        ("Translate the following English word into French and answer with one word only: ", "cat", "dog"),
        ("Work this sum out in your head and give just the number, nothing else: ", "9+5", "9-5"),
        ("Tell in one short sentence who it was that made the programming language ", "C++", "C#"),
    ],
)
def test_rows_of_one_template_are_no_leaks(asked, one, other):
    assert near_duplicates([asked + one, asked + other], 0.8, [0, 1]) == {}
    assert near_duplicates([asked + one, asked.upper() + one], 0.8, [0, 1]) == {1: 0}
