"""Exact token ids, on two real tokenizers and the demo's."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from biasline.errors import BiaslineError
from biasline.tokens.mask import IGNORED, Encoder
from biasline.tokens.template import render_prompt

PROMPT = render_prompt("human-assistant", "Say it", "twice")


def encode(tokenizer, prompt, response, length=64, long_response="reject"):
    return Encoder(tokenizer, length, long_response).examples([prompt], [response])[0]


def test_gpt2_ids_to_the_last(shared):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(shared / "tokenizers" / "gpt2"))
    example = encode(tokenizer, PROMPT, "it it")
    prompt = [20490, 25, 13816, 340, 198, 4246, 501, 198, 198, 48902, 25, 220]
    assert example.input_ids == [*prompt, 270, 340, 50256]
    assert example.labels == [IGNORED] * len(prompt) + [270, 340, 50256]


def test_a_merge_across_the_border_does_not_shift_the_mask(shared):
    """As one text, GPT-2 merges the prompt's last blank with the response's first word; the mask would be wrong."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(shared / "tokenizers" / "gpt2"))
    assert tokenizer(PROMPT + "it").input_ids[-2:] == [25, 340]
    assert encode(tokenizer, PROMPT, "it").input_ids[-4:] == [25, 220, 270, 50256]


def test_llama_gets_bos_once_in_front(shared):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(shared / "models" / "stories260k"))
    example = encode(tokenizer, "a b", "it")
    assert example.input_ids == [1, 261, 268, 312, 2]
    assert example.labels == [IGNORED, IGNORED, IGNORED, 312, 2]
    assert Encoder(tokenizer, 64).prompts(["a b"]) == [[1, 261, 268]]


def test_bert_has_nothing_to_stop_with_and_says_so(shared):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(shared / "tokenizers" / "bert-base-uncased"))
    with pytest.raises(BiaslineError, match="no end-of-sequence token"):
        Encoder(tokenizer, 64)


def test_special_tokens_in_the_text_are_text(demo_tokenizer):
    eos, pad = demo_tokenizer.eos_token_id, demo_tokenizer.pad_token_id
    example = encode(demo_tokenizer, "say </s> <pad>", "</s> no <pad>")
    assert example.input_ids.count(eos) == 1
    assert example.input_ids[-1] == eos
    assert pad not in example.input_ids
    assert demo_tokenizer.decode(example.input_ids[:-1]) == "say </s> <pad></s> no <pad>"


class Letters:
    """A tokenizer of one token per letter, so that lengths can be counted by eye; EOS is 0."""

    eos_token_id, bos_token_id = 0, None

    def __call__(self, texts, **_):
        ids = (
            [ord(letter) for letter in texts] if isinstance(texts, str) else [[ord(c) for c in text] for text in texts]
        )
        return type("Encoding", (), {"input_ids": ids})


def text_of(ids):
    return "".join(map(chr, ids))


@pytest.mark.parametrize(
    ("prompt", "response", "length", "kept_prompt", "kept_response"),
    [
        ("abcd", "xyz", 8, "abcd", "xyz"),  # fits to the last token
        ("abcd", "xyz", 7, "bcd", "xyz"),  # the prompt gives, from its left
        ("abcd", "xyz", 5, "d", "xyz"),  # a quarter of the length stays the prompt's
        ("", "xyz", 4, "", "xyz"),
    ],
)
def test_the_prompt_is_cut_first(prompt, response, length, kept_prompt, kept_response):
    example = encode(Letters(), prompt, response, length)
    assert text_of(example.input_ids[:-1]) == kept_prompt + kept_response
    assert example.labels == [IGNORED] * len(kept_prompt) + [*map(ord, kept_response), 0]


def test_a_response_over_the_limit_is_left_out_or_cut_with_its_eos():
    assert encode(Letters(), "ab", "wxyz", 5) is None
    example = encode(Letters(), "ab", "wxyz", 5, "truncate")
    assert (text_of(example.input_ids[:-1]), example.input_ids[-1]) == ("bwxy", 0)
    assert example.labels[0] == IGNORED


def test_a_response_without_a_token_is_left_out():
    assert encode(Letters(), "ab", "") is None


def test_generation_sees_the_prompt_that_training_saw():
    encoder = Encoder(Letters(), 6)
    assert text_of(encoder.prompts(["abcdefgh"])[0]) == "efgh"
    assert text_of(encoder.prompts(["abcd"])[0]) == "abcd"


@settings(max_examples=200, deadline=None)
@given(
    st.text(min_size=1, max_size=40),
    st.text(max_size=30),
    st.text(min_size=1, max_size=60),
    st.integers(8, 64),
    st.sampled_from(["reject", "truncate"]),
)
def test_mask_properties(instruction, text, response, length, policy):
    tokenizer = demo()
    prompt = render_prompt("human-assistant", instruction, text)
    example = encode(tokenizer, prompt, response, length, policy)
    whole = tokenizer(response, add_special_tokens=False, split_special_tokens=True).input_ids
    if example is None:
        assert not whole or (policy == "reject" and len(whole) + 1 > length - length // 4)
        return
    supervised = [label for label in example.labels if label != IGNORED]
    start = len(example.labels) - len(supervised)
    assert len(example.input_ids) == len(example.labels) <= length
    assert all(label == IGNORED for label in example.labels[:start])  # no prompt token is supervised
    assert example.input_ids[start:] == supervised
    assert supervised[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in example.input_ids[:-1]
    assert supervised[:-1] == whole[: len(supervised) - 1]
    if len(supervised) == len(whole) + 1:
        assert tokenizer.decode(supervised[:-1], clean_up_tokenization_spaces=False) == tokenizer.decode(
            whole, clean_up_tokenization_spaces=False
        )


_loaded: list[PreTrainedTokenizerFast] = []


def demo() -> PreTrainedTokenizerFast:
    """The demo tokenizer, loaded once: Hypothesis tests take no function-scoped fixtures."""
    from tests.conftest import DEMO_BASE

    if not _loaded:
        _loaded.append(PreTrainedTokenizerFast.from_pretrained(str(DEMO_BASE)))
    return _loaded[0]
