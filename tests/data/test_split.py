import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biasline.data.split import (
    content_key,
    place_of,
    refuse_empty,
    split_at,
    split_examples,
    without_near_duplicates,
)
from biasline.errors import BiaslineError
from biasline.kinds.learning import columns_of
from biasline.params import Split


def frame(count, start=0):
    rows = [(number, f"ask {number}", "", "", f"answer {number}") for number in range(start, start + count)]
    return pl.DataFrame(rows, schema=["row", "instruction", "input", "history", "output"], orient="row").with_columns(
        pl.lit(None, pl.String).alias("fixed_split")
    )


def test_shares_are_met():
    parts = split_examples(frame(5000), columns_of("instruction"), Split(valid=0.1, test=0.2))
    assert parts["test"].height == pytest.approx(1000, abs=90)
    assert parts["valid"].height == pytest.approx(500, abs=70)
    assert sum(part.height for part in parts.values()) == 5000


def test_new_rows_never_move_old_ones():
    before = split_examples(frame(400), columns_of("instruction"), Split())
    after = split_examples(pl.concat([frame(600, start=400), frame(400)]), columns_of("instruction"), Split())
    for name, part in before.items():
        assert set(part["instruction"]) <= set(after[name]["instruction"])


@given(st.text(max_size=30), st.text(max_size=30), st.integers(0, 5))
def test_where_a_row_goes_depends_on_its_own_text_alone(instruction, text, seed):
    split = Split(seed=seed)
    places = (place_of(content_key(instruction, text), split.seed) for _ in range(2))
    one, two = (split_at(place, split.valid, split.test) for place in places)
    assert one == two
    spaced = content_key(f"  {instruction}\t", text)
    assert spaced == content_key(instruction, text)


def test_width_case_and_space_do_not_part_copies():
    assert content_key("Ｈｅｌｌｏ  World", "") == content_key("hello world", " \n")


def test_two_answers_to_one_question_stay_together():
    rows = [(1, "q", "i", "", "a", None), (2, "q", "i", "", "b", None), *frame(50, 3).rows()]
    parts = split_examples(pl.DataFrame(rows, schema=frame(1).schema, orient="row"), columns_of("instruction"), Split())
    assert sum({1, 2} <= set(part["row"]) for part in parts.values()) == 1


def test_whether_an_earlier_answer_is_learned_moves_no_row():
    turns = [["user", "count"], ["assistant", 'one", 0]'], ["user", "on"], ["assistant", "two"]]
    histories = [json.dumps(turns), json.dumps([*turns[:3], [*turns[3], 0]])]
    for number in range(20):
        rows = [(n, f"ask {number}", "", history, "a", None) for n, history in enumerate(histories)]
        parts = split_examples(
            pl.DataFrame(rows, schema=frame(1).schema, orient="row"), columns_of("instruction"), Split()
        )
        assert sorted(part.height for part in parts.values()) == [0, 0, 2]
    alone = content_key("ask", "", histories[0])
    assert json.loads(histories[0])[1][1] == 'one", 0]' and "0]" in alone  # what is said stays as it is


def test_another_seed_deals_anew():
    one, two = (
        split_examples(frame(300), columns_of("instruction"), Split(seed=seed))["test"]["row"].to_list()
        for seed in (0, 1)
    )
    assert one != two


@pytest.mark.parametrize(
    ("count", "split", "told"),
    [
        (
            2,
            {},
            "2 good rows are too few.* → about 29 rows give each split one.*split.valid: 0 does without validation",
        ),
        (2, {"valid": 0.0}, "the (test|train) split is empty: 2 good rows are too few"),
        (1, {"valid": 0.0, "test": 0.3}, "1 good row is too few .* → about 9 rows give each split one"),
        (5, {"valid": 0.01}, "about 299 rows"),
    ],
)
def test_how_many_rows_are_needed_is_told(count, split, told):
    with pytest.raises(BiaslineError, match=told):
        refuse_empty(split_examples(frame(count), columns_of("instruction"), Split(**split)), Split(**split))


def test_a_split_that_many_rows_leave_empty_is_told_otherwise():
    grouped = frame(400).with_columns(pl.lit("one").alias("customer"))
    split = Split(group="customer")
    with pytest.raises(BiaslineError, match="of 400 good rows the groups of 'customer' leave it none → look at"):
        refuse_empty(split_examples(grouped, columns_of("instruction"), split), split)


