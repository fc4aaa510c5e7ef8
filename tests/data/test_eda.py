import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from biasline.data.eda import OPERATIONS, changed, read_synonyms, segment
from biasline.errors import BiaslineError

SYNONYMS = {"film": ["movie", "picture"], "good": ["fine"], "电影": ["影片"]}
TEXT = "The film was good, and the long evening ended well."


def words(text):
    return [piece for piece in segment(text) if piece[0].isalnum()]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("It's a well-made film!", ["It's", " ", "a", " ", "well-made", " ", "film", "!"]),
        ("今天天气不错", ["今天天气", "不错"]),
        ("我爱GPT-2，真的\n", ["我", "爱", "GPT-2", "，", "真的", "\n"]),
        ("", []),
    ],
)
def test_words_and_what_stands_between(text, pieces):
    assert segment(text) == pieces


def test_swapping_keeps_every_word():
    found = changed(TEXT, 0.2, ["swap"], {}, random.Random(0))
    assert found != TEXT and Counter(words(found)) == Counter(words(TEXT))
    assert [piece for piece in segment(found) if not piece[0].isalnum()] == [
        piece for piece in segment(TEXT) if not piece[0].isalnum()
    ]


def test_deleting_takes_a_share_of_the_words_with_a_space_each():
    found = changed(TEXT, 0.2, ["delete"], {}, random.Random(0))
    assert len(words(found)) == len(words(TEXT)) - 2
    assert not Counter(words(found)) - Counter(words(TEXT)) and "  " not in found


def test_synonyms_take_a_words_place_or_stand_beside_another():
    assert changed("Film after film is shown", 0.9, ["replace"], {"film": ["movie"]}, random.Random(0)) == (
        "Movie after movie is shown"
    )
    assert changed("这部电影很长", 0.2, ["replace"], SYNONYMS, random.Random(0)) == "这部影片很长"
    found = changed(TEXT, 0.1, ["insert"], SYNONYMS, random.Random(1))
    [new] = (Counter(words(found)) - Counter(words(TEXT))).elements()
    assert new in ("movie", "picture", "fine")
    found = changed("这部电影很长", 0.2, ["insert"], SYNONYMS, random.Random(0))
    assert found.replace("影片", "", 1) == "这部电影很长"


def test_negations_and_numbers_are_never_touched():
    text = "I do not like 12 of these 3 films, and never will"
    for seed in range(40):
        for operation in ("swap", "delete"):
            found = words(changed(text, 0.5, [operation], {}, random.Random(seed)))
            assert [word for word in found if word in ("not", "12", "3", "never")] == ["not", "12", "3", "never"]


@pytest.mark.parametrize("text", ["", "Good", "Good film", "1 2 3 4", "?!"])
def test_what_has_too_few_words_is_left_alone(text):
    assert changed(text, 0.5, list(OPERATIONS), SYNONYMS, random.Random(0)) is None


def test_what_needs_a_synonym_and_has_none_is_left_alone():
    assert changed(TEXT, 0.5, ["replace", "insert"], {"car": ["auto"]}, random.Random(0)) is None


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.floats(0.01, 0.9), st.integers(0, 9))
def test_any_text_is_changed_or_left_alone_and_alike_each_time(text, share, seed):
    assert "".join(segment(text)) == text
    one, two = (changed(text, share, OPERATIONS, SYNONYMS, random.Random(seed)) for _ in range(2))
    assert one == two and one != text and (one is None or one.strip())


def test_a_file_of_synonyms(tmp_path):
    path = tmp_path / "synonyms.txt"
    path.write_text("# films\nfilm, movie,picture\n\n电影，影片\nMovie\tflick\n", encoding="utf-8")
    found = read_synonyms(path)
    assert found["film"] == ["movie", "picture"]
    assert found["movie"] == ["film", "picture", "flick"]
    assert found["影片"] == ["电影"]
    path.write_text("alone\n")
    with pytest.raises(
        BiaslineError, match=r"synonyms.txt: line 1: two different words at least were expected, got 'alone'"
    ):
        read_synonyms(path)
    path.write_bytes(b"\xff, a\n")
    with pytest.raises(BiaslineError, match="cannot be read"):
        read_synonyms(path)


@pytest.mark.parametrize(
    "text",
    [
        "it does n't convince me at all",
        "i can’t say more of it",
        "you needn't see this one",
        "这部电影并非那么好看",
        "我不怎么喜欢这部电影",
    ],
)
def test_negations_stay_however_they_are_written(text):
    kept = [
        word
        for word in words(text)
        if (not word.isascii() and set(word) & set("不非")) or "n't" in word.replace("’", "'")
    ]
    assert kept
    for seed in range(60):
        found = changed(text, 0.5, ["delete"], {}, random.Random(seed))
        assert found and all(word in found for word in kept)
