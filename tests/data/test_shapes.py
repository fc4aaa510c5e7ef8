"""What is written in params.yaml as an error says is then run, as a user would."""

import contextlib
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from biasline.data.contract import check_examples
from biasline.data.sources import read_asked, read_examples
from biasline.errors import BiaslineError
from biasline.kinds.learning import columns_of
from biasline.params import Quality, Source

TREE = {"text": "q", "role": "prompter", "replies": [{"text": "a", "rank": 0, "replies": []}, {"text": "b"}]}


def told(tmp_path, rows, kind="instruction", **source):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(BiaslineError) as error:
        read_examples(path, columns_of(kind), Source(**source))
    assert "rows.json" in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def advised(error):
    """The `source` that an error says to write."""
    text = error[error.index("source: {") + len("source: ") :]
    ends = (end for end in range(1, len(text) + 1) if text[:end].count("{") == text[:end].count("}"))
    return YAML(typ="safe").load(text[: next(ends)])


@pytest.mark.parametrize(
    ("row", "shape", "expected"),
    [
        ({"question": "q", "human_answers": ["a", "b"], "chatgpt_answers": ["c"]}, "it looks like HC3", ("q", "", "a")),
        ({"message_tree_id": "1", "prompt": TREE}, "it looks like OpenAssistant's trees", ("q", "", "a")),
        (
            {"id": "1", "instruction": "q", "instances": [{"input": "i", "output": "a"}], "is_classification": False},
            "it looks like Self-Instruct",
            ("q", "i", "a"),
        ),
        ({"prompt": {"text": "q"}, "response": {"text": "a", "model": "m"}}, r"holds lists or objects", ("q", "", "a")),
        (
            {"context": "i", "question": "q", "answers": {"text": ["a"], "answer_start": [3]}},
            "it looks like SQuAD",
            ("q", "i", "a"),
        ),
        ({"data": {"instruction": "q", "input": "i", "output": "a"}}, "no column for 'instruction'", ("q", "i", "a")),
        ({"turn": [{"question": "q", "answer": "a"}]}, "no column for 'instruction'", ("q", "", "a")),
    ],
)
def test_what_is_said_to_write_reads_the_file(tmp_path, row, shape, expected):
    error = told(tmp_path, [row] * 3)
    assert re.search(shape, error)
    found = read_examples(tmp_path / "rows.json", columns_of("instruction"), Source(**advised(error))).frame
    assert found.select("instruction", "input", "output").rows() == [expected] * 3


def test_compared_answers_are_taken_where_they_won(tmp_path):
    rows = [{"prompt": f"p{n}", "response_0": "a", "response_1": "b", "better_response_id": n % 2} for n in range(4)]
    error = told(tmp_path, rows)
    assert "it looks like compared answers (response_0, response_1, better_response_id)" in error
    found = read_examples(tmp_path / "rows.json", columns_of("instruction"), Source(**advised(error))).frame
    assert found["row"].to_list() == [1, 3]


@pytest.mark.parametrize(
    ("rows", "shape"),
    [
        ([{"Definition": ["d"], "Instances": [{"input": "i", "output": ["o"]}]}], "a task of Natural Instructions"),
        ([{"message_id": "1", "parent_id": None, "text": "t", "role": "prompter"}], "single messages of OpenAssistant"),
        ([{"title": "t", "mapping": {"a": {}}}], "ChatGPT's export"),
        ([{"contents": [{"role": "user", "parts": [{"text": "a"}]}]}], "Gemini's format"),
        ([{"question": "q", "choices": ["a", "b"], "answer": 1}] * 3, "multiple choice"),
        ([{"version": "1", "data": [{"title": "a"}, {"title": "b"}]}], "its one record holds 2 in a list 'data'"),
        ([{"translation": {"en": "a", "de": "b"}}] * 2, "pairs of translations.* translation.en, translation.de"),
        ([{"text": "### Human: hi### Assistant: yo"}], "in a template already"),
        ([{"foo": 1}], r"name it in params\.yaml: source: \{columns: \{instruction: …\}\}$"),
    ],
)
def test_a_shape_that_params_cannot_map_is_named(tmp_path, rows, shape):
    assert re.search(shape, told(tmp_path, rows))


