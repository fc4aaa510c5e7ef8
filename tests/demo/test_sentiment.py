import pytest

from biasline.demo.sentiment import make_rows


@pytest.fixture(scope="module")
def data():
    return make_rows()


def test_a_seed_names_a_file_and_it_is_the_committed_one(data, root):
    assert make_rows().to_tsv() == data.to_tsv() == (root / "data/sentiment/raw.tsv").read_text(encoding="utf-8")
    assert make_rows(seed=1).to_tsv() != data.to_tsv()


def test_both_languages_and_labels_are_there_in_like_numbers(data):
    for column in (1, 2):
        values = [row[column] for row in data.rows if row[column]]
        assert len(set(values)) == 2
        assert 0.4 < sum(value == values[0] for value in values) / len(values) < 0.6
    assert len(data.rows) >= 1200


def test_sound_reviews_stand_once_and_broken_ones_are_few(data):
    assert 0.01 < sum(data.broken.values()) / len(data.rows) < 0.03
    assert len(set(data.rows)) >= len(data.rows) - data.broken["exact duplicate"] - 10


def test_a_row_is_three_fields_of_one_line(data):
    for line in data.to_tsv().splitlines():
        assert line.count("\t") == 2
