import json
import re

import polars as pl
import pytest

from biasline.data.contract import check_examples, emptied_inputs, refuse_too_many
from biasline.data.rules import RULES, own_rules
from biasline.data.sources import read_examples
from biasline.errors import BiaslineError
from biasline.kinds.learning import columns_of
from biasline.params import Quality, Source

GOOD = {"instruction": "Say it", "input": "", "output": "it"}
LENIENT = Quality(max_quarantine=1.0, hard={})


def check(tmp_path, rows, quality=LENIENT, kind="instruction", **more):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    checked = check_examples(read_examples(path, columns_of(kind), Source()).frame, kind, quality, **more)
    refuse_too_many(checked, quality)
    return checked


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
        ({"input": "A whole sentence.", "output": "A whole sentence.\n"}, "copied_output"),
        ({"input": "[image attached]"}, "missing_attachment"),
        ({"input": "<Photo of a car>"}, "missing_attachment"),
        ({"input": "![Figure](https://a.b/c.png)"}, "missing_attachment"),
        ({"input": "[图片]"}, "missing_attachment"),
        ({"output": "Pay with 4111 1111 1111 1111."}, "card"),
        ({"output": "Use AKIA" + "A" * 16}, "key"),
        ({"input": "-----BEGIN RSA PRIVATE KEY-----"}, "key"),
        ({"output": "apple " * 40}, "repeated_loop"),
        ({"output": "好的" * 40}, "repeated_loop"),
        ({"instruction": "Summarize the page", "input": "www.example.com"}, "url_only_input"),
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
        {"instruction": "Sort these numbers.", "input": "1, 2, 3, 4, 5", "output": "1, 2, 3, 4, 5"},
        {"instruction": "找出文中的错误。", "input": "我们在这里有很多经验。", "output": "我们在这里有很多经验。"},
        {"output": "The human: a study of mankind."},
        {"output": "word " * 19},
        {"input": "A picture of a cat, drawn by a child"},
        {"input": "[1, 2, 3]"},
        {"output": "Call 555-123-4567 or write to john@example.com"},  # rules that are off by default
        {"output": "The number is 22046226218487757"},
        {"input": None},
        {"input": "One. Two.", "output": "One.\n\nTwo."},  # laid out anew
        {"output": "The hypotenuse is 6.4031242374328485."},  # no card
        {"instruction": "Find the domain.", "input": "https://docs.example.com/a", "output": "example.com"},
        {"instruction": "请屏蔽该网站。", "input": "www.example.com"},
        {"output": "<tr>" + "<td>Row</td>" * 30 + "</tr>"},
        {"output": "A A G A " * 20},  # notes
        {"output": "[" + "0, " * 60 + "1]"},
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
    assert check(tmp_path, rows, Quality(min_output_chars=3, max_quarantine=1, hard={})).broken == {"short_output": 1}
    assert check(tmp_path, rows, Quality(max_output_chars=5, max_quarantine=1, hard={})).broken == {"long_output": 1}


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


def test_rules_that_are_off_by_default_are_switched_on(tmp_path):
    rows = [GOOD, GOOD | {"output": "Call 555-123-4567"}, GOOD | {"output": "or write to john@example.com"}]
    on = Quality(on=["email", "phone"], max_quarantine=1, hard={})
    assert check(tmp_path, rows, on).broken == {"email": 1, "phone": 1}


def test_secrets_are_blotted_out_of_the_quarantine_whatever_the_reason(tmp_path):
    key = "sk-" + "a1" * 20
    rows = [
        GOOD,
        {"instruction": f"Use {key} for john@example.com", "output": ""},
        GOOD | {"output": "4111111111111111"},
    ]
    quarantine = check(tmp_path, rows).quarantine
    assert quarantine["instruction"][0] == "Use [key] for [email]"
    assert quarantine["output"].to_list() == ["", "[card]"]


