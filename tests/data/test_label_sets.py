"""Several labels a row: read in each shape, held against rules."""

import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from biasline.data.contract import check_examples
from biasline.data.label_sets import refuse_unlearnable
from biasline.data.name_lists import canonical, in_order, one_by_one
from biasline.data.sources import read_asked, read_examples
from biasline.data.validate import validate
from biasline.errors import BiaslineError
from biasline.kinds.learning import columns_of
from biasline.layout import TaskPlace
from biasline.params import Quality, Source, Task

KIND = "multilabel"
COLUMNS = columns_of(KIND)


def read(folder, rows, source=None):
    path = folder / "rows.json"
    path.write_text(json.dumps([{"text": f"text {number}", **row} for number, row in enumerate(rows, 1)]))
    return read_examples(path, COLUMNS, Source.model_validate(source or {}))


def labels(folder, cells, source=None):
    return read(folder, [{"labels": cell} for cell in cells], source).frame["labels"].to_list()


names = st.lists(
    st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters="|[{"), min_size=1), min_size=1
)


@given(names)
def test_each_shape_of_the_same_labels_reads_the_same(tmp_path_factory, held):
    folder = tmp_path_factory.mktemp("rows")
    shapes = [held, held[::-1], held + held, json.dumps(held), repr(held), "|".join(held), " | ".join(held) + " |"]
    shapes.append(dict.fromkeys(held, 1) | {"\0 none of them": False})
    assert set(labels(folder, shapes)) == {canonical(held)}
    assert json.loads(canonical(held)) == in_order(held) == sorted(set(held), key=in_order(held).index)


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ("a", '["a"]'),
        (" b|a | ", '["a", "b"]'),
        (["b", " a ", "b"], '["a", "b"]'),
        ([10, 9.0, "x"], '["9", "10", "x"]'),
        (3, '["3"]'),
        (True, '["true"]'),
        ("['it''s', 'ok']", '["its", "ok"]'),
        ("[sic] a", '["[sic] a"]'),
        ({"a": 0, "b": "1", "c": True}, '["b", "c"]'),
        ({"a": 0, "b": False}, "[]"),
        ([], "[ ]"),
        ("", "[ ]"),
        ("|", "[ ]"),
        ("[]", "[ ]"),
        (None, None),
        (['quote "', "back\\slash", "数"], '["back\\\\slash", "quote \\"", "数"]'),
    ],
)
def test_what_a_cell_becomes(tmp_path, cell, found):
    assert labels(tmp_path, [cell, "a", "a"]) == [found, '["a"]', '["a"]']


def test_the_order_is_that_of_source_labels(tmp_path):
    assert labels(tmp_path, ["a;c;b"], {"separator": ";", "labels": ["c", "b"]}) == ['["c", "b", "a"]']


def checked(examples, **quality):
    return check_examples(examples.frame, KIND, Quality(**quality))


@pytest.mark.parametrize(
    "cell", [["a", None], [["a"]], [{"name": "a"}], {"a": 2}, {"a": None}, {}, [""], None, ["a", float("inf")]]
)
def test_what_names_no_labels_is_quarantined(tmp_path, cell):
    found = checked(read(tmp_path, [{"labels": one} for one in ("a", cell, "b", "a")]))
    assert found.quarantine.select("row", "reasons").rows() == [(2, ["broken_labels"])]


def test_columns_of_zeros_and_ones_are_gathered_and_all_zeros_say_something(tmp_path):
    rows = [{"b": 1, "a": "0"}, {"b": False, "a": 0.0}, {"b": "TRUE", "a": True}, {"b": 2, "a": 0}, {"b": 1}]
    examples = read(tmp_path, rows, {"labels": ["a", "b"]})
    assert examples.notes == ("labels are gathered from 2 columns: 'a', 'b'",)
    assert examples.frame["labels"].to_list()[:3] == ['["b"]', "[]", '["a", "b"]']
    assert set(examples.frame.columns) >= {"labels"} and not {"a", "b"} & set(examples.frame.columns)
    assert checked(examples).quarantine.select("row", "reasons").rows() == [
        (4, ["broken_labels"]),
        (5, ["broken_labels"]),
    ]


def test_an_empty_list_is_quarantined_unless_it_means_none(tmp_path):
    examples = read(tmp_path, [{"labels": []}, {"labels": ["a"]}])
    assert checked(examples).broken == {"empty_labels": 1}
    good = checked(examples, off=["empty_labels"]).good
    assert [json.loads(text) for text in good["labels"]] == [[], ["a"]]
    assert one_by_one(good).rows() == [(2, "a")]