def test_as_many_rows_as_are_asked_for_give_each_split_one():
    parts = split_examples(frame(29), columns_of("instruction"), Split())
    refuse_empty(parts, Split())
    assert all(part.height for part in parts.values())


def test_an_empty_split_is_told():
    with pytest.raises(BiaslineError, match="split is empty: 1 good row is too few"):
        refuse_empty(split_examples(frame(1), columns_of("instruction"), Split()), Split())


def test_a_validation_share_of_zero_may_be_empty():
    assert split_examples(frame(30), columns_of("instruction"), Split(valid=0.0))["valid"].is_empty()


def fixed(rows):
    schema = {"row": pl.Int64, "text": pl.String, "text_pair": pl.String, "label": pl.String, "fixed_split": pl.String}
    return pl.DataFrame([(n, text, "", "a", split) for n, (text, split) in enumerate(rows, 1)], schema, orient="row")


def test_a_given_test_file_is_the_test_and_validation_comes_out_of_training():
    rows = [(f"train {n}", "train") for n in range(300)] + [(f"test {n}", "test") for n in range(7)]
    parts = split_examples(fixed(rows), columns_of("classification"), Split())
    assert parts["test"]["text"].to_list() == [f"test {n}" for n in range(7)]
    assert 10 < parts["valid"].height < 60
    assert all(text.startswith("train") for text in parts["valid"]["text"])
    assert "fixed_split" not in parts["train"].columns


def test_rows_of_one_group_stay_together():
    rows = frame(400).with_columns((pl.col("row") // 8).cast(pl.String).alias("customer"))
    parts = split_examples(rows, columns_of("instruction"), Split(group="customer"))
    seen = [set(part["customer"]) for part in parts.values()]
    assert sum(map(len, seen)) == len(set.union(*seen)) == 50
    with pytest.raises(BiaslineError, match=r"split\.group: no column 'client'; there are: .*customer"):
        split_examples(rows, columns_of("instruction"), Split(group="client"))


def test_labels_have_their_share_of_each_split_but_for_chance():
    rows = frame(6000).with_columns(
        pl.when(pl.col("row") % 10 == 0).then(pl.lit("b")).otherwise(pl.lit("a")).alias("c")
    )
    parts = split_examples(rows, columns_of("instruction"), Split())
    for part in parts.values():
        assert (part["c"] == "b").mean() == pytest.approx(0.1, abs=0.04)


def planted():
    parts = split_examples(frame(400), columns_of("instruction"), Split())
    test, valid = parts["test"]["instruction"][0], parts["valid"]["instruction"][0]
    leaks = [(900, f"{test}", "", "", "another answer"), (901, f"{valid.upper()}", "", "", "x")]
    shaped = pl.DataFrame(leaks, schema=parts["train"].schema, orient="row")
    parts["train"] = pl.concat([parts["train"], shaped])
    return parts


def test_planted_leaks_leave_training_and_nothing_else_goes():
    parts = planted()
    before = {name: part.height for name, part in parts.items()}
    after, taken = without_near_duplicates(parts, columns_of("instruction"), 0.8, within=True, across=True)
    assert taken["leak"]["row"].to_list() == [900, 901]
    assert "near_duplicate" not in taken
    assert {name: part.height for name, part in after.items()} == before | {"train": before["train"] - 2}


def test_looking_for_leaks_can_be_switched_off():
    parts = planted()
    after, taken = without_near_duplicates(parts, columns_of("instruction"), 0.8, within=False, across=False)
    assert taken == {} and all(after[name].equals(part) for name, part in parts.items())


def test_a_near_copy_within_a_split_goes():
    parts = planted()
    row = parts["train"].row(0)
    copy = pl.DataFrame([(999, row[1].upper(), "", "", row[4].upper())], schema=parts["train"].schema, orient="row")
    parts["train"] = pl.concat([parts["train"], copy])
    _, taken = without_near_duplicates(parts, columns_of("instruction"), 0.8, within=True, across=False)
    assert 999 in taken["near_duplicate"]["row"].to_list()


def test_rows_of_no_group_are_groups_of_their_own():
    rows = frame(400).with_columns(pl.Series("customer", [None, "x"] * 200))
    parts = split_examples(rows, columns_of("instruction"), Split(group="customer"))
    alone = [part.filter(pl.col("customer").is_null()).height for part in parts.values()]
    assert all(count > 5 for count in alone)
    assert sum(part.filter(pl.col("customer") == "x").height > 0 for part in parts.values()) == 1
