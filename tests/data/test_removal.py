"""Records out of raw files, and tombstones of them."""

import gzip
import json

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from biasline.data.records import read_records
from biasline.data.removal import remove_records
from biasline.data.tombstones import Tombstones
from biasline.errors import BiaslineError

ROWS = [{"text": f"row {number}, said “so”", "label": "a"} for number in range(5)]


def with_header(*_):
    return True


def left(path):
    return list(read_records(path, with_header))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", '{"t": "a"}\n\n{"t":  "b"}\n{"t": "\u2028c"}', '{"t": "a"}\n\n{"t": "\u2028c"}'),
        (
            "a.json",
            '[\n  {"t": "a"},\n  {"t": "b"},\n  {"t": "é"}\n]\n',
            '[\n  {\n    "t": "a"\n  },\n  {\n    "t": "é"\n  }\n]\n',
        ),
        ("a.csv", 't,l\r\n"a\nb",1\r\nb,2\r\n\r\nc,"3"\r\n', 't,l\r\n"a\nb",1\r\n\r\nc,"3"\r\n'),
        ("a.tsv", '\ufefft\tl\na "x\t1\nb\t2\nc\t3', '\ufefft\tl\na "x\t1\nc\t3'),
    ],
)
def test_the_second_record_goes_and_the_others_stay_as_they_are(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content.encode())
    before = left(path)
    remove_records(path, {1}, with_header)
    assert path.read_bytes().decode() == expected
    assert left(path) == [before[0], before[2]]
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_packed_and_columnar_files(tmp_path):
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    pl.DataFrame(ROWS).write_parquet(tmp_path / "a.parquet")
    for path in tmp_path.iterdir():
        remove_records(path, {0, 4}, with_header)
        assert left(path) == ROWS[1:4]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(str.strip), min_size=3),
    gone=st.sets(st.integers(0, 40)),
)
def test_any_texts_in_quotes(tmp_path, texts, gone):
    path = tmp_path / "a.csv"
    rows = ["text,number", *('"' + text.replace('"', '""') + f'",{n}' for n, text in enumerate(texts))]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8", newline="")
    gone = {number for number in gone if number < len(texts) - 1}
    before = left(path)
    remove_records(path, gone, with_header)
    assert left(path) == [record for number, record in enumerate(before) if number not in gone]


def test_a_link_and_the_rights_of_a_file_stay(tmp_path):
    real = tmp_path / "real.csv"
    real.write_text("t,l\na,1\nb,2\n")
    real.chmod(0o600)
    (tmp_path / "link.csv").symlink_to(real)
    remove_records(tmp_path / "link.csv", {0}, with_header, dry_run=True)
    assert real.read_text() == "t,l\na,1\nb,2\n"
    remove_records(tmp_path / "link.csv", {0}, with_header)
    assert (tmp_path / "link.csv").is_symlink() and real.read_text() == "t,l\nb,2\n"
    assert real.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_rewritten_is_told_with_its_rows(tmp_path):
    path = tmp_path / "a.conll"
    content = "EU B-ORG\nrejects O\n\nPeter B-PER\nsays O\n\nEU B-ORG\nsays O\n"
    path.write_text(content)
    with pytest.raises(BiaslineError, match="take its records 2 out by hand"):
        remove_records(path, {1}, with_header)
    assert path.read_text() == content
    (tmp_path / "c.json").write_text('{"t":\n "a"}\n{"t": "b"}\n')
    with pytest.raises(BiaslineError, match="neither a line each nor in a list"):
        remove_records(tmp_path / "c.json", {1}, with_header, dry_run=True)
    (tmp_path / "b.jsonl").write_text('{"t": "a"}\n')
    with pytest.raises(BiaslineError, match="no record would be left"):
        remove_records(tmp_path / "b.jsonl", {0}, with_header)


def test_tombstones_know_a_row_again(tmp_path):
    path = tmp_path / "erased.txt"
    stones = Tombstones.read(path)
    stones.write(path, [stones.hash("the row")])
    again = Tombstones.read(path)
    assert again.has("the row") and not again.has("another") and again.salt == stones.salt
    again.write(path, [again.hash("another")])
    assert all(map(Tombstones.read(path).has, ["the row", "another"]))
    assert "the row" not in path.read_text()
    assert Tombstones.read(tmp_path / "none").salt != stones.salt
    path.write_text("something else\n")
    with pytest.raises(BiaslineError, match="no file of erased rows → restore it from git"):
        Tombstones.read(path)
