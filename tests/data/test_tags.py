"""Words and tags as lists, texts and numbers; what is wrong with them, and what is mended."""

import json

import polars as pl
import pytest

from biasline.data.contract import check_examples
from biasline.data.sources import read_examples
from biasline.data.tags import in_bio, refuse_one_tag, refuse_unlearned, tag_counts, tag_notes, with_beginnings
from biasline.errors import BiaslineError
from biasline.kinds.learning.tagging import LEARNING
from biasline.params import Quality, Source, Task


def read(tmp_path, rows, **source):
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    return read_examples(tmp_path / "rows.json", LEARNING.columns, Source(**source)).frame


def frame_of(*tags):
    return pl.DataFrame({"row": range(1, len(tags) + 1), "tags": list(tags)})


def reasons(tmp_path, rows, labels=(), off=()):
    task = Task(kind="tagging", base="b", data="d", quality={"off": list(off)}, source={"labels": list(labels)})
    frame, _ = LEARNING.prepared(read(tmp_path, rows, labels=list(labels)), task)
    checked = check_examples(frame, "tagging", task.quality, labels)
    return dict(checked.quarantine.select("row", "reasons").rows())


def test_lists_become_texts(tmp_path):
    rows = [{"tokens": ["Ada", "left"], "ner_tags": ["B-PER", "O"]}, {"tokens": "Ada\t left ", "ner_tags": "O O"}]
    frame = read(tmp_path, rows)
    assert frame.select("text", "tags").rows() == [("Ada left", "B-PER O"), ("Ada left", "O O")]
    assert not frame["text__not_text"].any() and not frame["tags__not_text"].any()


def test_numbers_are_named_by_labels(tmp_path):
    rows = [{"words": ["Ada", "left"], "tags": [1, 0]}, {"words": ["x"], "tags": [7]}]
    assert read(tmp_path, rows, labels=["O", "B-PER"])["tags"].to_list() == ["B-PER O", "7"]
    assert read(tmp_path, rows)["tags"].to_list() == ["1 0", "7"]
    assert reasons(tmp_path, rows, labels=["O", "B-PER"]) == {2: ["unknown_tag", "stray_tag"]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"tokens": ["New York", "x"], "tags": ["O", "O"]}, ["broken_word"]),
        ({"tokens": ["a\u00a0b", "x"], "tags": ["O", "O"]}, ["broken_word"]),
        ({"tokens": ["", "x"], "tags": ["O", "O"]}, ["broken_word"]),
        ({"tokens": ["a", ""], "tags": ["O", "O"]}, ["broken_word"]),
        ({"tokens": ["a", None, "b"], "tags": ["O", "O", "O"]}, ["broken_word"]),
        ({"tokens": ["a", "b"], "tags": ["O", None]}, ["empty_tags"]),
        ({"tokens": ["a", "b"], "tags": []}, ["empty_tags"]),
        ({"tokens": ["a", "b"], "tags": ["O"]}, ["unequal_lengths"]),
        ({"tokens": [], "tags": ["O"]}, ["empty_text"]),
        ({"tokens": {"a": 1}, "tags": ["O"]}, ["not_text"]),
        ({"tokens": [["a"]], "tags": ["O"]}, ["not_text"]),
        ({"tokens": ["a", "b"], "tags": ["O", "I-PER"]}, ["broken_bio"]),
        ({"tokens": ["a", "b"], "tags": ["B-LOC", "I-PER"]}, ["broken_bio"]),
        ({"tokens": ["a", "b"], "tags": ["O", "PER"]}, ["stray_tag"]),
    ],
)
def test_a_broken_row_is_quarantined_with_its_reason(tmp_path, row, reason):
    rows = [{"tokens": ["Ada", "X", "Y"], "tags": ["B-PER", "I-PER", "O"]}, row]
    found = reasons(tmp_path, rows)
    assert list(found) == [2] and set(reason) <= set(found[2])


def test_plain_tags_have_no_beginnings(tmp_path):
    assert reasons(tmp_path, [{"tokens": ["Ada", "left"], "pos_tags": ["NOUN", "VERB"]}]) == {}


def test_broken_beginnings_are_mended_where_the_rule_is_off(tmp_path):
    rows = [{"tokens": ["Ada", "X", "Y"], "tags": ["I-PER", "I-PER", "I-LOC"]}, {"tokens": ["a"], "tags": ["O"]}]
    assert reasons(tmp_path, rows, off=["broken_bio"]) == {}
    frame, count = with_beginnings(frame_of("I-PER I-PER I-LOC", "O B-PER I-PER", None))
    assert frame["tags"].to_list() == ["B-PER I-PER B-LOC", "O B-PER I-PER", None] and count == 1
    task = Task(kind="tagging", base="b", data="d", quality={"off": ["broken_bio"]})
    _, notes = LEARNING.prepared(frame_of("I-PER"), task)
    assert notes == ["1 rows with a tag I-X after neither B-X nor I-X: it begins an entity"]


