import json

import pytest

from biasline.data.sources import read_examples
from biasline.data.split import split_examples
from biasline.kinds.learning import columns_of
from biasline.params import Source, Split

ROWS = [
    {"question": "q1", "answers": ["a", "the longest", "no"], "n": 1},
    {"question": "q2", "answers": [], "n": 2},
    {"question": "q3", "answers": "plain", "n": 3},
    {"question": "q4", "answers": ["only"], "n": 4},
]


def examples(tmp_path, which, rows=ROWS):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    return read_examples(path, columns_of("instruction"), Source(answers=which, columns={"output": "answers"}))


@pytest.mark.parametrize(("which", "first"), [("first", "a"), ("longest", "the longest")])
def test_one_of_several_answers(tmp_path, which, first):
    found = examples(tmp_path, which)
    assert found.frame["output"].to_list() == [first, None, "plain", "only"]
    assert found.frame["row"].to_list() == [1, 2, 3, 4]
    assert not found.frame["output__not_text"].any()
    assert found.notes == (f"records with several answers in 'answers', of which the {which} is taken: 1",)


def test_a_row_for_each_answer(tmp_path):
    found = examples(tmp_path, "each")
    assert found.frame.select("row", "instruction", "output", "n", "record").rows() == [
        (1, "q1", "a", "1", "1"),
        (2, "q1", "the longest", "1", "1"),
        (3, "q1", "no", "1", "1"),
        (4, "q2", None, "2", "2"),
        (5, "q3", "plain", "3", "3"),
        (6, "q4", "only", "4", "4"),
    ]
    assert found.notes == ("source.answers: each: 4 records give 6 rows; the record's number is in 'record'",)


def test_answers_to_one_question_stay_in_one_split(tmp_path):
    rows = [{"question": f"q{n}", "answers": ["a", "b"]} for n in range(60)]
    frame = examples(tmp_path, "each", rows).frame
    parts = split_examples(frame, columns_of("instruction"), Split(valid=0.3, test=0.3))
    assert all(part.height for part in parts.values())
    assert sum(part["instruction"].n_unique() for part in parts.values()) == 60


def test_a_column_called_record_is_not_lost(tmp_path):
    rows = [{"question": "q", "answers": ["a", "b"], "record": "mine"}]
    assert examples(tmp_path, "each", rows).frame.select("record", "record_").rows() == [("mine", "1")] * 2


def test_lists_of_anything_else_are_left_to_the_contract(tmp_path):
    rows = [*ROWS, {"question": "q5", "answers": [1, 2]}]
    found = examples(tmp_path, "first", rows).frame
    assert found["output__not_text"].to_list() == [False] * 4 + [True]


def test_a_file_without_lists_is_told(tmp_path):
    found = examples(tmp_path, "longest", [{"question": "q", "answers": "a"}])
    assert found.notes == ("source.answers: longest: no record has a list of answers in 'answers'",)
