"""Text as it grows: all pieces together are the whole answer, whatever comes when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from biasline.serving.engine.text import TextStream


@pytest.fixture(scope="module")
def encode(demo_tokenizer):
    return lambda text: demo_tokenizer(text, add_special_tokens=False).input_ids


def streamed(tokenizer, ids, ends=frozenset(), stops=()):
    stream = TextStream(tokenizer, ends, stops)
    pieces = [stream.push(token) for token in ids]
    return [*pieces, stream.finish()], stream


@pytest.mark.parametrize("text", ["The house is red.", "你好，世界 🙂🙃", "  two\n\n lines  ", "", "a" * 50])
def test_pieces_make_the_whole_text(demo_tokenizer, encode, text):
    pieces, stream = streamed(demo_tokenizer, encode(text))
    assert "".join(pieces) == stream.text == text.strip()
    assert not any("\ufffd" in piece for piece in pieces)


@given(st.text(max_size=60), st.lists(st.text(min_size=1, max_size=4), max_size=3))
def test_a_stop_ends_the_text_before_it(text, stops):
    from transformers import PreTrainedTokenizerFast

    from tests.conftest import DEMO_BASE

    global TOKENIZER
    if TOKENIZER is None:
        TOKENIZER = PreTrainedTokenizerFast.from_pretrained(str(DEMO_BASE))
    ids = TOKENIZER(text, add_special_tokens=False).input_ids
    whole = TOKENIZER.decode(ids, skip_special_tokens=True)
    # The stop that is whole first: nothing is written after it that could make another one whole.
    texts = (TOKENIZER.decode(ids[:count], skip_special_tokens=True) for count in range(1, len(ids) + 1))
    found = ([text[:place] for place in (text.find(stop) for stop in stops) if place >= 0] for text in texts)
    befores = next((found for found in found if found), [])
    pieces, stream = streamed(TOKENIZER, ids, stops=stops)
    told = "".join(pieces)
    assert told == stream.text
    if "\ufffd" in whole or "\ufffd" in "".join(stops):
        return
    assert stream.stopped == bool(befores)
    assert told == min(befores or [whole], key=len).strip()


def test_the_stop_that_is_whole_first_ends_it(demo_tokenizer, encode):
    pieces, stream = streamed(demo_tokenizer, encode("0Q0"), stops=["Q", "0Q0"])
    assert stream.stopped and "".join(pieces) == "0"


TOKENIZER = None


def test_tokens_behind_the_end_are_not_told(demo_tokenizer, encode):
    ids = encode("one two")
    pieces, _ = streamed(demo_tokenizer, [*ids, 2], ends=frozenset({2}))
    assert "".join(pieces) == "one two"


def test_half_a_stop_waits_and_comes_when_it_is_none(demo_tokenizer, encode):
    stream = TextStream(demo_tokenizer, stops=["red!"])
    told = [stream.push(token) for token in encode("a red")]
    assert "".join(told) == "a"
    assert stream.push(encode(".")[0]) == " red."


def test_white_space_at_the_ends_stays_where_it_is_asked_for(demo_tokenizer, encode):
    stream = TextStream(demo_tokenizer, strip=False)
    text = "\n one\n\n"
    assert "".join([*(stream.push(token) for token in encode(text)), stream.finish()]) == demo_tokenizer.decode(
        encode(text)
    )
    early = TextStream(demo_tokenizer, stops=["\n\n"])
    told = [early.push(token) for token in encode("\n\n one")]
    assert early.stopped and "".join(told) == ""
