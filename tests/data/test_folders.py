import datasets
import pytest

from biasline.data.folders import data_files
from biasline.errors import BiaslineError


def put(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("name", ["test.xlsx", "test", "corpus.test", "test.csv.zip", "held/test/rows.xlsx", "test.xz"])
def test_an_unread_file_that_names_a_split_is_refused(tmp_path, name):
    put(tmp_path, "train.csv", name)
    with pytest.raises(BiaslineError, match=r"its name says test, and it cannot be read .* its rows would be missing"):
        data_files(tmp_path)


def test_a_link_to_nothing_is_refused(tmp_path):
    put(tmp_path, "train.csv")
    (tmp_path / "more.csv").symlink_to(tmp_path / "gone.csv")
    with pytest.raises(BiaslineError, match=r"more\.csv: .*a link to nothing"):
        data_files(tmp_path)


def test_what_is_not_read_is_named_and_gives_no_rows(tmp_path):
    aside = ["._train.csv", ".DS_Store", "README.txt", "README.md", "LICENSE.txt", "LICENSE", "train.csv.dvc"]
    aside += ["dataset_info.json", "notes.xlsx", "test.py", "~$test.xlsx"]
    put(tmp_path, "train.csv", "test.csv", *aside, "__MACOSX/._test.csv", ".cache/test.csv")
    (tmp_path / "empty").mkdir()  # neither git nor DVC keeps it
    found, notes = data_files(tmp_path)
    assert {file.name for file in found} == {"train.csv", "test.csv"}
    [note] = [note for note in notes if note.startswith("not read: ")]
    for name in ("._train.csv (hidden)", ".cache/ (hidden)", "README.txt (no rows)"):
        assert name in note
    assert note.count("(") == len(aside) + 2


def test_each_unread_file_is_named_where_they_are_few(tmp_path):
    put(tmp_path, "rows.csv", "notes.xlsx", "LICENSE")
    assert data_files(tmp_path)[1] == ["not read: LICENSE (no rows), notes.xlsx (.xlsx is not read)"]


def test_copies_and_sums_beside_a_data_file_are_no_lost_rows(tmp_path):
    put(tmp_path, "train.csv", "test.csv", "train.csv.bak", "train.csv~", "test/a.csv", "test/a.csv.crc")
    found, [note] = data_files(tmp_path)
    assert [file.name for file in found] == ["test/a.csv", "test.csv", "train.csv"]
    assert note == (
        "not read: train.csv.bak (beside train.csv), train.csv~ (beside train.csv), test/a.csv.crc (beside a.csv)"
    )
    (tmp_path / "test.csv").unlink()
    put(tmp_path, "test.csv.bak")
    with pytest.raises(BiaslineError, match=r"test\.csv\.bak: its name says test, and it cannot be read"):
        data_files(tmp_path)


def test_a_saved_data_set_inside_a_folder_is_refused(tmp_path):
    put(tmp_path, "train.csv")
    datasets.Dataset.from_list([{"text": "a", "label": 1}]).save_to_disk(tmp_path / "test")
    with pytest.raises(BiaslineError, match="a data set saved by `datasets`, inside a folder of files"):
        data_files(tmp_path)


def test_names_are_paths_below_the_folder_and_say_their_splits(tmp_path):
    found, notes = data_files(put(tmp_path, "b.csv", "test/x.train.csv.gz", "test/y.CSV", "__train.csv"))
    assert [(file.name, file.said) for file in found] == [
        ("__train.csv", ("train",)),
        ("b.csv", ()),
        ("test/x.train.csv.gz", ("train", "test")),
        ("test/y.CSV", ("test",)),
    ]
    assert notes == []


def test_the_text_of_a_treebank_is_not_read_beside_it(tmp_path):
    found, [note] = data_files(put(tmp_path, "de-ud-test.conllu", "de-ud-test.txt", "de-ud-train.conllu"))
    assert [file.name for file in found] == ["de-ud-test.conllu", "de-ud-train.conllu"]
    assert note == "not read: de-ud-test.txt (the text of de-ud-test.conllu)"
