import fnmatch

import pytest
from datasets import data_files as hub

from biasline.data.split_names import dealt_by_names, named_splits, splits_in


@pytest.mark.parametrize(
    ("name", "splits"),
    [
        ("train", ["train"]),
        ("banking77_train", ["train"]),
        ("train-00000-of-00001", ["train"]),
        ("validation-00000-of-00001", ["valid"]),
        ("training", ["train"]),
        ("testing", ["test"]),
        ("test_final", ["test"]),
        ("eval", ["test"]),
        ("evaluation.2013", ["test"]),
        ("dev_mismatched", ["valid"]),
        ("my val 2", ["valid"]),
        ("TEST2013", ["test"]),
        ("testSet", ["test"]),
        ("trainset", ["train"]),
        ("bankingTrain", ["train"]),
        ("测试集", ["test"]),
        ("数据train", ["train"]),
        ("train_test", ["test", "train"]),
        ("contest", []),
        ("latest", []),
        ("trainee", []),
        ("devices", []),
        ("január_évaltest", []),
        ("january", []),
    ],
)
def test_a_split_word_counts_where_no_letters_stand_beside_it(name, splits):
    assert splits_in(name) == splits


OURS = {"train": "train", "validation": "valid", "test": "test"}


@pytest.mark.parametrize("keyword", [word for words in hub.SPLIT_KEYWORDS.values() for word in words])
@pytest.mark.parametrize("pattern", ["{}", "a-{}", "a_{}", "{} b", "{}.b", "{}00", "1{}2"])
def test_what_the_hub_takes_for_a_split_is_taken_so(keyword, pattern):
    name = pattern.format(keyword)
    [theirs] = [
        OURS[str(split)]
        for split, patterns in hub.DEFAULT_PATTERNS_SPLIT_IN_FILENAME.items()
        if any(fnmatch.fnmatchcase(f"x/{name}.csv", glob) for glob in patterns)
    ]
    assert splits_in(name) == [theirs]


def test_the_nearest_name_decides():
    assert named_splits(("training_data", "test")) == ["test", "train"]
    assert named_splits(("test", "part")) == ["test"]
    assert named_splits(("test", "more", "train")) == ["train", "test"]


def test_without_a_test_file_the_validation_files_are_the_test_and_it_is_said():
    splits, [note] = dealt_by_names(["dev.tsv", "train.tsv"], [["valid"], ["train"]])
    assert splits == ["test", "train"]
    assert note == "splits by the names of files: test from dev.tsv (no name says test); train from train.tsv"
    splits, _ = dealt_by_names(["dev.tsv", "eval.tsv"], [["valid"], ["test"]])
    assert splits == ["valid", "test"]


def test_names_that_say_two_splits_or_none_are_noted():
    splits, notes = dealt_by_names(["a.csv", "train_test.csv", "train.csv"], [[], ["test", "train"], ["train"]])
    assert splits == [None, "test", "train"]
    assert "taken as training rows, since the name says no split: a.csv" in notes[0]
    assert notes[1] == "train_test.csv names more than one split (test, train); its rows are taken as test"
    _, [note] = dealt_by_names([f"{n}.csv" for n in range(9)], [[]] * 9)
    assert note == "no name of the 9 files says a split: all of their rows are dealt by their content"


def test_one_file_of_no_split_needs_no_note():
    assert dealt_by_names(["rows.csv"], [[]]) == ([None], [])
