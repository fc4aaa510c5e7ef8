"""Words in tokens: which token is whose, where rows are cut, what is shown."""

from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from biasline.tokens.saved import IGNORED
from biasline.tokens.words import WordEncoder, encode_words, show_tagged, tag_names, takes_spaces, words_of

_ = IGNORED


def wordpiece():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ada", "left", "os", "##lo", ".", "side", "by", "stand", "words"]
    inner = Tokenizer(models.WordPiece({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer()
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    inner.decoder = decoders.WordPiece()
    names = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **names)


def sentencepiece(scheme):
    pieces = [("<unk>", 0.0), ("▁", -5.0), *((f"▁{word}", -2.0) for word in ("Words", "stand", "side", "by"))]
    pieces += [(letter, -4.0) for letter in "abcdefghijklmnopqrstuvwxyzW"]
    inner = Tokenizer(models.Unigram(pieces, unk_id=0))
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")


def byte_level(prefix):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({char: place for place, char in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def test_words_are_given_as_in_running_text(demo_tokenizer):
    assert takes_spaces(byte_level(False)) and takes_spaces(demo_tokenizer)
    assert not takes_spaces(byte_level(True)) and not takes_spaces(wordpiece())
    assert not takes_spaces(sentencepiece("always"))
    for tokenizer in (byte_level(False), byte_level(True), sentencepiece("always"), sentencepiece("first")):
        [[found]] = WordEncoder(tokenizer, 64, False)([["Words", "by", "side"]])
        assert found.inputs["input_ids"] == tokenizer("Words by side").input_ids


def test_the_first_token_of_a_word_has_its_tag():
    encoder = WordEncoder(wordpiece(), 16, True)
    frame = pl.DataFrame({"row": [3], "text": ["Ada left Oslo ."], "tags": ["B-PER O B-LOC O"]})
    found = encode_words(encoder, ["O", "B-LOC", "B-PER"], frame).table.to_pylist()
    assert found == [
        {
            "row": 3,
            "input_ids": [2, 4, 5, 6, 7, 8, 3],
            "token_type_ids": [0] * 7,
            "labels": [_, 2, 0, 1, _, 0, _],
        }
    ]
    assert show_tagged(wordpiece(), ["O", "B-LOC", "B-PER"], found[0]) == "[CLS] ada/B-PER left/O oslo/B-LOC ./O [SEP]"


@pytest.mark.parametrize(
    ("longest", "ids", "first"),
    [
        (7, [[2, 4, 5, 6, 7, 8, 3]], [{0: 1, 1: 2, 2: 3, 3: 5}]),
        (6, [[2, 4, 5, 6, 7, 3], [2, 8, 3]], [{0: 1, 1: 2, 2: 3}, {3: 1}]),
        (5, [[2, 4, 5, 3], [2, 6, 7, 8, 3]], [{0: 1, 1: 2}, {2: 1, 3: 3}]),
        (3, [[2, 4, 3], [2, 5, 3], [2, 6, 3], [2, 8, 3]], [{0: 1}, {1: 1}, {2: 1}, {3: 1}]),
    ],
)
def test_a_long_row_takes_windows_of_whole_words(longest, ids, first):
    [found] = WordEncoder(wordpiece(), longest, False)([["Ada", "left", "Oslo", "."]])
    assert [window.inputs["input_ids"] for window in found] == ids
    assert [window.first for window in found] == first


def test_windows_overlap_and_each_word_is_told_where_more_stands_around_it():
    [found] = WordEncoder(wordpiece(), 10, False)([["side"] * 20])  # 8 of 20 words, 2 of them again
    assert [[*window.first] for window in found] == [[*range(8)], [*range(6, 14)], [*range(12, 20)]]
    assert [window.told for window in found] == [[*range(7)], [*range(7, 13)], [*range(13, 20)]]


@given(st.integers(3, 24), st.lists(st.sampled_from(["ada", "oslo", ".", "\u200b", "os" + "lo" * 9]), min_size=1))
def test_each_word_with_a_token_is_told_once_within_the_length(longest, words):
    [found] = WordEncoder(wordpiece(), longest, False)([words])
    told = [word for window in found for word in window.told]
    assert told == [number for number, word in enumerate(words) if word != "\u200b"]
    assert all(len(window.inputs["input_ids"]) <= longest and {*window.told} <= {*window.first} for window in found)


def test_of_a_word_that_is_too_long_by_itself_a_part_is_left():
    [found] = WordEncoder(wordpiece(), 3, False)([["Oslo", "."]])
    assert [window.inputs["input_ids"] for window in found] == [[2, 6, 3], [2, 8, 3]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I live in Berlin, Germany.", ["I", "live", "in", "Berlin", ",", "Germany", "."]),
        (
            'the U.S. army ("GI"), 3.5 don\'t Jean-Paul',
            ["the", "U.S.", "army", "(", '"', "GI", '"', ")", ",", "3.5", "don't", "Jean-Paul"],
        ),
        ("我在北京 3天", ["我", "在", "北", "京", "3", "天"]),
        ("हिन्दी में।", ["हिन्दी", "में", "।"]),
        ("Apple，Google、2020，a:1,5;b", ["Apple", "，", "Google", "、", "2020", "，", "a:1,5", ";", "b"]),
        ("  ...\tx\n", [".", ".", ".", "x"]),
        ("😀 a@b.de ", ["😀", "a@b.de"]),
    ],
)
def test_the_words_of_running_text(text, words):
    found = words_of(text)
    assert [word for word, _, _ in found] == words
    assert [text[start:end] for _, start, end in found] == words


def test_a_word_without_a_token_has_no_label_and_is_counted():
    frame = pl.DataFrame({"row": [1, 2], "text": ["ada \u200b left", "\u200b"], "tags": ["B-PER O O", "O"]})
    found = encode_words(WordEncoder(wordpiece(), 16, False), ["O", "B-PER"], frame)
    assert found.table["labels"].to_pylist() == [[_, 1, 0, _]] and found.rejected == [2]
    assert {name: counts.tolist() for name, counts in found.counts.items()} == {
        "words_without_token": [1],
        "words_cut_off": [0],
    }


def test_words_behind_the_end_are_counted():
    frame = pl.DataFrame({"row": [1], "text": ["ada left oslo ."], "tags": ["B-PER O O O"]})
    found = encode_words(WordEncoder(wordpiece(), 4, False), ["O", "B-PER"], frame)
    assert found.counts["words_cut_off"].tolist() == [2] and found.cut.tolist() == [True]


def test_the_names_of_tags():
    assert tag_names((), ["B-PER I-PER", "B-LOC O"]) == ["O", "B-LOC", "B-PER", "I-PER"]
    assert tag_names(("B-X", "O"), ["O"]) == ["B-X", "O"]


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=("Z", "C")), min_size=1), min_size=1))
def test_each_word_of_a_byte_level_tokenizer_has_its_own_tokens(words):
    words = [word for word in words if word.split() == [word]] or ["x"]
    tokenizer = byte_level(False)
    [[found]] = WordEncoder(tokenizer, 10_000, False)([words])
    starts = [*found.first.values(), len(found.inputs["input_ids"])]
    parts = [tokenizer.decode(found.inputs["input_ids"][a:b]) for a, b in pairwise(starts)]
    assert all(len(part) > 0 for part in parts) and starts == sorted(set(starts)) and starts[0] == 0
    assert len(found.inputs["input_ids"]) == len(" ".join(words).encode())
