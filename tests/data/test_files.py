import datasets
import polars as pl
import pytest

from biasline.data.contract import check_examples
from biasline.data.files import raw_files
from biasline.data.kinds import KINDS
from biasline.data.sources import read_examples
from biasline.data.split import split_examples
from biasline.errors import BiaslineError
from biasline.params import Quality, Source, Split


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
    kind = KINDS["classification"]
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


@pytest.mark.parametrize("name", ["test.xlsx", "test", "corpus.test", "test.csv.zip", "held/test/rows.xlsx", "test.xz"])
def test_an_unread_file_that_names_a_split_is_refused(tmp_path, name):
    put(tmp_path, "train.csv", name)
    with pytest.raises(BiaslineError, match=r"its name says test, and it cannot be read .* its rows would be missing"):
        raw_files(tmp_path)


def test_a_link_to_nothing_is_refused(tmp_path):
    put(tmp_path, "train.csv")
    (tmp_path / "more.csv").symlink_to(tmp_path / "gone.csv")
    with pytest.raises(BiaslineError, match=r"more\.csv: .*a link to nothing"):
        raw_files(tmp_path)


def test_what_is_not_read_is_named_and_gives_no_rows(tmp_path):
    aside = ["._train.csv", ".DS_Store", "README.txt", "README.md", "LICENSE.txt", "LICENSE", "train.csv.dvc"]
    aside += ["dataset_info.json", "notes.xlsx", "test.py", "~$test.xlsx"]
    put(tmp_path, "train.csv", "test.csv", *aside, "__MACOSX/._test.csv", ".cache/test.csv")
    (tmp_path / "empty").mkdir()
    found = raw_files(tmp_path)
    assert {file.name for file in found.files} == {"train.csv", "test.csv"}
    [note] = [note for note in found.notes if note.startswith("not read: ")]
    for name in ("._train.csv (hidden)", ".cache/ (hidden)", "README.txt (no rows)", "empty/ (empty)"):
        assert name in note
    assert note.count("(") == len(aside) + 3


def test_each_unread_file_is_named_where_they_are_few(tmp_path):
    put(tmp_path, "rows.csv", "notes.xlsx", "LICENSE")
    assert raw_files(tmp_path).notes == ("not read: LICENSE (no rows), notes.xlsx (.xlsx is not read)",)


@pytest.mark.parametrize("names", [("test.csv",), ("dev.csv", "eval.csv"), ("train_test_split.csv",)])
def test_held_out_files_alone_are_refused(tmp_path, names):
    with pytest.raises(BiaslineError, match=rf"no rows to train on: .*{names[-1]}"):
        raw_files(put(tmp_path, *names))


def test_nested_files_are_called_by_their_path_and_read_in_its_order(tmp_path):
    put(tmp_path, "b.csv", "a/x.csv", "a/b/y.csv")
    frame = read_examples(tmp_path, KINDS["classification"], Source()).frame
    assert frame["file"].unique(maintain_order=True).to_list() == ["a/b/y.csv", "a/x.csv", "b.csv"]


def test_a_saved_data_set_inside_a_folder_is_refused(tmp_path):
    put(tmp_path, "train.csv")
    datasets.Dataset.from_list([{"text": "a", "label": 1}]).save_to_disk(tmp_path / "test")
    with pytest.raises(BiaslineError, match="a data set saved by `datasets`, inside a folder of files"):
        raw_files(tmp_path)


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


@pytest.mark.parametrize(("name", "kind"), [("rows.arrow", "Arrow"), ("rows.parquet", "Parquet")])
def test_a_damaged_columnar_file_is_refused(tmp_path, name, kind):
    path = put(tmp_path, name) / name
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(BiaslineError, match=rf"{name}: damaged {kind}"):
        read_examples(path, KINDS["classification"], Source())
