import gzip
import json

import datasets
import polars as pl
import pyarrow as pa
import pytest

from biasline.data import decoding
from biasline.data.sources import read_asked, read_examples
from biasline.errors import BiaslineError
from biasline.kinds.learning import columns_of
from biasline.params import Source

ROWS = [
    {"instruction": "说一种水果", "input": "", "output": "苹果", "skill": "fruit"},
    {"instruction": "Add 1 and 2", "input": "now", "output": "3"},
]


def read(path, **columns):
    found = read_examples(path, columns_of("instruction"), Source(columns=columns))
    return found.frame.select("row", "instruction", "input", "output").rows(), found.taken


def frame_of(path, kind="instruction", **source):
    return read_examples(path, columns_of(kind), Source(**source)).frame


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
    frame = frame_of(put(tmp_path, json.dumps([ROWS[0] | {"n": 3, "tags": ["a"]}, ROWS[1]])))
    assert frame["skill"].to_list() == ["fruit", None]
    assert frame["n"].to_list() == ["3", None]
    assert frame["tags"].to_list() == ['["a"]', None]


def test_values_that_are_no_text_are_marked_not_lost(tmp_path):
    frame = frame_of(put(tmp_path, json.dumps([{"instruction": "a", "output": 3}, {"instruction": None}])))
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
        ('{"instruction": "a", "output": "b"}\n[1]', r"item 2 \(line 2\) is \[1\]; an object was expected"),
        ("[1, 2]", r"item 1 \(line 1\) is 1; an object was expected"),
        ("", "empty"),
        ("  \n ", "empty"),
        ("[]", "no rows in it"),
        ("instruction,output\n", "no rows in it"),
        ("output,instruction,output\n1,2,3\n", "column 'output' stands twice"),
        ("instruction,output\nx,y,z\n", r"row 1 \(line 2\) has 3 fields, the first line has 2"),
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
    with pytest.raises(BiaslineError, match="no data file in this folder"):
        read(tmp_path)


def test_a_column_named_in_params_that_is_absent_is_told(tmp_path):
    path = put(tmp_path, json.dumps(ROWS))
    with pytest.raises(BiaslineError, match=r"no column 'frage' \(source\.columns\.instruction\); it has: instruction"):
        read(path, instruction="frage")
    with pytest.raises(BiaslineError, match="'ausgabe' is none of our columns"):
        read(path, ausgabe="output")


def test_columns_that_later_stages_use_get_another_name(tmp_path):
    row = {"instruction": "a", "output": "b", "base": "x", "tokens": 3, "row": "r", "skill": "s"}
    frame = frame_of(put(tmp_path, json.dumps([row])))
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
    found = read_examples(path, columns_of("classification"), Source())
    return found.frame.select("row", "text", "text_pair", "label").rows(), found.taken


def test_texts_with_labels_by_their_usual_names(tmp_path):
    rows, taken = classified(put(tmp_path, "sentence\tlabel\nso good\t1\nso bad\t0\n"))
    assert rows == [(1, "so good", "", "1"), (2, "so bad", "", "0")]
    assert taken == {"text": "sentence", "label": "label"}
    pairs = [{"sentence1": "a", "sentence2": "b", "label": 1}, {"sentence1": "c", "sentence2": "d", "label": 0}]
    assert classified(put(tmp_path, json.dumps(pairs)))[0] == [(1, "a", "b", "1"), (2, "c", "d", "0")]


@pytest.mark.parametrize("pack", [gzip.compress, lambda raw: pa.compress(raw, "zstd", asbytes=True)])
def test_compressed_text_is_read_as_it_is(tmp_path, pack):
    assert read(put(tmp_path, pack(json.dumps(ROWS).encode()), "rows.bin"))[0] == EXPECTED


def test_damaged_compression_is_told(tmp_path):
    raw = gzip.compress(json.dumps(ROWS).encode())
    with pytest.raises(BiaslineError, match=r"rows\.json: damaged"):
        read(put(tmp_path, raw[:-9]))


