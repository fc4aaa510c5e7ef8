import json

import pytest

from biasline.data.sources import read_examples
from biasline.errors import BiaslineError
from biasline.kinds.learning import columns_of
from biasline.params import Source

FIRST = [f"The rain of day {n} was long and cold." for n in range(20)]
SECOND = [f"On day {n} it rained for hours." for n in range(20)]
TOXIC = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")


def read(tmp_path, content, kind="classification", **source):
    path = tmp_path / "rows"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_examples(path, columns_of(kind), Source(**source))


def test_two_columns_of_texts_without_header_are_not_guessed(tmp_path):
    lines = "".join(
        f"{n % 2}\t{first}\t{second}\n" for n, (first, second) in enumerate(zip(FIRST, SECOND, strict=True))
    )
    with pytest.raises(BiaslineError, match="columns 2 and 3 both hold texts, .* a pair of both") as error:
        read(tmp_path, lines)
    assert "source: {columns: {text: '2', text_pair: '3', label: '1'}}" in str(error.value)
    pair = read(tmp_path, lines, columns={"text": "2", "text_pair": "3", "label": "1"}).frame
    assert pair.select("text", "text_pair").row(0) == (FIRST[0], SECOND[0])


def test_a_title_beside_a_long_text_is_no_pair(tmp_path):
    lines = "".join(f"{n % 2}\tDay {n}\t{first * 4}\n" for n, first in enumerate(FIRST))
    assert read(tmp_path, lines).taken == {"text": "3", "label": "1"}


def test_a_text_that_is_left_aside_is_noted(tmp_path):
    rows = [{"question": a, "sentence": b, "label": n % 2} for n, (a, b) in enumerate(zip(FIRST, SECOND, strict=True))]
    found = read(tmp_path, rows)
    [note] = found.notes
    assert found.taken == {"text": "sentence", "label": "label"}
    assert "if a pair is meant" in note and "text_pair: 'question'" in note
    assert read(tmp_path, rows, columns={"text": "question", "text_pair": "sentence"}).notes == ()
    assert read(tmp_path, rows, preset="qnli").notes == ()


def comments(spelled=int):
    return [
        {
            "comment_text": text,
            **{name: spelled(n % (k + 2) == 0) for k, name in enumerate(TOXIC)},
            "year": 2000 + n % 3,
        }
        for n, text in enumerate(FIRST)
    ]


@pytest.mark.parametrize("spelled", [int, bool, float, str])
def test_labels_beside_the_one_that_is_taken_are_named(tmp_path, spelled):
    found = read(tmp_path, comments(spelled), columns={"text": "comment_text", "label": "toxic"})
    [note] = found.notes
    assert note.startswith(
        "label is 'toxic' alone; 'severe_toxic', 'obscene', 'threat', 'insult', 'identity_hate' have"
    )
    assert "source.columns.label" in note and "several tasks" in note and "year" not in note
    named = ", ".join(f'"{name}"' for name in TOXIC)
    assert f"one task of kind: multilabel with source: {{labels: [{named}]}}" in note


def test_a_label_that_no_row_has_is_named_too(tmp_path):
    rows = [row | {"threat": 0, "version": 1} for row in comments()]
    [note] = read(tmp_path, rows, columns={"text": "comment_text", "label": "toxic"}).notes
    assert "'obscene', 'threat', 'insult'" in note and "version" not in note


def test_further_names_of_a_label_are_noted_where_a_name_alone_decides(tmp_path):
    rows = [{"text": text, "category": "abc"[n % 3], "sentiment": "pn"[n % 2]} for n, text in enumerate(FIRST)]
    [note] = read(tmp_path, rows).notes
    assert note.startswith("label is 'sentiment', by its name; 'category' may be meant as well")
    assert read(tmp_path, rows, columns={"label": "category"}).notes == ()
    assert read(tmp_path, [row | {"label": row["sentiment"] + "!"} for row in rows]).notes == ()


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        ("classification", ["satz,urteil", "das ist gut,gut", "das ist schlecht,schlecht", "es war gut,gut"]),
        ("instruction", ["frage,antwort", "what is this,that", "who is this,me"]),
    ],
)
def test_a_first_line_that_nothing_tells_is_read_in_both_ways(tmp_path, kind, lines):
    with pytest.raises(BiaslineError, match="it has: 1, 2") as error:
        read(tmp_path, "\n".join(lines), kind)
    told = str(error.value).replace(", ", ",")
    assert f"if the first line ({lines[0]}) names the columns,say so: source: {{header: present}}; else name" in told


def test_without_a_known_name_all_labels_are_proposed(tmp_path):
    with pytest.raises(BiaslineError, match="no column for 'text'; it has: comment_text, toxic") as error:
        read(tmp_path, comments())
    assert "{text: 'comment_text', label: 'toxic'}" in str(error.value)
    assert "(or as label: 'severe_toxic', 'obscene'" in str(error.value)


def test_a_column_of_other_values_is_no_other_label(tmp_path):
    rows = [{"text": text, "label": n % 2, "part": n % 3, "id": n} for n, text in enumerate(FIRST)]
    assert read(tmp_path, rows).notes == ()


def test_the_preset_that_has_the_columns_is_named(tmp_path):
    rows = [
        {"id": n, "qid1": 30 + n, "qid2": 60 + n, "question1": a, "question2": b, "is_duplicate": n % 2}
        for n, (a, b) in enumerate(zip(FIRST, SECOND, strict=True))
    ]
    with pytest.raises(BiaslineError, match=r"no column for 'label'.*source: \{preset: qqp\}") as error:
        read(tmp_path, rows)
    assert "{text: 'question1', text_pair: 'question2', label: 'is_duplicate'}" in str(error.value)
    with pytest.raises(BiaslineError, match="no column for 'score'") as error:
        read(tmp_path, rows, "regression")
    assert "preset:" not in str(error.value)
