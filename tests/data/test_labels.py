import json

import polars as pl
import pytest

from biasline.data.contract import check_examples
from biasline.data.labels import form_notes, refuse_unlearned
from biasline.data.sources import read_examples
from biasline.data.validate import validate
from biasline.errors import BiaslineError
from biasline.kinds.learning import columns_of
from biasline.layout import TaskPlace
from biasline.params import Quality, Source, Task

NAN = float("nan")
LENIENT = Quality(max_quarantine=1.0, hard={}, off=["conflicting_duplicate"])


def frame_of(tmp_path, labels, kind="classification"):
    path = tmp_path / "rows.json"
    path.write_text(
        json.dumps([{"text": f"text {n}", columns_of(kind).answer: label} for n, label in enumerate(labels)])
    )
    return read_examples(path, columns_of(kind), Source()).frame


@pytest.mark.parametrize(
    ("given", "label"),
    [
        (1, "1"),
        (1.0, "1"),
        (0.0, "0"),
        (-0.0, "0"),
        (-2.0, "-2"),
        (1e20, "1" + "0" * 20),
        (0.5, "0.5"),
        (1e-7, "1e-07"),
        (True, "true"),
        ("1.0", "1.0"),
        ("NaN", "NaN"),
        ("[a]", "[a]"),
    ],
)
def test_numbers_are_labels_by_value_and_texts_as_they_stand(tmp_path, given, label):
    checked = check_examples(frame_of(tmp_path, [given, "else"]), "classification", LENIENT)
    assert checked.good["label"].to_list() == [label, "else"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (NAN, "empty_label"),
        (None, "empty_label"),
        ([0, 2], "not_text"),
        ({"a": 1}, "not_text"),
        (float("inf"), "not_text"),
    ],
)
def test_what_is_no_label_is_refused(tmp_path, given, reason):
    checked = check_examples(frame_of(tmp_path, ["a", "b", given, "a"]), "classification", LENIENT)
    assert checked.quarantine.select("row", "reasons").rows() == [(3, [reason])]


def test_missing_labels_are_no_class(tmp_path):
    labels = [NAN if n % 20 == 0 else n % 2 for n in range(100)]
    checked = check_examples(frame_of(tmp_path, labels), "classification", LENIENT)
    assert checked.broken == {"empty_label": 5}
    assert sorted(checked.good["label"].unique()) == ["0", "1"]


def test_floats_of_a_parquet_file_are_labels_by_value(tmp_path):
    pl.DataFrame({"text": ["a", "b", "c"], "label": [0.0, 1.0, NAN]}).write_parquet(tmp_path / "rows")
    found = read_examples(tmp_path / "rows", columns_of("classification"), Source()).frame
    assert found["label"].to_list() == ["0", "1", None]


def test_missing_scores_have_no_score(tmp_path):
    lenient = Quality(max_quarantine=1.0, hard={})
    checked = check_examples(frame_of(tmp_path, [0.5, NAN, 3, [1], True], "regression"), "regression", lenient)
    assert checked.good["score"].to_list() == ["0.5", "3"]
    assert checked.quarantine["reasons"].to_list() == [["empty_score"], ["not_text", "no_number"], ["no_number"]]


def test_numbers_of_a_presets_classes_are_taken_by_value(tmp_path):
    pl.DataFrame({"sentence": ["a", "b"], "label": [0.0, 1.0]}).write_parquet(tmp_path / "rows")
    found = read_examples(tmp_path / "rows", columns_of("classification"), Source(preset="sst2")).frame
    assert found["label"].to_list() == ["negative", "positive"]


@pytest.mark.parametrize(
    ("one", "two", "shown"),
    [
        ("Positive", "positive", "'Positive' (1 rows) and 'positive' (1 rows)"),
        ("caf\u00e9", "cafe\u0301", "'cafe\\u0301'"),
        ("x", "x\u200b", "'x\\u200b'"),
        ("1", "1.0", "'1.0'"),
        ("true", "True", "'True'"),
        ("true", "1", "'true'"),
        ("new york", "new  york", "'new  york'"),
    ],
)
def test_labels_that_differ_in_form_alone_are_said_and_not_merged(tmp_path, one, two, shown):
    checked = check_examples(frame_of(tmp_path, [one, two, "other"]), "classification", LENIENT)
    assert checked.good["label"].to_list() == [one, two, "other"]
    [note] = form_notes(checked.good["label"], checked.good["label"])
    assert note.startswith("labels that differ in form alone are classes of their own: ") and shown in note


def test_labels_that_differ_in_more_are_not_said():
    labels = pl.Series("label", ["0", "1", "no", "yes", "C", "C++", "-1", "false positive"])
    assert form_notes(labels, labels) == []


def test_labels_that_look_missing_are_said():
    labels = pl.Series("label", ["NaN", "a", "none", "NaN"])
    [note] = form_notes(labels, labels)
    assert note.startswith("labels that look like a missing value are classes: 'NaN' (2 rows)")


def test_space_around_a_label_is_said_where_it_merges_two():
    assert form_notes(pl.Series("label", ["x", "x", "y"]), pl.Series("label", ["x", "x ", " y"])) == [
        "labels stand with and without space around, which counts for nothing: 'x'"
    ]


def rare(count):
    rows = [{"text": f"visit number {number} was fine", "label": "ab"[number % 2]} for number in range(300)]
    return rows + [{"text": f"odd thing number {number}", "label": f"rare{number}"} for number in range(count)]


def test_labels_of_held_out_rows_alone_are_all_named_before_tokenization(workspace):
    (workspace / "rare.json").write_text(json.dumps(rare(30)))
    place, quality = TaskPlace("rare"), {"off": ["leak", "near_duplicate"]}
    task = Task(base="b", data="rare.json", kind="classification", quality=quality)
    with pytest.raises(BiaslineError) as error:
        validate(task, place)
    labels = sorted({row["label"] for row in rare(30)})
    validate(task.model_copy(update={"source": Source(labels=labels)}), place)  # the way out
    parts = {name: pl.read_parquet(place.split(name)) for name in ("train", "valid", "test")}
    lost = [
        (label, name, row)
        for name in ("valid", "test")
        for label, row in parts[name].select("label", "row").rows()
        if label.startswith("rare")
    ]
    assert len(lost) > 2
    for label, name, row in lost:
        assert f"'{label}' ({name} split: 1 row, row {row})" in str(error.value)
    assert "no training row has these labels: " in str(error.value) and "source.labels: [" in str(error.value)
    assert not any(f"'{label}'" in str(error.value) for label in parts["train"]["label"].unique())


def test_labels_that_training_has_are_learned():
    train = pl.DataFrame({"label": ["a", "b"], "row": [1, 2]})
    held = pl.DataFrame({"label": ["c", "a", "c"], "row": [7, 8, 9]})
    refuse_unlearned({"train": train, "valid": train, "test": train})
    with pytest.raises(BiaslineError, match=r"has the label: 'c' \(test split: 2 rows, row 7\).*labels: \[a, b, c\]"):
        refuse_unlearned({"train": train, "valid": train, "test": held})
