import json

import datasets
import polars as pl
import pytest

from biasline.data.contract import check_examples
from biasline.data.files import raw_files
from biasline.data.sources import read_examples
from biasline.data.split import split_examples
from biasline.data.validate import validate
from biasline.errors import BiaslineError
from biasline.kinds.learning import columns_of
from biasline.layout import TaskPlace
from biasline.params import Quality, Source, Split, Task


def put(folder, *names):
    """Files of a few rows each, which hold the file's name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"text": f"{name} row {row}", "label": f"l{row % 2}"} for row in range(20)]
        if name.endswith(".parquet"):
            pl.DataFrame(rows).write_parquet(path)
        elif name.endswith(".arrow"):
            pl.DataFrame(rows).write_ipc_stream(path)
        elif name.endswith(".feather"):
            pl.DataFrame(rows).write_ipc(path)
        else:
            path.write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows))
    return folder


def splits_of(folder):
    return {file.name: file.split for file in raw_files(folder).files}


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("banking77_train.csv", "banking77_test.csv"),
        ("train-00000-of-00001.parquet", "test-00000-of-00001.parquet"),
        ("train.csv", "test_final.csv"),
        ("train.csv", "eval.csv"),
        ("training.csv", "testing.csv"),
        ("train.csv", "test/part.csv"),
        ("data/train/0.csv", "data/test/0.csv"),
        ("a.train.csv", "a.test.csv"),
        ("train.csv", "test.arrow"),
        ("train.feather", "test.feather"),
    ],
)
def test_no_row_of_a_given_test_file_is_trained_on(tmp_path, train, test):
    kind = columns_of("classification")
    found = read_examples(put(tmp_path, train, test), kind, Source())
    good = check_examples(found.frame, "classification", Quality(off=("near_duplicate", "leak"))).good
    parts = split_examples(good, kind, Split())
    assert set(parts["test"]["file"]) == {test} and parts["test"].height == 20
    assert set(parts["train"]["file"]) | set(parts["valid"]["file"]) == {train}
    assert f"test from {test}" in found.notes[0] and f"train from {train}" in found.notes[0]


def test_the_hubs_own_names_give_three_splits(tmp_path):
    names = [f"{split}-00000-of-00001.parquet" for split in ("test", "validation", "train")]
    assert splits_of(put(tmp_path, *names)) == dict(zip(names, ("test", "valid", "train"), strict=True))


def test_names_of_no_split_beside_a_test_file_are_said(tmp_path):
    found = raw_files(put(tmp_path, "january.csv", "test.csv"))
    assert [(file.name, file.split) for file in found.files] == [("test.csv", "test"), ("january.csv", None)]
    assert "taken as training rows, since the name says no split: january.csv" in found.notes[0]


@pytest.mark.parametrize("names", [("test.csv",), ("dev.csv", "eval.csv"), ("train_test_split.csv",)])
def test_held_out_files_alone_are_refused(tmp_path, names):
    with pytest.raises(BiaslineError, match=rf"no rows to train on: .*{names[-1]}"):
        raw_files(put(tmp_path, *names))


def test_nested_files_are_called_by_their_path_and_read_in_its_order(tmp_path):
    put(tmp_path, "b.csv", "a/x.csv", "a/b/y.csv")
    frame = read_examples(tmp_path, columns_of("classification"), Source()).frame
    assert frame["file"].unique(maintain_order=True).to_list() == ["a/b/y.csv", "a/x.csv", "b.csv"]


def test_parts_of_a_saved_data_set_go_by_the_same_rule_and_secret_ones_are_said(tmp_path):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    parts = {
        name: datasets.Dataset.from_dict({"text": ["a", "b"], "label": labels}, features=features)
        for name, labels in {"train_sft": [0, 1], "test_sft": [1, 0], "unsupervised": [-1, -1]}.items()
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    found = raw_files(tmp_path / "saved")
    assert [(file.name, file.split) for file in found.files] == [("test_sft", "test"), ("train_sft", "train")]
    assert found.notes[-1] == "not read: unsupervised (its labels are all -1, which stands for secret)"


def test_which_file_is_what_is_on_the_quality_page(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    put(tmp_path / "raw", "banking77_train.csv", "banking77_test.csv", ".DS_Store")
    task = Task(base="b", data="raw", kind="classification", quality={"off": ["near_duplicate", "leak"]})
    validate(task, TaskPlace("small"))
    said = "splits by the names of files: test from banking77_test.csv; train from banking77_train.csv"
    for place in (capsys.readouterr().out, TaskPlace("small").quality_page.read_text()):
        assert said in place and "not read: .DS_Store (hidden)" in place
    assert json.loads(TaskPlace("small").quality.read_text())["splits"]["test"] == 20