@pytest.mark.parametrize(
    ("row", "broken"),
    [
        ({"instruction": "Outline the main events of the story.", "output": "好"}, True),
        (
            {
                "instruction": "预约明天的会议。",
                "output": "Certainly, I will schedule a meeting for you tomorrow at ten.",
            },
            True,
        ),
        (
            {
                "instruction": "翻译成英文：我很高兴见到你，明天见。",
                "output": "I am very happy to see you, so see you soon",
            },
            False,
        ),
        ({"instruction": "写一个函数求最大值。", "output": "int max(int a, int b) { return a > b ? a : b; }"}, False),
        (
            {
                "instruction": "造一个包含 opulent 的句子。",
                "output": "The wedding was held in an opulent ballroom with lights",
            },
            False,
        ),
        ({"instruction": "说出它的名字。", "output": "Python"}, False),
    ],
)
def test_rows_that_were_left_untranslated(tmp_path, row, broken):
    zh = Quality(language="zh", max_quarantine=1, hard={})
    assert check(tmp_path, [{"instruction": "好", "output": "好的"}, row], zh).broken == (
        {"untranslated": 1} if broken else {}
    )
    assert check(tmp_path, [GOOD, row]).broken == {}


TEXTS = [{"text": "fine", "label": "a"}, {"text": "Fine ", "label": "b"}, {"text": "bad", "label": "b"}]


def test_the_same_text_under_two_labels_is_no_evidence(tmp_path):
    checked = check(tmp_path, TEXTS, kind="classification")
    assert checked.broken == {"conflicting_duplicate": 2}
    assert checked.good["text"].to_list() == ["bad"]


def test_a_label_outside_the_set_is_refused(tmp_path):
    rows = [{"text": "x", "label": "a"}, {"text": "y", "label": "c"}]
    assert check(tmp_path, rows, kind="classification", labels=("a", "b")).broken == {"unknown_label": 1}
    assert check(tmp_path, rows, kind="classification").broken == {}


def test_a_hard_rule_stops_the_run_at_its_own_rate(tmp_path):
    rows = [GOOD | {"output": f"answer {n}"} for n in range(20)] + [GOOD | {"output": 3}]
    with pytest.raises(
        BiaslineError, match=r"1 of 21 rows \(4\.8%\) break the hard rule not_text.*row 21.*quality\.hard"
    ):
        check(tmp_path, rows, Quality(hard={"not_text": 0.01}))
    assert check(tmp_path, rows, Quality(hard={"not_text": 0.05})).good.height == 20
    with pytest.raises(BiaslineError, match=r"quality\.hard: 'no_text' is no rule"):
        check(tmp_path, rows, Quality(hard={"no_text": 0.05}))


OWN = '''
import polars as pl

LIMIT = 3

def few_words(frame):
    """more than three words"""
    return frame["output"].str.split(" ").list.len() <= LIMIT

def no_price(frame):
    """speaks of money"""
    return ~pl.col("output").str.contains("[$€]")

def _helper(frame):
    raise RuntimeError
'''


def own(tmp_path, text):
    path = tmp_path / "own.py"
    path.write_text(text, encoding="utf-8")
    return own_rules(path)


def test_a_project_adds_rules_of_its_own(tmp_path):
    rules = own(tmp_path, OWN)
    assert [(rule.name, rule.told) for rule in rules] == [
        ("few_words", "more than three words"),
        ("no_price", "speaks of money"),
    ]
    rows = [GOOD, GOOD | {"output": "one two three four"}, GOOD | {"output": "$5"}]
    assert check(tmp_path, rows, own=rules).broken == {"few_words": 1, "no_price": 1}
    assert check(tmp_path, rows, Quality(off=["few_words"], max_quarantine=1, hard={}), own=rules).broken == {
        "no_price": 1
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def f(:", r"own\.py: does not run: SyntaxError"),
        ("import nowhere", "does not run: ModuleNotFoundError"),
        ("x = 1", "no function in it"),
        ("def duplicate(frame): ...", "duplicate is a rule already"),
        ("def f(frame): return frame['nope']", "own\\.py: f: ColumnNotFoundError"),
        ("def f(frame): return True", "own\\.py: f: a Boolean series of 1 rows was expected, got bool"),
    ],
)
def test_rules_that_do_not_work_are_told(tmp_path, text, told):
    with pytest.raises(BiaslineError, match=told):
        check(tmp_path, [GOOD], own=own(tmp_path, text))