def test_objects_one_after_the_other_need_no_line_of_their_own(tmp_path):
    text = "\n".join(json.dumps(row, indent=2) for row in ROWS)
    assert read(put(tmp_path, text))[0] == EXPECTED


@pytest.mark.parametrize("block", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("array", [True, False])
def test_where_blocks_end_does_not_matter(tmp_path, monkeypatch, block, array):
    """Characters of several bytes, escapes, numbers and words cut by the end of a block are read whole."""
    rows = [{"instruction": f"说{n}\u2028🍎\n", "output": "\\u00e9", "n": 1234567, "yes": True} for n in range(9)]
    text = json.dumps(rows, ensure_ascii=False) if array else "\n".join(map(json.dumps, rows))
    path = put(tmp_path, b"\xef\xbb\xbf" + text.encode())
    whole = frame_of(path)
    monkeypatch.setattr(decoding, "_BLOCK", block)
    assert frame_of(path).equals(whole)
    assert whole["n"].to_list() == ["1234567"] * 9


def test_the_place_of_an_error_does_not_depend_on_blocks(tmp_path, monkeypatch):
    rows = ",\n".join(json.dumps({"instruction": f"a{n}", "output": "b"}) for n in range(50))
    broken = put(tmp_path, f"[{rows},\n{{'no'}}]")
    monkeypatch.setattr(decoding, "_BLOCK", 11)
    with pytest.raises(BiaslineError, match="broken JSON at line 51, column 2"):
        read(broken)
    odd = put(tmp_path, ("é" * 40 + "\n").encode() * 3 + b"\xff")
    with pytest.raises(BiaslineError, match=r"byte 0xff at position 243 \(line 4\)"):
        read(odd)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[{"instruction": "a", "output": "b"}', "the array does not end"),
        ('[{"instruction": "a", "output": "b"}]]', "extra data"),
        ('[{"instruction": "a", "output": "b"} {}]', "expecting ',' delimiter"),
        ('[{"instruction": "a", "output": "b"},]', "Expecting value"),
        ('{"instruction": "a", "output": "b"},', "Expecting value"),
    ],
)
def test_a_broken_array_gives_no_rows(tmp_path, text, told):
    with pytest.raises(BiaslineError, match=told):
        read(put(tmp_path, text))


def test_a_cell_of_ten_megabytes_and_nul_bytes_are_read(tmp_path):
    big = "x" * 10_000_000
    assert frame_of(put(tmp_path, json.dumps([{"instruction": big, "output": "a\x00b"}])))["output"][0] == "a\x00b"
    tsv = put(tmp_path, f"instruction\toutput\n{big}\ta\x00b\n")
    assert frame_of(tsv)["instruction"].str.len_chars()[0] == 10_000_000


def test_a_file_without_header_is_guessed_and_said(tmp_path):
    lines = [f"src\t{n % 2}\t{'*' if n % 2 else ''}\tsentence number {n}" for n in range(20)]
    found = read_examples(put(tmp_path, "\n".join(lines)), columns_of("classification"), Source())
    assert found.taken == {"text": "4", "label": "2"}
    assert found.frame["text"][0] == "sentence number 0"
    assert "no header" in found.notes[0] and "text is column 4" in found.notes[1]


def test_a_header_that_nobody_knows_is_not_taken_for_a_row(tmp_path):
    lines = "satz\turteil\n" + "\n".join(f"das ist satz {n}\t{n % 2}" for n in range(20))
    with pytest.raises(BiaslineError, match="no column for 'text'; it has: satz, urteil"):
        frame_of(put(tmp_path, lines), "classification")
    named = frame_of(put(tmp_path, lines), "classification", columns={"text": "satz", "label": "urteil"})
    assert named.height == 20


