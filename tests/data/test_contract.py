import json

import pytest

from biasline.data.contract import RULES, check_examples
from biasline.data.kinds import KINDS
from biasline.data.sources import read_examples
from biasline.errors import BiaslineError
from biasline.params import Quality

GOOD = {"instruction": "Say it", "input": "", "output": "it"}
LENIENT = Quality(max_quarantine=1.0)


def check(tmp_path, rows, quality=LENIENT, kind="instruction"):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return check_examples(read_examples(path, KINDS[kind], {})[0], kind, quality)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ({"output": 3.5}, "not_text"),
        ({"output": ["a"]}, "not_text"),
        ({"instruction": ""}, "empty_instruction"),
        ({"instruction": None}, "empty_instruction"),
        ({"output": None}, "empty_output"),
        ({"output": " \n\t"}, "empty_output"),
        ({"output": "N/A"}, "placeholder_output"),
        ({"output": "None."}, "placeholder_output"),
        ({"output": "无"}, "placeholder_output"),
        ({"output": "<nooutput>"}, "placeholder_output"),
        ({"output": "x" * 4001}, "long_output"),
        ({"input": "x " * 4001}, "long_prompt"),
        ({"output": "yes\n\nHuman: and now?\n\nAssistant: no"}, "merged_record"),
        ({"output": "yes\n### Instruction:\nmore"}, "merged_record"),
        ({"output": "a\x00b"}, "control_characters"),
        ({"input": "a\x07b"}, "control_characters"),
        ({"output": "苹果".encode().decode("latin-1")}, "mojibake"),
        ({"output": "caf\ufffd"}, "mojibake"),
        ({"input": "https://example.com/a?b=c"}, "url_only_input"),
        ({"input": "A whole sentence.", "output": "A whole  sentence."}, "copied_output"),
        ({"output": "apple " * 40}, "repeated_loop"),
        ({"output": "好的" * 40}, "repeated_loop"),
    ],
)
def test_each_rule_finds_its_row(tmp_path, broken, reason):
    checked = check(tmp_path, [GOOD, GOOD | broken, {"instruction": "b", "input": "", "output": "c"}])
    assert checked.quarantine["row"].to_list() == [2]
    assert checked.quarantine["reasons"].to_list() == [[reason]]
    assert checked.good["row"].to_list() == [1, 3]


@pytest.mark.parametrize(
    "fine",
    [
        {"output": "空"},  # the opposite of 满
        {"output": "x"},
        {"output": "0"},
        {"output": "yes\tno\r\nmaybe"},
        {"output": "Café, naïve, Ærøskøbing — „ja“ … 你好！ Ã la carte"},
        {"input": "see https://example.com for more"},
        {"input": "same", "output": "same"},  # too short to call it a copy
        {"output": "The human: a study of mankind."},
        {"output": "word " * 19},
        {"input": None},
    ],
)
def test_fair_rows_pass(tmp_path, fine):
    assert check(tmp_path, [GOOD | fine]).quarantine.height == 0


def test_a_row_gets_every_reason(tmp_path):
    checked = check(tmp_path, [GOOD, {"instruction": " ", "input": "http://a.b", "output": ""}])
    assert checked.quarantine["reasons"].to_list() == [["empty_instruction", "empty_output", "url_only_input"]]
    assert checked.broken == {"empty_instruction": 1, "empty_output": 1, "url_only_input": 1}


def test_the_first_of_exact_copies_stays(tmp_path):
    checked = check(tmp_path, [GOOD, GOOD | {"output": "else"}, GOOD])
    assert checked.quarantine["row"].to_list() == [3]
    assert checked.quarantine["reasons"].to_list() == [["duplicate"]]


def test_rules_are_switched_off_by_name(tmp_path):
    rows = [GOOD, GOOD, GOOD | {"output": "N/A"}]
    assert check(tmp_path, rows, Quality(off=["duplicate", "placeholder_output"])).good.height == 3
    with pytest.raises(BiaslineError, match="'duplicates' is no rule; expected some of not_text"):
        check(tmp_path, rows, Quality(off=["duplicates"]))


def test_thresholds_come_from_params(tmp_path):
    rows = [GOOD, {"instruction": "a", "input": "", "output": "long enough"}]
    assert check(tmp_path, rows, Quality(min_output_chars=3, max_quarantine=1)).broken == {"short_output": 1}
    assert check(tmp_path, rows, Quality(max_output_chars=5, max_quarantine=1)).broken == {"long_output": 1}


def test_too_many_broken_rows_stop_the_run_with_the_reasons(tmp_path):
    rows = [GOOD, GOOD | {"output": ""}, {"instruction": "b", "input": "", "output": "c"}]
    with pytest.raises(BiaslineError, match=r"1 of 3 rows \(33\.3%\).*empty_output 1; the first is row 2"):
        check(tmp_path, rows, Quality())


def test_no_good_row_stops_the_run_whatever_is_allowed(tmp_path):
    with pytest.raises(BiaslineError, match="1 of 1 rows"):
        check(tmp_path, [GOOD | {"output": None}])


def test_rule_names_are_unique():
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_texts_with_labels_have_rules_of_their_own(tmp_path):
    rows = [
        {"text": "fine", "label": 1},
        {"text": "", "label": 0},
        {"text": "fine too", "label": None},
        {"text": "fine", "label": 1},
        {"text": ["no"], "label": "x"},
        {"text": "N/A", "label": "N/A"},
    ]
    checked = check(tmp_path, rows, kind="classification")
    assert checked.broken == {"empty_text": 1, "empty_label": 1, "duplicate": 1, "not_text": 1}
    assert checked.good["label"].to_list() == ["1", "N/A"]
    with pytest.raises(BiaslineError, match="'empty_output' is no rule"):
        check(tmp_path, rows, Quality(off=["empty_output"]), "classification")
