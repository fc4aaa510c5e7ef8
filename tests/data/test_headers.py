import pytest

from biasline.data.headers import Evidence, judged
from biasline.data.sources import read_examples
from biasline.errors import BiaslineError
from biasline.kinds.learning import columns_of
from biasline.params import Source

# Sentences of many lengths, none of them shorter than a name.
TEXTS = [f"The {word} of day {n} {'was long ' * (n % 4)}and cold." for n in range(12) for word in ("rain", "snow")]
MRPC = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
MRPC += [f"{n % 2}\t{70 + n}\t{90 + n}\t{text}\tAlso: {text}" for n, text in enumerate(TEXTS)]
LABELS = ["good", "bad", "so so"]


def read(tmp_path, lines, kind="classification", name="rows.tsv", **source):
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_examples(path, columns_of(kind), Source(**source))


def test_a_header_that_no_alias_knows_is_no_row(tmp_path):
    columns = {"text": "#1 String", "text_pair": "#2 String", "label": "Quality"}
    assert read(tmp_path, MRPC, columns=columns).frame["label"].unique().sort().to_list() == ["0", "1"]
    assert read(tmp_path, MRPC, header="present", columns=columns).frame.height == len(MRPC) - 1
    with pytest.raises(BiaslineError, match=r"no column for 'text'; it has: Quality, #1 ID, .*preset: mrpc") as error:
        read(tmp_path, MRPC)
    proposed = "source: {columns: {text: '#1 String', text_pair: '#2 String', label: 'Quality'}}"
    assert proposed in str(error.value)


@pytest.mark.parametrize(
    "lines",
    [
        ["satz\turteil", *(f"{text}\t{n % 2}" for n, text in enumerate(TEXTS))],  # type
        ["satz\turteil", *(f"{text}\t{LABELS[n % 3]}" for n, text in enumerate(TEXTS))],  # repetition
        ["satz\tnote", *(f"{text}\t{n / 3:.2f}" for n, text in enumerate(TEXTS))],
    ],
)
def test_a_first_line_unlike_its_columns_names_them(tmp_path, lines):
    first = lines[0].split("\t")
    found = read(tmp_path, lines, columns={"text": first[0], "label": first[1]})
    assert found.frame.height == len(TEXTS)
    with pytest.raises(BiaslineError, match=f"it has: {first[0]}, {first[1]} → "):
        read(tmp_path, lines)


def test_a_line_that_counts_the_columns_is_no_row(tmp_path):
    lines = ["0\t1", *(f"{text}\t{n % 2}" for n, text in enumerate(TEXTS))]
    found = read(tmp_path, lines)
    assert found.frame.height == len(TEXTS) and found.taken == {"text": "0", "label": "1"}


@pytest.mark.parametrize("separator", ["\t", ","])
@pytest.mark.parametrize("labels", [("0", "1"), ("p", "n", "m"), tuple(f"intent {n}" for n in range(6))])
def test_a_first_line_like_its_columns_is_a_row(tmp_path, labels, separator):
    lines = [f"{text}{separator}{labels[n % len(labels)]}" for n, text in enumerate(["Ok", *TEXTS])]
    found = read(tmp_path, lines)
    assert found.frame.select("text", "label").row(0) == ("Ok", labels[0])
    assert found.frame.height == len(lines)
    assert found.notes[0].startswith("no header")


def test_a_short_line_above_long_texts_is_in_doubt(tmp_path):
    lines = ["frage\tantwort", *(f"{text}\tYes. {text}" for text in TEXTS)]
    with pytest.raises(BiaslineError, match=r"frage, antwort\) may be a header, since .* or a row, since") as error:
        read(tmp_path, lines, "instruction")
    assert "`source.header: present`" in str(error.value) and "`absent`" in str(error.value)
    by_place = {"instruction": "1", "output": "2"}  # says that there is no header
    assert read(tmp_path, lines, "instruction", columns=by_place).frame.height == len(lines)
    by_name = {"instruction": "frage", "output": "antwort"}
    assert read(tmp_path, lines, "instruction", header="present", columns=by_name).frame.height == len(TEXTS)


