import pytest
from transformers import PreTrainedTokenizerFast

from biasline.errors import BiaslineError
from biasline.tokens.texts import TextEncoder, label_names, label_numbers


@pytest.fixture
def bert(shared):
    return PreTrainedTokenizerFast.from_pretrained(str(shared / "tokenizers" / "bert-base-uncased"))


def test_bert_ids_and_types_to_the_last(bert):
    encoder = TextEncoder(bert, 16, token_types=True)
    assert encoder.texts(["so good"], [""]) == [{"input_ids": [101, 2061, 2204, 102], "token_type_ids": [0, 0, 0, 0]}]
    assert encoder.texts(["a b"], ["c"]) == [
        {"input_ids": [101, 1037, 1038, 102, 1039, 102], "token_type_ids": [0, 0, 0, 0, 1, 1]}
    ]


def test_a_row_does_not_depend_on_the_rows_beside_it(bert, demo_tokenizer):
    for tokenizer in (bert, demo_tokenizer):
        encoder = TextEncoder(tokenizer, 16, token_types=True)
        alone = [encoder.texts([text], [pair])[0] for text, pair in (("good", ""), ("good", "film"))]
        assert encoder.texts(["good", "good"], ["", "film"]) == alone
    assert demo_tokenizer.decode(alone[1]["input_ids"]) == "good\nfilm</s>"


def test_token_types_are_left_out_where_the_base_has_none(bert):
    assert TextEncoder(bert, 16, token_types=False).texts(["so"], [""]) == [{"input_ids": [101, 2061, 102]}]


def test_a_long_text_loses_its_end_but_not_the_special_tokens(bert):
    [found] = TextEncoder(bert, 6, token_types=True).texts(["good " * 50], [""])
    assert found["input_ids"] == [101, 2204, 2204, 2204, 2204, 102]


def test_special_tokens_in_the_text_are_text(bert):
    [found] = TextEncoder(bert, 32, token_types=False).texts(["good [SEP] bad"], [""])
    assert found["input_ids"].count(102) == 1


def test_a_causal_tokenizer_gets_its_end_of_sequence(demo_tokenizer):
    encoder = TextEncoder(demo_tokenizer, 8, token_types=True)
    short, long = encoder.texts(["good", "好" * 50], ["", ""])
    assert short["input_ids"][-1] == long["input_ids"][-1] == demo_tokenizer.eos_token_id
    assert len(long["input_ids"]) == len(long["token_type_ids"]) == 8


@pytest.mark.parametrize(
    ("asked", "train", "names"),
    [
        ((), ["b", "a", "b"], ["a", "b"]),
        ((), ["10", "9", "-1"], ["-1", "9", "10"]),
        (("pos", "neg"), ["neg", "pos"], ["pos", "neg"]),
    ],
)
def test_label_names_have_an_order(asked, train, names):
    assert label_names(asked, train) == names


@pytest.mark.parametrize(
    ("asked", "train", "told"),
    [
        ((), ["a", "a"], "all training rows have the label 'a'"),
        (("a", "b"), ["a", "c"], r"a training row has the label 'c'; expected one of a, b"),
    ],
)
def test_labels_that_cannot_be_learned_are_told(asked, train, told):
    with pytest.raises(BiaslineError, match=told):
        label_names(asked, train)


def test_a_label_that_training_does_not_know_is_told_with_its_row():
    assert label_numbers(["a", "b"], ["b", "a"], [7, 8], "test") == [1, 0]
    with pytest.raises(BiaslineError, match=r"row 8 \(test split\) has the label 'c', which no training row has"):
        label_numbers(["a", "b"], ["b", "c"], [7, 8], "test")


def test_a_pair_has_its_bos_once(shared):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(shared / "models" / "stories260k"))
    [found] = TextEncoder(tokenizer, 32, token_types=False).texts(["hello there"], ["world"])
    assert found["input_ids"].count(tokenizer.bos_token_id) == 1 and found["input_ids"][0] == tokenizer.bos_token_id


def test_odd_digits_are_names_not_numbers():
    assert label_names([], ["²", "1"]) == ["1", "²"]
    assert label_names([], ["10", "9", "-1"]) == ["-1", "9", "10"]
