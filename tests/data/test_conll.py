"""CoNLL columns: words and tags line by line."""

import pytest

from biasline.data.conll import is_conll, read_conll
from biasline.data.files import raw_files
from biasline.errors import BiaslineError


def read(tmp_path, text, blocks=()):
    return list(read_conll(tmp_path / "a.conll", text, iter(blocks)))


def test_sentences_stand_between_empty_lines(tmp_path):
    text = "-DOCSTART- -X- O O\n\nAda NNP B-NP B-PER\nleft VBD B-VP O\n\n\nOslo NNP B-NP B-LOC"
    assert read(tmp_path, text) == [
        {"tokens": ["Ada", "left"], "tags": ["B-PER", "O"]},
        {"tokens": ["Oslo"], "tags": ["B-LOC"]},
    ]


def test_a_line_may_come_in_two_blocks(tmp_path):
    assert read(tmp_path, "Ada B-P", ["ER\r\nleft O\r", "\n\r\nOslo B-LOC\r\n"]) == [
        {"tokens": ["Ada", "left"], "tags": ["B-PER", "O"]},
        {"tokens": ["Oslo"], "tags": ["B-LOC"]},
    ]


def test_comments_are_no_words_and_a_hash_may_be_one(tmp_path):
    text = "# id 12 domain=en\nAda _ _ B-PER\n# _ _ O\n#tag _ _ O\n\n# text = Oslo\nOslo _ _ B-LOC\n"
    assert [row["tokens"] for row in read(tmp_path, text)] == [["Ada", "#", "#tag"], ["Oslo"]]


def test_tabs_part_columns_where_there_are_some(tmp_path):
    assert read(tmp_path, "10 000\tNUM\n")[0] == {"tokens": ["10 000"], "tags": ["NUM"]}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("alone", r"a\.conll: line 3 \('alone'\): a word and its tag were expected"),
        ("Ada NNP O", r"line 3 \('Ada NNP O'\): 3 columns, and 2 in the lines before → mend it"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, told):
    with pytest.raises(BiaslineError, match=told):
        read(tmp_path, f"Ada B-PER\n\n{line}\n")


def test_files_are_known_by_their_endings_and_deal_splits(tmp_path):
    assert is_conll(tmp_path / "x.CONLL") and is_conll(tmp_path / "x.iob2.gz") and not is_conll(tmp_path / "x.txt")
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.conll").write_text("Ada B-PER\n")
    found = raw_files(tmp_path).files
    assert [file.split for file in found] == ["test", "valid", "train"]
    assert list(found[0].records(lambda *_: True)) == [{"tokens": ["Ada"], "tags": ["B-PER"]}]


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("-DOCSTART- -X- O O\n\nAda NNP B-NP B-PER\nleft VBD B-VP O\n\nOslo NNP B-NP B-LOC\n", True),
        ("Ada\tB-PER\nleft\tO\n\n", True),
        ("Ada\tB-PER\nleft\tO\n", False),  # no sentence ends: it may be a table
        ("word\ttag\nAda\tB-PER\n\n", False),
        ("text label\n\nso good\n", False),
        ("Ada NNP O\nleft O\n\n", False),
        ("O\n\n", False),
        ("", False),
    ],
)
def test_a_text_of_words_with_tags_of_entities_is_known_by_its_content(tmp_path, text, known):
    assert is_conll(tmp_path / "train.txt", text) is known


def test_a_treebank_gives_words_and_parts_of_speech(tmp_path):
    rows = [
        ("1-2", "im", "_", "_"),
        ("1", "in", "in", "ADP"),
        ("2", "dem", "der", "DET"),
        ("3", "Haus", "Haus", "NOUN"),
        ("3.1", "steht", "stehen", "VERB"),
        ("4", "#", "#", "SYM"),
    ]
    text = "# text = im Haus #\n" + "".join("\t".join((*row, *"_" * 6)) + "\n" for row in rows) + "\n"
    found = list(read_conll(tmp_path / "de.conllu", text, iter(())))
    assert found == [{"tokens": ["in", "dem", "Haus", "#"], "tags": ["ADP", "DET", "NOUN", "SYM"]}]
    with pytest.raises(BiaslineError, match="line 1 .*: 3 columns, and a treebank's lines have 10"):
        list(read_conll(tmp_path / "de.conllu", "1\tin\tADP\n", iter(())))


def test_numbers_of_classes_in_lists_are_read_by_their_names(tmp_path):
    import datasets

    tags = datasets.List(datasets.ClassLabel(names=["O", "B-PER"]))
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "ner_tags": tags})
    datasets.Dataset.from_dict({"tokens": [["Ada", "left"]], "ner_tags": [[1, 0]]}, features=features).save_to_disk(
        str(tmp_path / "saved")
    )
    [record] = raw_files(tmp_path / "saved").files[0].records(lambda *_: True)
    assert record == {"tokens": ["Ada", "left"], "ner_tags": ["B-PER", "O"]}


def test_words_that_begin_with_a_hash_are_no_comments(tmp_path):
    text = "#Oslo\tHASH\nleft\tVERB\n#\tSYM\n\n# sent\tid\n#win\tHASH\n#newdoc\n"
    assert [row["tokens"] for row in read(tmp_path, text)] == [["#Oslo", "left", "#"], ["#win"]]
    assert read(tmp_path, "Ada NOUN\n# SYM\n")[0]["tags"] == ["NOUN", "SYM"]


def test_a_document_ends_a_sentence(tmp_path):
    text = "-DOCSTART- O\nAda B-PER\n-DOCSTART- O\nleft O\n"
    assert [row["tokens"] for row in read(tmp_path, text)] == [["Ada"], ["left"]]


def test_a_long_first_sentence_and_words_of_odd_white_space_are_known(tmp_path):
    text = "".join(f"{word} O\n" for word in ["我"] * 300) + "\u00a0 O\n\n我 B-LOC\n我 M-LOC\n我 E-LOC\n\n"
    assert is_conll(tmp_path / "train.txt", text)


def test_a_word_of_a_treebank_without_a_part_of_speech_has_no_tag(tmp_path):
    line = "\t".join(["1", "Ada", "Ada", *"_" * 7])
    assert next(read_conll(tmp_path / "a.conllu", f"{line}\n", iter(()))) == {"tokens": ["Ada"], "tags": [""]}