def test_evidence_for_both_readings_is_refused(tmp_path):
    lines = ["p\tmany", *(f"{'pn'[n % 2]}\t{n}" for n in range(12))]  # the label comes again, the number is none
    with pytest.raises(BiaslineError, match="'many' is no number, and all below it are, or a row, since 'p' comes"):
        read(tmp_path, lines)
    with pytest.raises(BiaslineError, match="may be a header, .* since params name columns by their place"):
        read(tmp_path, MRPC, columns={"text": "4", "label": "1"})
    assert read(tmp_path, MRPC, header="absent", columns={"text": "4", "label": "1"}).frame.height == len(MRPC)
    words = ["satz\turteil", *(f"{text}\t{LABELS[n % 3]}" for n, text in enumerate(TEXTS))]
    with pytest.raises(BiaslineError, match="'urteil' does not come again .* since params name columns by their place"):
        read(tmp_path, words, columns={"text": "1", "label": "2"})


def test_a_known_name_that_is_a_value_of_its_column_is_in_doubt(tmp_path):
    lines = [f"{text}\t{'question' if n % 2 else 'claim'}" for n, text in enumerate(TEXTS)]
    lines[0], lines[1] = lines[1], lines[0]
    with pytest.raises(BiaslineError, match="'question' is the name of a column, or a row, since 'question' comes"):
        read(tmp_path, lines)
    found = read(tmp_path, lines, header="absent")
    assert found.frame.height == len(TEXTS) and found.frame["label"][0] == "question"


def test_a_place_that_is_named_in_params_is_no_name_of_a_column(tmp_path):
    lines = [f"{text}\t{1 + n % 2}" for n, text in enumerate(TEXTS)]
    columns = {"text": "1", "label": "2"}
    lines[0] = f"{TEXTS[0]}\t2"  # the cell `2` is a label
    assert read(tmp_path, lines, columns=columns).frame.height == len(TEXTS)


@pytest.mark.parametrize("name", ["messages", "conversations", "history"])
def test_dialogues_and_histories_are_known_names(tmp_path, name):
    turns = '[{""role"": ""user"", ""content"": ""a""}, {""role"": ""assistant"", ""content"": ""b""}]'
    if name == "history":
        found = read(tmp_path, ["frage,history,antwort", f'q,"{turns}",a'], "instruction", "a.csv",
                     columns={"instruction": "frage", "output": "antwort"})  # fmt: skip
    else:
        found = read(tmp_path, [name, f'"{turns}"'], "instruction", "a.csv")
    assert found.frame.height == 1 and found.frame["output"][0] in ("a", "b")


def test_files_of_one_task_agree_on_the_same_first_line(tmp_path):
    header, rows = "satz\turteil", [f"{text}\t{n % 2}" for n, text in enumerate(TEXTS)]
    columns = {"text": "satz", "label": "urteil"}
    for names in (("a", "b"), ("b", "a")):  # one file has rows enough to judge, the other has one
        folder = tmp_path / names[0]
        folder.mkdir()
        for name, lines in zip(names, (rows, rows[:1]), strict=True):
            (folder / f"{name}.tsv").write_text("\n".join([header, *lines]))
    assert (
        read_examples(tmp_path / "a", columns_of("classification"), Source(columns=columns)).frame.height
        == len(rows) + 1
    )
    with pytest.raises(BiaslineError, match="no column for 'text'; it has: satz, urteil"):
        read_examples(tmp_path / "a", columns_of("classification"), Source())
    with pytest.raises(BiaslineError, match=r"was taken as one in .*a\.tsv, which begins with the same line"):
        read_examples(tmp_path / "b", columns_of("classification"), Source())


def test_few_rows_and_missing_values_say_nothing():
    assert judged([["a", "b"]]) == judged([["a", "b"], ["c", "1"]]) == Evidence()
    assert judged([["a", ""], ["c", "1"], ["d", "2"]]).verdict == "row"
    assert judged([["a", "x"], ["c", "1"], ["d", "NaN"], ["e", "2"]]).type == (
        "'x' is no number, and all below it are",
    )


def test_a_rare_label_in_the_first_row_is_no_header():
    rows = [[text, LABELS[n % 3]] for n, text in enumerate(TEXTS)]
    assert judged([["satz", "urteil"], *rows]).verdict == "header"
    assert judged([[TEXTS[0] + "!", "rare"], *rows]).verdict == "doubt"
    assert judged([["1", "rare", TEXTS[0]], *([str(n), *row] for n, row in enumerate(rows))]).verdict == "row"
