import json

import pytest

from biasline.data.paths import add_paths, text_paths
from biasline.data.sources import read_asked, read_examples
from biasline.errors import BiaslineError
from biasline.kinds.learning import columns_of
from biasline.params import Source

NESTED = {"prompt": {"text": "hi", "lang": None}, "output": ["a", "b"], "replies": [{"text": "x"}, {"text": "y"}, {}]}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("prompt.text", "hi"),
        ("output.0", "a"),
        ("output.-1", "b"),
        ("output.7", None),
        ("replies.1.text", "y"),
        ("replies.*.text", ["x", "y"]),
        ("prompt.lang", None),
        ("prompt.lang.name", None),
    ],
)
def test_a_path_leads_to_what_lies_there(path, value):
    record = dict(NESTED)
    assert add_paths([record], [path]) == {path}
    assert record[path] == value


@pytest.mark.parametrize("path", ["prompt.words", "nothing.text", "output.first", "prompt.text.more"])
def test_a_path_to_nothing_adds_no_column(path):
    record = dict(NESTED)
    assert add_paths([record], [path]) == set() and path not in record


def test_names_with_dots_come_before_paths():
    record = {"a.b": 1, "a": {"b": 2, "c.d": 3}}
    assert add_paths([record], ["a.b", "a.c.d"]) == {"a.c.d"}
    assert (record["a.b"], record["a.c.d"]) == (1, 3)


def test_text_that_is_json_is_entered_as_a_cell_may_be():
    record = {"meta": '{"lang": "en"}', "odd": "[no json", "n": "3"}
    assert add_paths([record], ["meta.lang", "odd.0", "n.0"]) == {"meta.lang"}


def test_paths_to_texts_are_listed():
    assert dict(text_paths(NESTED)) == {"prompt.text": False, "output": True, "replies.0.text": False}
    assert [path for path, _ in text_paths({"a": 1, "b": {"c": True}}, numbers=True)] == ["a", "b.c"]


def test_columns_are_taken_by_paths(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([NESTED, {"prompt": {"text": "two"}, "output": ["c"]}]))
    source = Source(columns={"instruction": "prompt.text", "output": "output.0"})
    found = read_examples(path, columns_of("instruction"), source)
    assert found.frame.select("row", "instruction", "output").rows() == [(1, "hi", "a"), (2, "two", "c")]
    assert found.frame["meta_output"].to_list() == ['["a", "b"]', '["c"]']
    assert read_asked(path, columns_of("instruction"), source)[1]["instruction"] == "two"


def test_columns_of_a_csv_file_are_taken_by_paths(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('text,cats\na,"{""toxic"": 1}"\nb,"{""toxic"": 0}"\n')
    found = read_examples(path, columns_of("classification"), Source(columns={"label": "cats.toxic"})).frame
    assert found.select("text", "label").rows() == [("a", "1"), ("b", "0")]


def test_where_a_path_begins_is_a_name_that_a_header_may_have(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('satz;x,cats\na,"{""toxic"": 1}"\n,"{""toxic"": 0}"\n')
    columns = {"text": "satz;x", "label": "cats.toxic", "text_pair": ""}
    found = read_examples(path, columns_of("classification"), Source(columns=columns)).frame
    assert found.select("text", "label").rows() == [("a", "1"), ("", "0")]
    path.write_text('a,"{""toxic"": 1}"\nb,"{""toxic"": 0}"\n')
    named = read_examples(path, columns_of("classification"), Source(columns={"text": "1", "label": "2.toxic"})).frame
    assert named.select("text", "label").rows() == [("a", "1"), ("b", "0")]


def test_a_path_that_no_record_has_is_told_with_those_there_are(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([NESTED]))
    with pytest.raises(
        BiaslineError, match=r"no column 'prompt\.words' \(source\.columns\.instruction\);.* prompt\.text"
    ):
        read_examples(path, columns_of("instruction"), Source(columns={"instruction": "prompt.words"}))