def test_other_schemes_become_bio():
    frame, count = in_bio(frame_of("S-PER O B-LOC E-LOC", "U-PER", "O B-LOC I-LOC L-LOC"), ())
    assert frame["tags"].to_list() == ["B-PER O B-LOC I-LOC", "B-PER", "O B-LOC I-LOC I-LOC"] and count == 3
    assert in_bio(frame_of("S-X NOUN"), ())[1] == 0
    frame, count = in_bio(frame_of("O S-PER", "B-LOC M-LOC E-LOC O"), ())
    assert frame["tags"].to_list() == ["O B-PER", "B-LOC I-LOC I-LOC O"] and count == 2
    assert in_bio(frame_of("O S-PER O"), ())[0]["tags"].to_list() == ["O B-PER O"]
    with pytest.raises(BiaslineError, match="source.labels: E-LOC is of a scheme"):
        in_bio(frame_of("B-LOC E-LOC"), ["O", "B-LOC", "E-LOC"])


def test_tags_that_are_never_learned_are_refused():
    splits = {"train": frame_of("O B-PER"), "valid": frame_of("O"), "test": frame_of("O", "B-LOC O", "B-LOC")}
    with pytest.raises(BiaslineError, match=r"no training row has the tag: 'B-LOC' \(test split: 2 rows, row 2\) → .*"):
        refuse_unlearned(splits)


def test_what_is_told_of_tags():
    assert "tags are numbers" in tag_notes({"train": frame_of("0 1")})[0]
    assert tag_notes({"train": frame_of("O B-PER")}) == []
    assert tag_counts(["B-PER I-PER O", "B-PER B-LOC"]) == [("PER", 2), ("LOC", 1)]
    assert tag_counts(["NOUN VERB", "NOUN O"]) == [("NOUN", 2), ("VERB", 1)]


def test_a_rule_is_known_by_its_name():
    with pytest.raises(BiaslineError, match="'broken_bia' is no rule; expected some of .*broken_bio"):
        check_examples(frame_of("O"), "tagging", Quality(off=("broken_bia",)))


def test_lists_in_the_cells_of_a_table_are_lists(tmp_path):
    rows = [
        {"tokens": '["Ada", "left"]', "tags": "['B-PER', 'O']"},
        {"tokens": "[ Ada ]", "tags": "O O O"},
        {"tokens": "[1]", "tags": "O"},  # a word of running text
        {"tokens": "left Oslo", "tags": "[0, 1]"},
    ]
    found = read(tmp_path, rows, labels=["O", "B-PER"]).select("text", "tags").rows()
    assert found == [("Ada left", "B-PER O"), ("[ Ada ]", "O O O"), ("[1]", "O"), ("left Oslo", "O B-PER")]


def test_numbers_in_texts_are_named_too(tmp_path):
    rows = [{"tokens": "Ada left", "tags": "1 0"}, {"tokens": "Ada", "tags": "B-PER"}]
    assert read(tmp_path, rows, labels=["O", "B-PER"])["tags"].to_list() == ["B-PER O", "B-PER"]


def test_the_same_words_with_other_tags_are_kept_in_neither_form(tmp_path):
    rows = [
        {"tokens": ["May", "came"], "tags": ["B-PER", "O"]},
        {"tokens": ["May", "came"], "tags": ["O", "O"]},
        {"tokens": ["may", "came"], "tags": ["O", "O"]},  # another word
        {"tokens": ["May", "came"], "tags": ["O"]},  # says nothing about the others
    ]
    found = reasons(tmp_path, rows)
    assert found[1] == found[2] == ["conflicting_duplicate"] and 3 not in found and found[4] == ["unequal_lengths"]


@pytest.mark.parametrize("name", ["broken_word", "empty_tags", "unequal_lengths", "unknown_tag"])
def test_rows_that_no_later_step_can_read_stay_out(name):
    with pytest.raises(BiaslineError, match=f"quality.off: {name} cannot be switched off: no later step can read"):
        check_examples(frame_of("O"), "tagging", Quality(off=(name,)))


def test_one_tag_tells_nothing_apart():
    with pytest.raises(BiaslineError, match="every word of the training rows has the tag 'O': there is nothing to"):
        refuse_one_tag(frame_of("O O", "O"))
    refuse_one_tag(frame_of("O O", "B-X"))