def test_an_unknown_label_and_a_text_with_two_sets_are_quarantined(tmp_path):
    rows = [{"labels": ["a"]}, {"labels": ["a", "x"]}, {"labels": ["b", "a"]}, {"labels": ["a", "b"]}, {"labels": []}]
    frame = read(tmp_path, rows).frame.with_columns(text=pl.Series(["s", "S ", "t", "t", "u"]))
    found = check_examples(frame, KIND, Quality(off=["empty_labels"]), ["a", "b"])
    assert found.quarantine.select("row", "reasons").rows() == [(2, ["unknown_label"]), (4, ["duplicate"])]
    frame = frame.with_columns(labels=pl.Series(['["a"]', '["a", "b"]', '["a"]', '["b"]', "[]"]))
    told = check_examples(frame, KIND, Quality()).quarantine.select("row", "reasons").rows()
    assert told == [(row, ["conflicting_duplicate"]) for row in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("rows", "source", "told"),
    [
        (
            [{"a b": 1, "c": 0, "n": 7}, {"a b": 0, "c": 0, "n": 8}],
            {},
            "no column for 'labels'; it has: text, a b, c, n → 2 columns hold 0 and 1 alone; where each says whether a "
            'text has that label, write in params.yaml: source: {labels: ["a b", "c"]}',
        ),
        (
            [{"a": 1, "c": 0}],
            {"labels": ["a", "b"]},
            "source.labels: no column 'b' beside 'a'; it has: text, a, c → name ",
        ),
        (
            [{"x": "some"}],
            {},
            "no column for 'labels'; it has: text, x → name it in params.yaml: source: {columns: {lab",
        ),
    ],
)
def test_a_file_without_labels_is_told_with_the_lines_to_write(tmp_path, rows, source, told):
    with pytest.raises(BiaslineError) as error:
        read(tmp_path, rows, source)
    assert f"rows.json: {told}" in str(error.value)


def test_a_column_of_objects_is_told_with_a_path(tmp_path):
    cells = [{"labels": [{"name": "a"}]}, {"labels": [{"name": "b"}, {"name": "a"}]}]
    with pytest.raises(BiaslineError, match=r"rows.json: column 'labels' .* names no labels in 2 of 2 rows"):
        read(tmp_path, cells)
    found = read(tmp_path, cells, {"columns": {"labels": "labels.*.name"}})
    assert found.frame["labels"].to_list() == ['["a"]', '["a", "b"]']


def test_a_column_of_labels_comes_before_columns_called_as_labels(tmp_path):
    source = {"labels": ["a", "b"]}
    assert read(tmp_path, [{"labels": "b", "a": 1, "b": 0}], source).frame["labels"].to_list() == ['["b"]']
    assert read(tmp_path, [{"topics": "b", "a": 1}], source).frame["labels"].to_list() == ['["b"]']
    named = {**source, "columns": {"labels": "x"}}
    assert read(tmp_path, [{"x": "b", "a": 1, "b": 0}], named).frame["labels"].to_list() == ['["b"]']


def test_rows_to_ask_need_no_labels(tmp_path):
    (tmp_path / "asked.csv").write_text("text,a,b\nso,0,1\n")
    assert read_asked(tmp_path / "asked.csv", COLUMNS, Source(labels=["a", "b"])) == [{"text": "so", "text_pair": ""}]


def validated(workspace, rows, **settings):
    (workspace / "rows.json").write_text(json.dumps(rows))
    near = {"near_duplicate": 1.0, "off": ["leak", "near_duplicate"]}
    task = Task(kind=KIND, base="data/bases/tiny-bloom.json", data="rows.json", quality=near, **settings)
    validate(task, TaskPlace("several"))
    return TaskPlace("several")


def test_a_label_that_nothing_could_be_learned_of_is_refused(workspace):
    rows = [{"text": f"number {number}", "labels": ["a", "b"][: 1 + number % 2]} for number in range(60)]
    with pytest.raises(BiaslineError, match=r"source.labels: no training row has the label 'c', so nothing"):
        validated(workspace, rows, source={"labels": ["a", "b", "c"]})
    with pytest.raises(BiaslineError, match="no training row has a label → add rows"):
        refuse_unlearnable(pl.DataFrame({"row": [1], "labels": ["[]"]}), [])


def test_a_held_out_label_that_no_training_row_has_is_refused(workspace):
    (workspace / "raw").mkdir()
    for name, held in (("train", ["a"]), ("test", ["a", "z"])):
        rows = [{"text": f"{name} {number}", "labels": held[: 1 + number % 2]} for number in range(40)]
        (workspace / "raw" / f"{name}.json").write_text(json.dumps(rows))
    task = Task(kind=KIND, base="data/bases/tiny-bloom.json", data="raw", quality={"off": ["leak", "near_duplicate"]})
    with pytest.raises(BiaslineError, match=r"no training row has the label: 'z' \(test split: 20 rows, row ") as error:
        validate(task, TaskPlace("several"))
    assert "source.labels" not in str(error.value)


def test_one_label_a_row_is_noted(workspace):
    rows = [{"text": f"number {number}", "labels": ["a", "b"][number % 2]} for number in range(60)]
    page = validated(workspace, rows).quality_page.read_text()
    assert "every row has one label alone: kind: classification" in page


def test_a_separator_is_a_parameter_with_limits():
    with pytest.raises(ValueError, match=r"separator\s+String should have at least 1 character"):
        Source(separator="")


def test_broken_labels_cannot_be_switched_off():
    frame = pl.DataFrame({"row": [1], "text": ["a"], "text_pair": [""], "labels": ["x"]})
    with pytest.raises(BiaslineError, match="quality.off: broken_labels cannot be switched off"):
        check_examples(frame, "multilabel", Quality(off=("broken_labels",)))