def test_a_header_can_be_denied_and_columns_named_by_place(tmp_path):
    path = put(tmp_path, "label,text\nx,y\n")
    frame = frame_of(path, "classification", header="absent", columns={"text": "2", "label": "1"})
    assert frame.select("text", "label").rows() == [("text", "label"), ("y", "x")]


def folder_of(tmp_path, **parts):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, rows in parts.items():
        (folder / f"{name}.tsv").write_text("text\tlabel\n" + "".join(f"{row}\t{len(row) % 2}\n" for row in rows))
    return folder


def test_names_of_files_in_a_folder_fix_the_split(tmp_path):
    folder = folder_of(tmp_path, train=["a", "bb"], valid=["ccc"], test=["dddd"])
    (folder / "README.md").write_text("not data")
    frame = frame_of(folder, "classification")
    assert frame.select("text", "fixed_split", "file").rows() == [
        ("dddd", "test", "test.tsv"),
        ("ccc", "valid", "valid.tsv"),
        ("a", "train", "train.tsv"),
        ("bb", "train", "train.tsv"),
    ]


def test_dev_is_the_test_where_there_is_no_other(tmp_path):
    frame = frame_of(folder_of(tmp_path, train=["a", "bb"], dev=["ccc"]), "classification")
    assert frame["fixed_split"].to_list() == ["test", "train", "train"]


def test_other_names_fix_nothing(tmp_path):
    frame = frame_of(folder_of(tmp_path, january=["a", "bb"], february=["ccc"]), "classification")
    assert frame["fixed_split"].to_list() == [None] * 3
    assert frame["row"].to_list() == [1, 2, 3]


def test_a_folder_saved_by_datasets(tmp_path):
    rows = [{"text": f"text {n}", "label": n % 2} for n in range(5)]
    parts = {"train": datasets.Dataset.from_list(rows), "test": datasets.Dataset.from_list(rows[:1])}
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    frame = frame_of(tmp_path / "saved", "classification")
    assert frame["fixed_split"].to_list() == ["test"] + ["train"] * 5
    assert frame["label"].to_list() == ["0", "0", "1", "0", "1", "0"]
    parts["train"].save_to_disk(tmp_path / "one")
    assert frame_of(tmp_path / "one", "classification")["fixed_split"].to_list() == [None] * 5


def test_a_pinned_hub_data_set(tmp_path, monkeypatch):
    asked = []

    def load_dataset(name, config, revision):
        asked.append((name, config, revision))
        return {"train": datasets.Dataset.from_list([{"sentence": "fine", "label": 1}])}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    pinned = {"hub_dataset": "nyu-mll/glue", "config": "sst2", "revision": "0" * 40}
    assert frame_of(put(tmp_path, json.dumps(pinned)), "classification")["text"].to_list() == ["fine"]
    assert asked == [("nyu-mll/glue", "sst2", "0" * 40)]
    with pytest.raises(BiaslineError, match="revision must be a commit"):
        frame_of(put(tmp_path, json.dumps(pinned | {"revision": "main"})), "classification")
    with pytest.raises(BiaslineError, match="unknown key 'split'"):
        frame_of(put(tmp_path, json.dumps(pinned | {"split": "train"})), "classification")


def test_another_encoding_is_told_with_the_way_out(tmp_path):
    with pytest.raises(BiaslineError, match=r"not UTF-8: byte 0x.. at position \d+ \(line 1\).*iconv"):
        read(put(tmp_path, json.dumps(ROWS, ensure_ascii=False).encode("gb18030")))


CHAT = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "说一种水果"},
    {"role": "assistant", "content": "苹果"},
]


