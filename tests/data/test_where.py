import json

import pytest

from biasline.data.sources import read_asked, read_examples
from biasline.errors import BiaslineError
from biasline.kinds.learning import columns_of
from biasline.params import Source

ROWS = [
    {"instruction": f"i{n}", "output": f"o{n}", "score": n, "lang": ["en", "de"][n % 2], "ok": n > 1, "zip": f"0{n}"}
    for n in range(4)
]


def kept(tmp_path, where, rows=None):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROWS if rows is None else rows))
    found = read_examples(path, columns_of("instruction"), Source(where=where))
    assert found.left_out == ({"source.where": 4 - found.frame.height} if found.frame.height < 4 else {})
    return found.frame["row"].to_list()


@pytest.mark.parametrize(
    ("where", "rows"),
    [
        ("", [1, 2, 3, 4]),
        ({}, [1, 2, 3, 4]),
        ("score >= 2", [3, 4]),
        ("score >= 2 and lang = 'en'", [3]),
        ("lang in ('de')", [2, 4]),
        ("instruction like '%3'", [4]),
        ("ok", [3, 4]),
        ("not ok", [1, 2]),
        ("ok = true", [3, 4]),
        ("score = '2'", [3]),
        ("zip = '01'", [2]),
        ("zip = 1", [2]),
        ("true", [1, 2, 3, 4]),
        ({"lang": "de"}, [2, 4]),
        ({"score": 1}, [2]),
        ({"score": [1.0, "3"]}, [2, 4]),
        ({"lang": ["en", "de"], "ok": True}, [3, 4]),
        ({"ok": "false"}, [1, 2]),
    ],
)
def test_records_are_kept_by_an_expression_or_by_values(tmp_path, where, rows):
    assert kept(tmp_path, where) == rows


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("scor >= 2", r"rows\.json: no column 'scor' \(source\.where\); it has: instruction, output, score, lang"),
        ({"langs": "en"}, r"rows\.json: no column 'langs' \(source\.where\); it has: instruction"),
        ("score >=", r"source\.where: 'score >=': unable to parse.*an SQL expression was expected"),
        ("score + 1", r"source\.where: 'score \+ 1' gives Int64, not true or false"),
        ("lang > 3", r"source\.where: 'lang > 3': cannot compare string with numeric type"),
        ({"lang": "fr"}, r"lang: 'fr': none of 4 rows is like that; there are lang: 'en', 'de'"),
        ("score > 9", r"score > 9: none of 4 rows is like that"),
    ],
)
def test_a_filter_that_cannot_hold_is_told(tmp_path, where, told):
    with pytest.raises(BiaslineError, match=told) as error:
        kept(tmp_path, where)
    assert "\n" not in str(error.value)


def test_cells_of_a_csv_file_compare_by_value_too(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("instruction,output,score,ok\na,b,4.0,True\nc,d,,FALSE\ne,f,5,true\n")

    def rows(where):
        return read_examples(path, columns_of("instruction"), Source(where=where)).frame["row"].to_list()

    assert rows("score >= 4") == rows({"ok": True}) == rows("ok") == [1, 3]
    assert rows({"score": 4}) == [1]
    assert rows("score is null") == rows({"score": None}) == [2]


def test_paths_lead_into_nested_values(tmp_path):
    rows = [{"instruction": f"i{n}", "output": "o", "meta": {"lang": ["en", "de"][n % 2]}} for n in range(4)]
    assert kept(tmp_path, {"meta.lang": "de"}, rows) == [2, 4]
    found = read_examples(tmp_path / "rows.json", columns_of("instruction"), Source(where={"meta.lang": "de"}))
    assert "meta.lang" not in found.frame.columns  # looked at, and not kept
    with pytest.raises(BiaslineError, match=r"no column 'meta\.tongue' \(source\.where\)"):
        kept(tmp_path, {"meta.tongue": "de"}, rows)


def test_rows_to_predict_are_not_filtered(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"instruction": "a"}]))
    assert len(read_asked(path, columns_of("instruction"), Source(where="score > 3", prefer="chosen"))) == 1