def test_turns_in_a_column_of_another_name_are_told(tmp_path):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    error = told(tmp_path, [{"query": turns, "answer": "x"}] * 2)
    found = read_examples(tmp_path / "rows.json", columns_of("instruction"), Source(**advised(error))).frame
    assert found.select("instruction", "output").row(0) == ("q", "a")


def test_several_labels_a_row_are_told_with_ways_to_one(tmp_path):
    rows = [{"text": f"t{n}", "label": [[0], [1, 2]][n % 2]} for n in range(6)]
    error = told(tmp_path, rows, "classification")
    assert "'label' (label) holds lists or objects in 6 of 6 rows, as [0]: several labels a row" in error
    assert "all of them at once are kind: multilabel; " in error
    found = read_examples(tmp_path / "rows.json", columns_of("classification"), Source(**advised(error))).frame
    assert found.select("row", "label").rows() == [(1, "0"), (3, "0"), (5, "0")]
    rows = [{"text": f"t{n}", "cats": {"toxic": n % 2, "rude": 1}} for n in range(2)]
    assert "a path leads into nested values: cats.toxic, cats.rude" in told(tmp_path, rows, "classification")
    error = told(tmp_path, [{"text": row["text"], "label": row["cats"]} for row in rows], "classification")
    found = read_examples(tmp_path / "rows.json", columns_of("classification"), Source(**advised(error))).frame
    assert found["label"].to_list() == ["0", "1"]


def test_a_few_lists_are_left_to_the_contract(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"instruction": f"i{n}", "output": "o" if n else ["o"]} for n in range(5)]))
    assert read_examples(path, columns_of("instruction"), Source()).frame["output__not_text"].sum() == 1


LEAVES = (
    st.none() | st.booleans() | st.integers(-1, 2) | st.floats() | st.sampled_from(["a", "true", "1", "[1, 2]", "{"])
)
KEYS = st.sampled_from(["text", "role", "content", "from", "value", "weight", "replies", "output", "tool_calls"])
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3))
NAMES = st.sampled_from(["instruction", "prompt", "output", "messages", "chosen", "rejected", "label", "score", "text"])
NAMES |= st.sampled_from(["system", "history", "answers", "choices", "instances", "scores", "completion", "row", "a.b"])
NAMES |= st.sampled_from(["response_0", "response_1", "winner"])


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(st.dictionaries(NAMES, VALUES, min_size=1, max_size=5), min_size=1, max_size=4),
    kind=st.sampled_from(["instruction", "classification", "regression"]),
    prefer=st.sampled_from(["", "chosen", "all"]),
    answers=st.sampled_from(["", "first", "longest", "each"]),
    columns=st.sampled_from([{}, {"output": "output.0"}, {"instruction": "prompt.text"}, {"label": "answers.*"}]),
    where=st.sampled_from(["", "label", "score > 0", "length(output) > 0"]),
)
def test_whatever_a_file_holds_is_read_or_told(tmp_path_factory, rows, kind, prefer, answers, columns, where):
    path = tmp_path_factory.getbasetemp() / "anything.json"
    path.write_text(json.dumps(rows))
    source = Source(prefer=prefer, answers=answers, columns=columns, where=where)
    with contextlib.suppress(BiaslineError):
        found = read_examples(path, columns_of(kind), source).frame
        assert found["row"].n_unique() == found.height
        checked = check_examples(found, kind, Quality(max_quarantine=1.0, hard={}))
        assert checked.rows == found.height
    with contextlib.suppress(BiaslineError):
        assert "" not in [row[columns_of(kind).prompt[0]] for row in read_asked(path, columns_of(kind), source)]
