import csv
import io

import pytest

from biasline.data import decoding
from biasline.data.sources import read_examples
from biasline.errors import BiaslineError
from biasline.kinds.learning import columns_of
from biasline.params import Source

ROWS = [("so good, really", "1"), ("so bad", "0"), ("a | b; c", "1"), ('say "hi"', "0")]


def text_of(delimiter, rows=ROWS):
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows([("text", "label"), *rows])
    return file.getvalue()


def read(tmp_path, text):
    (tmp_path / "rows.csv").write_text(text, encoding="utf-8")
    return (
        read_examples(tmp_path / "rows.csv", columns_of("classification"), Source())
        .frame.select("text", "label")
        .rows()
    )


@pytest.mark.parametrize("block", [5, 1 << 22])
@pytest.mark.parametrize("delimiter", [",", ";", "|"])
def test_the_delimiter_is_the_one_that_makes_rows_alike(tmp_path, monkeypatch, delimiter, block):
    monkeypatch.setattr(decoding, "_BLOCK", block)
    assert read(tmp_path, text_of(delimiter)) == ROWS


def test_unquoted_commas_do_not_hide_a_semicolon(tmp_path):
    assert read(tmp_path, "text;label\nso good, really;1\nyes, no, well;0\nplain;1\n")[1] == ("yes, no, well", "0")


def test_commas_win_where_they_fit(tmp_path):
    assert read(tmp_path, "text,label\na; b,x\nc; d,y\n") == [("a; b", "x"), ("c; d", "y")]


def test_a_broken_row_of_a_file_with_semicolons_is_refused_with_its_place(tmp_path):
    rows = [(f"text {n}", "1") for n in range(30)]
    with pytest.raises(BiaslineError, match=r"row 31 \(line 32\) has 3 fields, the first line has 2"):
        read(tmp_path, text_of(";", rows) + "a;b;c\n")


def test_rows_longer_than_what_is_looked_at_and_blank_lines_in_front_are_read(tmp_path):
    rows = [("x" * 300_000, "1"), ("y" * 10, "0")]
    assert read(tmp_path, "\n\n" + text_of(",", rows)) == rows
    with pytest.raises(BiaslineError, match=r"row 2 \(line 5\) has 1 fields"):
        read(tmp_path, "\n\ntext,label\na,b\nc\n")
