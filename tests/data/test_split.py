import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biasline.data.kinds import KINDS
from biasline.data.split import content_key, split_examples, split_of
from biasline.errors import BiaslineError
from biasline.params import Split


def frame(count, start=0):
    rows = [(number, f"ask {number}", "", f"answer {number}") for number in range(start, start + count)]
    return pl.DataFrame(rows, schema=["row", "instruction", "input", "output"], orient="row")


def test_shares_are_met():
    parts = split_examples(frame(5000), KINDS["instruction"], Split(valid=0.1, test=0.2))
    assert parts["test"].height == pytest.approx(1000, abs=90)
    assert parts["valid"].height == pytest.approx(500, abs=70)
    assert sum(part.height for part in parts.values()) == 5000


def test_new_rows_never_move_old_ones():
    before = split_examples(frame(400), KINDS["instruction"], Split())
    after = split_examples(pl.concat([frame(600, start=400), frame(400)]), KINDS["instruction"], Split())
    for name, part in before.items():
        assert set(part["instruction"]) <= set(after[name]["instruction"])


@given(st.text(max_size=30), st.text(max_size=30), st.integers(0, 5))
def test_where_a_row_goes_depends_on_its_own_text_alone(instruction, text, seed):
    split = Split(seed=seed)
    assert split_of(content_key(instruction, text), split) == split_of(content_key(instruction, text), split)
    spaced = content_key(f"  {instruction}\t", text)
    assert spaced == content_key(instruction, text)


def test_width_case_and_space_do_not_part_copies():
    assert content_key("Ｈｅｌｌｏ  World", "") == content_key("hello world", " \n")


def test_two_answers_to_one_question_stay_together():
    rows = [(1, "q", "i", "a"), (2, "q", "i", "b"), *frame(50, 3).rows()]
    parts = split_examples(pl.DataFrame(rows, schema=frame(1).schema, orient="row"), KINDS["instruction"], Split())
    assert sum({1, 2} <= set(part["row"]) for part in parts.values()) == 1


def test_another_seed_deals_anew():
    one, two = (
        split_examples(frame(300), KINDS["instruction"], Split(seed=seed))["test"]["row"].to_list() for seed in (0, 1)
    )
    assert one != two


def test_an_empty_split_is_told():
    with pytest.raises(BiaslineError, match="split is empty: 1 good rows are too few"):
        split_examples(frame(1), KINDS["instruction"], Split())


def test_a_validation_share_of_zero_may_be_empty():
    assert split_examples(frame(30), KINDS["instruction"], Split(valid=0.0))["valid"].is_empty()