@pytest.mark.parametrize(
    "said",
    [
        "<noinput>",
        "No input",
        "Noinput.",
        "No input required.",
        "无输入",
        "“&lt;无输入&gt;”",
        "没有输入。",
        "N/A",
        "无",
    ],
)
def test_an_input_that_says_there_is_none_is_empty(said):
    frame, count = emptied_inputs(pl.DataFrame({"input": [said, "text", None, "no inputs were harmed"]}))
    assert (frame["input"].to_list(), count) == (["", "text", None, "no inputs were harmed"], 1)


@pytest.mark.parametrize(
    ("output", "rule"),
    [
        ("卡号4111111111111111请保密", "card"),
        ("number,4111 1111 1111 1111", "card"),
        ("Amex 3782 822463 10005", "card"),
        ("密钥sk-aaaaaaaaaaaaaaaaaaaaaaaa请保密", "key"),
        ("token hf_" + "a" * 34, "key"),
        ("发到bob@example.com吧", "email"),
        ("电话13812345678请", "phone"),
        ("+86 138-1234-5678", "phone"),
        ("555.123.4567", "phone"),
    ],
)
def test_secrets_are_found_in_running_text_and_blotted(tmp_path, output, rule):
    checked = check(
        tmp_path,
        [GOOD, GOOD | {"output": output, "note": output}],
        Quality(on=["email", "phone"], max_quarantine=1, hard={}),
    )
    assert checked.quarantine["reasons"].to_list() == [[rule]]
    for column in ("output", "note"):  # metadata are shown too
        assert f"[{rule}]" in checked.quarantine[column][0]
        assert not any(
            word in checked.quarantine[column][0] for word in ("4111", "3782", "aaaa", "bob@", "1234", "555.")
        )


def talk(*said):
    """A dialogue of rounds, its last one good."""
    turns = [{"role": "user", "content": "So?"}, {"role": "assistant", "content": "So."}]
    before = [
        [{"role": "user", "content": f"Ask {n}"}, {"role": "assistant", "content": text}] for n, text in enumerate(said)
    ]
    return {"messages": [turn for pair in before for turn in pair] + turns}


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("a\x00b", "control_characters"),
        ("see:\nsk-aaaaaaaaaaaaaaaaaaaaaaaa", "key"),
        ("N/A", "placeholder_output"),
        ("", "empty_output"),
        ("ok " * 200, "repeated_loop"),
        ("yes\nHuman: next", "merged_record"),
    ],
)
def test_rules_hold_for_every_round_of_a_dialogue(tmp_path, said, reason):
    checked = check(tmp_path, [talk("fine", "yes"), talk("fine", said, "yes"), talk("good")])
    assert checked.quarantine["row"].to_list() == [2]
    assert checked.quarantine["reasons"].to_list() == [[reason]]


def test_a_row_without_a_valid_label_says_nothing_about_the_others(tmp_path):
    path = tmp_path / "rows.json"
    rows = [
        {"text": f"text {n % 4}", "label": label} for n, label in enumerate(["a", "b", "a", "b", "", None, "zzz", "b"])
    ]
    path.write_text(json.dumps(rows))
    frame = read_examples(path, columns_of("classification"), Source()).frame
    checked = check_examples(frame, "classification", Quality(), ["a", "b"])
    assert checked.quarantine["reasons"].to_list() == [
        ["empty_label"],
        ["empty_label"],
        ["unknown_label"],
        ["duplicate"],
    ]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ('return frame["nope"]', "own.py: rule: ColumnNotFoundError"),
        ("raise RuntimeError('no')", "own.py: rule: RuntimeError: no"),
        ("return 5", "a Boolean series of 1 rows was expected, got int"),
        ("return pl.col('nope') == 1", "own.py: rule: ColumnNotFoundError"),
    ],
)
def test_what_goes_wrong_in_a_rule_of_ones_own_is_told_in_a_line(tmp_path, body, told):
    own = tmp_path / "own.py"
    own.write_text(f"import polars as pl\n\n\ndef rule(frame):\n    {body}\n")
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([GOOD]))
    frame = read_examples(path, columns_of("instruction"), Source()).frame
    with pytest.raises(BiaslineError, match=re.escape(told)) as raised:
        check_examples(frame, "instruction", Quality(), own=own_rules(own))
    assert "\n" not in str(raised.value)


def test_a_file_of_rules_that_ends_the_program_is_told(tmp_path):
    (tmp_path / "own.py").write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(BiaslineError, match="does not run: SystemExit: 3"):
        own_rules(tmp_path / "own.py")
