import json

import polars as pl
import pytest

from biasline.data.contract import check_examples
from biasline.data.sources import read_asked, read_examples
from biasline.data.turns import is_supervised, turn_of
from biasline.kinds.learning import columns_of
from biasline.params import Quality, Source

LENIENT = Quality(max_quarantine=1.0, hard={})


def user(said):
    return {"role": "user", "content": said}


def assistant(said, **more):
    return {"role": "assistant", "content": said, **more}


def examples(tmp_path, rows, **source):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return read_examples(path, columns_of("instruction"), Source(**source))


def histories(found):
    return [json.loads(text) if text else text for text in found.frame["history"]]


@pytest.mark.parametrize("name", ["system", "system_prompt", "System"])
def test_what_the_system_says_beside_an_instruction_is_the_first_turn(tmp_path, name):
    rows = [
        {"instruction": "q 1", "input": "", "output": "out", name: "Answer as a pirate."},
        {"instruction": "q 2", "input": "", "output": "out", name: ""},
        {"instruction": "q 3", "output": "out", name: "Short.", "history": [["Count", "one"]]},
    ]
    found = examples(tmp_path, rows)
    assert histories(found) == [
        [["system", "Answer as a pirate."]],
        "",
        [["system", "Short."], ["user", "Count"], ["assistant", "one"]],
    ]
    assert found.taken["system"] == name
    assert found.frame[name].to_list() == ["Answer as a pirate.", "", "Short."]  # may be sliced by


def test_what_the_system_says_beside_a_dialogue_is_its_first_turn(tmp_path):
    turns = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    own = [{"from": "system", "value": "Own."}, *turns]
    rows = [{"conversations": turns, "system": "S"}, {"conversations": own, "system": "S"}]
    found = examples(tmp_path, rows)
    assert histories(found) == [[["system", "S"]], [["system", "Own."]]]
    assert "rows with a system column and another system turn in their dialogue, which is kept: 1" in found.notes


def test_a_system_column_that_is_something_else_can_be_denied(tmp_path):
    found = examples(tmp_path, [{"instruction": "a", "output": "b", "system": "Linux"}], columns={"system": ""})
    assert histories(found) == [""] and found.frame["system"].to_list() == ["Linux"]
    named = examples(tmp_path, [{"instruction": "a", "output": "b", "rolle": "Pirat"}], columns={"system": "rolle"})
    assert histories(named) == [[["system", "Pirat"]]]


def test_a_system_that_is_no_text_breaks_the_contract(tmp_path):
    rows = [{"instruction": f"a {n}", "output": "b", "system": "s" if n else 3} for n in range(2)]
    checked = check_examples(examples(tmp_path, rows).frame, "instruction", LENIENT)
    assert checked.quarantine["reasons"].to_list() == [["not_text"]]


def test_the_system_is_part_of_what_a_model_is_asked(tmp_path):
    path = tmp_path / "asked.json"
    path.write_text(json.dumps([{"instruction": "a", "system": "Be kind."}]))
    (row,) = read_asked(path, columns_of("instruction"), Source())
    assert json.loads(row["history"]) == [["system", "Be kind."]]


@pytest.mark.parametrize("mark", [{"weight": 0}, {"weight": 0.0}, {"train": False}, {"loss": False}, {"masked": True}])
def test_an_answer_of_no_weight_is_read_and_not_learned(tmp_path, mark):
    turns = [user("1"), assistant("bad answer", **mark), user("2"), assistant("fine", weight=1)]
    found = examples(tmp_path, [{"messages": turns}])
    assert histories(found) == [[["user", "1"], ["assistant", "bad answer", 0]]]
    assert found.frame["output"].to_list() == ["fine"]
    assert "earlier answers of weight 0, which the model reads and is not trained on: 1" in found.notes


def test_a_last_answer_of_no_weight_is_dropped_with_its_question(tmp_path):
    turns = [
        user("1"),
        assistant("fine"),
        user("2"),
        assistant("bad", weight=0),
        user("3"),
        assistant("b", train=False),
    ]
    found = examples(tmp_path, [{"messages": turns}])
    assert found.frame.select("instruction", "output", "history").rows() == [("1", "fine", "")]
    assert "dialogues whose last answers have weight 0, which end before them: 1" in found.notes


def test_a_dialogue_of_which_nothing_is_to_be_learned_has_a_reason_of_its_own(tmp_path):
    rows = [{"messages": [user("1"), assistant("fine")]}, {"messages": [user("1"), assistant("bad", weight=0)]}]
    checked = check_examples(examples(tmp_path, rows).frame, "instruction", LENIENT)
    assert checked.quarantine.select("row", "reasons").rows() == [(2, ["not_learned"])]
    assert "dialogue__problem" not in checked.good.columns + checked.quarantine.columns


