import json

import polars as pl
import pytest

from biasline.data.kinds import KINDS
from biasline.data.sources import read_examples
from biasline.errors import BiaslineError

ROWS = [
    {"instruction": "说一种水果", "input": "", "output": "苹果", "skill": "fruit"},
    {"instruction": "Add 1 and 2", "input": "now", "output": "3"},
]


def read(path, **columns):
    frame, taken = read_examples(path, KINDS["instruction"], columns)
    return frame.select("row", "instruction", "input", "output").rows(), taken


def put(tmp_path, raw, name="rows.json"):
    path = tmp_path / name
    path.write_bytes(raw if isinstance(raw, bytes) else raw.encode())
    return path


EXPECTED = [(1, "说一种水果", "", "苹果"), (2, "Add 1 and 2", "now", "3")]


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.txt"])
@pytest.mark.parametrize("lines", [True, False])
def test_json_is_told_by_content_not_by_name(tmp_path, name, lines, bom):
    text = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) if lines else json.dumps(ROWS)
    assert read(put(tmp_path, bom + text.encode(), name))[0] == EXPECTED


def test_csv_and_tsv(tmp_path):
    csv = 'instruction,input,output\n说一种水果,,苹果\n"Add 1 and 2","now",3\n'
    assert read(put(tmp_path, csv))[0] == EXPECTED
    tsv = "instruction\tinput\toutput\n说一种水果\t\t苹果\nAdd 1 and 2\tnow\t3\n"
    assert read(put(tmp_path, tsv))[0] == EXPECTED


def test_a_lone_quote_in_a_tsv_is_text(tmp_path):
    path = put(tmp_path, 'instruction\toutput\nsay "hi\thi\nsay bye\tbye\n')
    assert read(path)[0] == [(1, 'say "hi', "", "hi"), (2, "say bye", "", "bye")]


def test_parquet(tmp_path):
    pl.DataFrame(ROWS).write_parquet(tmp_path / "rows")
    assert read(tmp_path / "rows")[0] == EXPECTED


@pytest.mark.parametrize(
    ("question", "answer"),
    [("question", "std_answer"), ("query", "response"), ("prompt", "completion"), ("Instruction", "Output")],
)
def test_usual_names_are_recognised_and_said(tmp_path, question, answer):
    rows, taken = read(put(tmp_path, json.dumps([{question: "q", answer: "a", "source": "s"}])))
    assert rows == [(1, "q", "", "a")]
    assert (taken["instruction"], taken["output"]) == (question, answer)


def test_columns_named_in_params_win(tmp_path):
    path = put(tmp_path, json.dumps([{"instruction": "no", "frage": "q", "output": "a"}]))
    assert read(path, instruction="frage")[0] == [(1, "q", "", "a")]


def test_further_columns_travel_along_as_text(tmp_path):
    frame, _ = read_examples(
        put(tmp_path, json.dumps([ROWS[0] | {"n": 3, "tags": ["a"]}, ROWS[1]])), KINDS["instruction"], {}
    )
    assert frame["skill"].to_list() == ["fruit", None]
    assert frame["n"].to_list() == ["3", None]
    assert frame["tags"].to_list() == ['["a"]', None]


def test_values_that_are_no_text_are_marked_not_lost(tmp_path):
    frame, _ = read_examples(
        put(tmp_path, json.dumps([{"instruction": "a", "output": 3}, {"instruction": None}])), KINDS["instruction"], {}
    )
    assert frame["output"].to_list() == ["3", None]
    assert frame["output__not_text"].to_list() == [True, False]
    assert frame["instruction"].to_list() == ["a", None]


def test_a_line_separator_inside_a_json_string_is_no_line_end(tmp_path):
    line = json.dumps({"instruction": "a\u2028b", "output": "c\x0cd"}, ensure_ascii=False)
    assert read(put(tmp_path, line + "\n" + line))[0] == [(1, "a\u2028b", "", "c\x0cd"), (2, "a\u2028b", "", "c\x0cd")]


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        ('[{"instruction": "a", "output": "b"},\n{"instruction": ', r"broken JSON at line 2, column 17"),
        ('{"instruction": "a", "output": "b"}\n{"instr', r"broken JSON at line 2, column"),
        ('{"instruction": "a", "output": "b"}\n[1]', r"line 2 is '\[1\]'; an object was expected"),
        ("[1, 2]", r"item 1 is 1; an object was expected"),
        ("", "empty"),
        ("  \n ", "empty"),
        ("[]", "no rows in it"),
        ("instruction,output\n", "no rows in it"),
        ("a,a\n1,2\n", "column 'a' stands twice"),
        ("instruction,output\nx,y,z\n", "row 1 has 3 fields, the header has 2"),
        ('instruction,output\nx,"y\n', "line"),
        ('[{"foo": 1}]', r"no column for 'instruction'; it has: foo"),
        ("指令".encode("gb18030"), r"not UTF-8: byte 0xc1 at position 2 \(line 1\)"),
        (b'[{"instruction": "a",\n"output": "\xff"}]', r"byte 0xff at position 33 \(line 2\)"),
    ],
)
def test_a_file_that_cannot_be_used_is_told_with_the_place(tmp_path, raw, told):
    with pytest.raises(BiaslineError, match=told) as error:
        read(put(tmp_path, raw))
    assert "rows.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_and_a_folder_are_told(tmp_path):
    with pytest.raises(BiaslineError, match=r"none\.json: no such file"):
        read(tmp_path / "none.json")
    with pytest.raises(BiaslineError, match="a folder"):
        read(tmp_path)


def test_a_column_named_in_params_that_is_absent_is_told(tmp_path):
    path = put(tmp_path, json.dumps(ROWS))
    with pytest.raises(BiaslineError, match=r"no column 'frage' \(source\.columns\.instruction\); it has: instruction"):
        read(path, instruction="frage")
    with pytest.raises(BiaslineError, match="'ausgabe' is none of our columns"):
        read(path, ausgabe="output")


def test_columns_that_later_stages_use_get_another_name(tmp_path):
    row = {"instruction": "a", "output": "b", "base": "x", "tokens": 3, "row": "r", "skill": "s"}
    frame, _ = read_examples(put(tmp_path, json.dumps([row])), KINDS["instruction"], {})
    assert frame.select("row", "meta_base", "meta_tokens", "meta_row", "skill").rows() == [(1, "x", "3", "r", "s")]


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b'[{"instruction": "\\ud800", "output": "b"}]', "half a surrogate pair"),
        (b'[{"instruction": "a", "output": ' + b"1" * 5000 + b"}]", "JSON that cannot be read"),
        (b"[" * 100_000, "JSON that cannot be read"),
        (b"PAR1garbage", "damaged Parquet"),
    ],
)
def test_odd_files_are_told_too(tmp_path, raw, told):
    with pytest.raises(BiaslineError, match=told):
        read(put(tmp_path, raw))


def classified(path):
    frame, taken = read_examples(path, KINDS["classification"], {})
    return frame.select("row", "text", "text_pair", "label").rows(), taken


def test_texts_with_labels_by_their_usual_names(tmp_path):
    rows, taken = classified(put(tmp_path, "sentence\tlabel\nso good\t1\nso bad\t0\n"))
    assert rows == [(1, "so good", "", "1"), (2, "so bad", "", "0")]
    assert taken == {"text": "sentence", "label": "label"}
    pairs = [{"sentence1": "a", "sentence2": "b", "label": 1}, {"sentence1": "c", "sentence2": "d", "label": 0}]
    assert classified(put(tmp_path, json.dumps(pairs)))[0] == [(1, "a", "b", "1"), (2, "c", "d", "0")]