def test_dialogues_are_unrolled_to_their_last_question(tmp_path):
    sharegpt = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}, {"from": "human", "value": "?"}]
    for name, turns in (("messages", CHAT), ("conversations", CHAT), ("conversations", sharegpt)):
        found = read_examples(put(tmp_path, json.dumps([{name: turns, "id": 7}])), columns_of("instruction"), Source())
        [row] = found.frame.select("instruction", "input", "output", "history", "id").rows()
        if turns is CHAT:
            assert row[:3] == ("说一种水果", "", "苹果")
            assert json.loads(row[3]) == [["system", "Be kind."], ["user", "Hi"], ["assistant", "Hello"]]
        else:
            assert row[:4] == ("Hi", "", "Hello", "")
        assert row[4] == "7"
        assert found.taken == {"dialogue": name}


@pytest.mark.parametrize(
    "turns",
    [
        "no list",
        [],
        [{"role": "user", "content": "Hi"}],
        [{"role": "assistant", "content": "Hi"}],
        [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": "c"}],
        [{"role": "user", "content": None}, {"role": "assistant", "content": "c"}],
        [{"says": "a"}],
        ["a"],
    ],
)
def test_a_broken_dialogue_is_null_for_the_contract_to_find(tmp_path, turns):
    path = put(tmp_path, json.dumps([{"messages": CHAT}, {"messages": turns}]))
    frame = frame_of(path)
    assert frame["history"].is_null().to_list() == [False, True]
    from biasline.data.contract import check_examples
    from biasline.params import Quality

    checked = check_examples(frame, "instruction", Quality())
    assert checked.quarantine["reasons"].to_list() == [["broken_dialogue"]]
    shown = checked.quarantine["instruction"][0]  # what is wrong
    assert shown == turns or json.loads(shown) == turns


def test_single_turns_have_no_history(tmp_path):
    assert frame_of(put(tmp_path, json.dumps(ROWS)))["history"].to_list() == ["", ""]


@pytest.mark.parametrize(("header", "rows"), [("present", 2), ("absent", 3), ("auto", 3)])
def test_whether_there_is_a_header_can_be_said(tmp_path, header, rows):
    path = tmp_path / "rows.csv"
    path.write_text("frage,antwort\nwho,me\nwhat,that\n")
    names = ("frage", "antwort") if header == "present" else ("1", "2")
    source = Source(header=header, columns=dict(zip(("instruction", "output"), names, strict=True)))
    if header == "auto":  # a name in the mapping counts as recognised
        source = source.model_copy(update={"columns": {"instruction": "frage", "output": "antwort"}})
        rows = 2
    found = read_examples(path, columns_of("instruction"), source).frame
    assert found.height == rows
    assert found["instruction"].to_list()[-2:] == ["who", "what"]


def test_names_that_later_stages_use_are_given_others(tmp_path):
    rows = [{"instruction": "a", "output": "b", "parent": "p", "method": "m", "row": 7, "meta_row": 8, "length": 9}]
    frame = frame_of(put(tmp_path, json.dumps(rows)))
    assert frame.select("meta_parent", "meta_method", "meta_row_", "meta_row", "meta_length").row(0) == (
        "p",
        "m",
        "7",
        "8",
        "9",
    )


def test_rounds_said_before_an_instruction_are_its_history(tmp_path):
    rounds = [["Count", "one"], ["And on", "two"]]
    turns = [{"role": "user", "content": "Count"}, {"role": "assistant", "content": "one"}]
    rows = [
        {"instruction": "more", "output": "three", "history": given} for given in (rounds, turns, [], None, [["x"]])
    ]
    found = frame_of(put(tmp_path, json.dumps(rows)))["history"].to_list()
    assert json.loads(found[0]) == [["user", "Count"], ["assistant", "one"], ["user", "And on"], ["assistant", "two"]]
    assert json.loads(found[1]) == [["user", "Count"], ["assistant", "one"]]
    assert found[2:] == ["", "", None]


def test_a_column_of_dialogues_can_be_named(tmp_path):
    path = put(tmp_path, json.dumps([{"verlauf": CHAT, "note": "n"}]))
    found = read_examples(path, columns_of("instruction"), Source(columns={"messages": "verlauf"})).frame
    assert found["history"][0] and found["note"][0] == "n"


def test_the_next_name_is_tried_where_one_is_taken(tmp_path):
    path = put(tmp_path, json.dumps([{"text": "pair", "sentence": "first", "label": "x"}]))
    found = read_examples(path, columns_of("classification"), Source(columns={"text_pair": "text"}))
    assert found.taken == {"text_pair": "text", "text": "sentence", "label": "label"}


def test_names_of_classes_in_a_saved_data_set_are_labels(tmp_path):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    rows = {"text": ["a", "b", "c"], "label": [1, 0, -1]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    found = read_examples(tmp_path / "saved", columns_of("classification"), Source()).frame
    assert found["label"].to_list() == ["good", "bad", None]


def test_a_flipped_byte_and_a_deep_file_and_a_broken_saved_set_are_told(tmp_path):
    packed = bytearray(gzip.compress(json.dumps([{"instruction": "a", "output": "b"}] * 50).encode()))
    packed[len(packed) // 2] ^= 0xFF
    cases = {
        "flipped.json.gz": bytes(packed),
        "deep.json": b"[" * 4000,
        "pin.json": b'{"hub_dataset": "a/b", "revision": 123}',
    }
    for name, raw in cases.items():
        (tmp_path / name).write_bytes(raw)
        with pytest.raises(BiaslineError):
            read_examples(tmp_path / name, columns_of("instruction"), Source())
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{}")
    with pytest.raises(BiaslineError, match="damaged data set"):
        read_examples(tmp_path / "saved", columns_of("instruction"), Source())


def test_a_split_whose_labels_are_secret_is_left_out(tmp_path):
    features = datasets.Features(
        {"sentence": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    parts = {
        name: datasets.Dataset.from_dict(
            {"sentence": [f"{name} {n}" for n in range(4)], "label": labels}, features=features
        )
        for name, labels in {"train": [0, 1, 0, 1], "validation": [1, 0, 1, 0], "test": [-1] * 4}.items()
    }
    datasets.DatasetDict(parts).save_to_disk(tmp_path / "saved")
    found = read_examples(tmp_path / "saved", columns_of("classification"), Source(preset="sst2")).frame
    assert found.select("text", "label", "fixed_split").row(0) == ("validation 0", "yes", "test")
    assert found.height == 8


def test_a_history_that_is_no_dialogue_stays_metadata(tmp_path):
    rows = [{"instruction": "a", "output": "b", "history": "fell ill in May"}]
    assert frame_of(put(tmp_path, json.dumps(rows)))["meta_history"].to_list() == ["fell ill in May"]
    turns = [[["User", "hi"], ["Assistant", "yo"]], [["model", "a car"], ["bot", "a program"], ["so", "x"]]]
    rows = [{"instruction": "a", "output": "b", "history": given} for given in turns]
    first, second = (json.loads(text) for text in frame_of(put(tmp_path, json.dumps(rows)))["history"])
    assert first == [["user", "hi"], ["assistant", "yo"]]
    assert second[0] == ["user", "model"] and len(second) == 6


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("asked.txt", "a joy\na bore\n"),
        ("asked.csv", "review,stars\na joy,5\na bore,1\n"),
        ("asked.tsv", "sentence\tlabel\na joy\t1\na bore\t0\n"),
        ("asked.jsonl", '{"text": "a joy"}\n{"text": "a bore", "text_pair": null}\n'),
        ("asked.json", '[{"text": "a joy", "label": "good"}, {"text": "a bore", "label": "bad"}]'),
    ],
)
def test_rows_that_a_model_is_asked_need_no_answer(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    rows = read_asked(tmp_path / name, columns_of("classification"), Source())
    assert [(row["text"], row.get("text_pair", "")) for row in rows] == [("a joy", ""), ("a bore", "")]


def test_a_folder_or_nothing_is_not_asked(tmp_path):
    for path in (tmp_path, tmp_path / "none.csv"):
        with pytest.raises(BiaslineError, match="no such file → name a file of rows"):
            read_asked(path, columns_of("classification"), Source())


def test_presets_and_instructions_are_read_for_asking_too(tmp_path):
    (tmp_path / "a.tsv").write_text("sentence\nIt rained.\n")
    assert (
        read_asked(tmp_path / "a.tsv", columns_of("classification"), Source(preset="sst2"))[0]["text"] == "It rained."
    )
    (tmp_path / "b.jsonl").write_text(json.dumps({"prompt": "Add", "input": "1 and 2"}) + "\n")
    (row,) = read_asked(tmp_path / "b.jsonl", columns_of("instruction"), Source())
    assert (row["instruction"], row["input"], row["history"]) == ("Add", "1 and 2", "")


def test_a_dialogue_that_waits_for_an_answer_is_asked_as_it_stands(tmp_path):
    turns = [("user", "a"), ("assistant", "b"), ("user", "c")]
    messages = [{"role": role, "content": said} for role, said in turns]
    (tmp_path / "a.json").write_text(json.dumps([{"messages": messages}, {"messages": messages[:2]}]))
    open_one, closed = read_asked(tmp_path / "a.json", columns_of("instruction"), Source())
    assert open_one["instruction"] == "c" and json.loads(open_one["history"]) == [["user", "a"], ["assistant", "b"]]
    assert closed["instruction"] == "a" and closed["history"] == ""  # asked again


def test_columns_that_are_named_for_training_need_not_all_be_there(tmp_path):
    (tmp_path / "a.csv").write_text("satz\nIt rained.\n")
    source = Source(columns={"text": "satz", "label": "urteil"})
    assert read_asked(tmp_path / "a.csv", columns_of("classification"), source)[0]["text"] == "It rained."


def test_lines_of_text_are_what_a_line_feed_ends(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffone\u2028still one\ntwo\x85\n".encode())
    rows = read_asked(tmp_path / "a.txt", columns_of("classification"), Source())
    assert [row["text"] for row in rows] == ["one\u2028still one", "two\x85"]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.txt", "", "row 1 has no text"),
        ("a.txt", "one\n\ntwo\n", "row 2 has no text"),
        ("a.json", '[{"text": "one"}, {"text": " "}]', "row 2 has no text"),
        ("a.csv", "colour,size\nred,3\n", "no column for 'text'"),
    ],
)
def test_rows_without_a_text_are_not_asked(tmp_path, name, text, told):
    (tmp_path / name).write_text(text)
    with pytest.raises(BiaslineError, match=told):
        read_asked(tmp_path / name, columns_of("classification"), Source())


def test_a_second_column_of_the_same_meaning_is_noted(tmp_path):
    rows = [{"instruction": "If you are a doctor, answer.", "question": f"q {n}", "output": f"a {n}"} for n in range(9)]
    path = put(tmp_path, json.dumps(rows))
    [note] = read_examples(path, columns_of("instruction"), Source()).notes
    assert note == (
        "instruction is 'instruction', by its name; 'question' is left aside, and may be meant as well: "
        "source.columns.instruction chooses, and another of our columns may take it"
    )
    chosen = Source(columns={"instruction": "instruction", "input": "question"})
    found = read_examples(path, columns_of("instruction"), chosen)
    assert not found.notes and found.frame["input"][0] == "q 0"


def test_a_column_of_weights_is_noted(tmp_path):
    rows = [{"instruction": f"q {n}", "output": f"a {n}", "weight": n % 2, "options": "a, b"} for n in range(9)]
    notes = read_examples(put(tmp_path, json.dumps(rows)), columns_of("instruction"), Source()).notes
    assert any("column 'weight' is metadata: each row counts the same" in note for note in notes)
    assert any("rows with 'options', which the model is not shown: 9" in note for note in notes)