def test_weights_of_users_and_of_asked_rows_do_not_matter(tmp_path):
    turns = [user("1") | {"weight": 0}, assistant("fine", weight=None)]
    assert histories(examples(tmp_path, [{"messages": [*turns, user("2"), assistant("b")]}])) == [
        [["user", "1"], ["assistant", "fine"]]
    ]
    (tmp_path / "asked.json").write_text(json.dumps([{"messages": [user("1"), assistant("b", weight=0)]}]))
    assert read_asked(tmp_path / "asked.json", columns_of("instruction"), Source())[0]["instruction"] == "1"


def test_rules_on_outputs_leave_an_answer_alone_that_is_not_learned(tmp_path):
    turns = [user("1"), assistant("N/A", weight=0), user("2"), assistant("fine")]
    secret = [user("1"), assistant("sk-" + "a" * 24, weight=0), user("2"), assistant("fine")]
    learned = [user("1"), assistant("N/A"), user("2"), assistant("fine")]
    rows = [{"messages": turns}, {"messages": secret}, {"messages": learned}]
    checked = check_examples(examples(tmp_path, rows).frame, "instruction", LENIENT)
    assert checked.quarantine.select("row", "reasons").rows() == [(2, ["key"]), (3, ["placeholder_output"])]


@pytest.mark.parametrize(
    "turns",
    [
        [{"role": "tool", "content": "a"}, assistant("c")],
        [user("q"), {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}],
        [user("q"), {"from": "function_call", "value": "{}"}, {"from": "observation", "value": "1"}, assistant("c")],
        [user("q"), {"role": "function", "name": "f", "content": "1"}, assistant("c")],
    ],
)
def test_turns_of_tools_have_a_reason_of_their_own(tmp_path, turns):
    rows = [{"messages": [user("1"), assistant("fine")]}, {"messages": turns}]
    checked = check_examples(examples(tmp_path, rows).frame, "instruction", LENIENT)
    assert checked.quarantine.select("row", "reasons").rows() == [(2, ["tool_turns"])]


def test_what_is_left_out_of_turns_is_counted(tmp_path):
    turns = [user("q"), assistant("a", reasoning_content="Well …", tool_calls=[])]
    rows = [{"messages": turns, "tools": "[{}]"}, {"messages": turns, "tools": "[]"}, {"messages": turns}]
    notes = examples(tmp_path, rows).notes
    assert "turns with a reasoning (reasoning_content) beside their content, which is left out: 3" in notes
    assert "rows with 'tools', which the model is not shown: 1" in notes


def test_a_developer_speaks_for_the_system_and_parts_of_text_are_text():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert turn_of({"role": "developer", "content": parts}) == ("system", "ab")
    with pytest.raises((TypeError, KeyError)):
        turn_of({"role": "user", "content": [{"type": "image_url", "image_url": {}}]})


def test_turns_as_we_keep_them_are_turns():
    assert turn_of(["assistant", "x", 0]) == ("assistant", "x") and not is_supervised(["assistant", "x", 0])
    assert is_supervised(["assistant", "x"]) and is_supervised(["assistant", "x", 1])
    with pytest.raises(ValueError, match="no turn"):
        turn_of(["assistant", "x", 0, 0])


def test_prompts_that_are_turns_are_joined_with_their_answers(tmp_path):
    system = {"role": "system", "content": "S"}
    row = {"prompt": [system, user("1"), assistant("a"), user("2")], "completion": [assistant("b")], "n": 1}
    found = examples(tmp_path, [row, row | {"completion": "c"}])
    assert found.frame["output"].to_list() == ["b", "c"]
    assert histories(found)[0] == [["system", "S"], ["user", "1"], ["assistant", "a"]]
    (tmp_path / "asked.json").write_text(json.dumps([{"prompt": [user("1"), assistant("a"), user("2")]}]))
    (asked,) = read_asked(tmp_path / "asked.json", columns_of("instruction"), Source())
    assert asked["instruction"] == "2" and json.loads(asked["history"]) == [["user", "1"], ["assistant", "a"]]


def test_a_history_of_turns_keeps_weights(tmp_path):
    rows = [{"instruction": "a", "output": "b", "history": [user("1"), assistant("x", weight=0)]}]
    found = examples(tmp_path, rows)
    assert histories(found) == [[["user", "1"], ["assistant", "x", 0]]]
    again = [{"instruction": "a", "output": "b", "history": found.frame["history"][0]}]
    assert histories(examples(tmp_path, again)) == histories(found)


def test_a_frame_without_dialogues_has_no_problem(tmp_path):
    found = examples(tmp_path, [{"instruction": "a", "output": "b"}]).frame
    assert found.schema["dialogue__problem"] == pl.String and found["dialogue__problem"].null_count() == 1
