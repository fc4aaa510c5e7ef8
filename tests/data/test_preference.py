import json

import pytest

from biasline.data.sources import read_asked, read_examples
from biasline.errors import BiaslineError
from biasline.kinds.learning import columns_of
from biasline.params import Source


def examples(tmp_path, rows, **source):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    return read_examples(path, columns_of("instruction"), Source(**source))


def said(tmp_path, rows, **source):
    return examples(tmp_path, rows, **source).frame.select("instruction", "output", "history").rows()


def user(said):
    return {"role": "user", "content": said}


def assistant(said):
    return {"role": "assistant", "content": said}


HH = "\n\nHuman: q\n\nAssistant: good"
PAIRS = {
    "texts": {"prompt": "q", "chosen": "good", "rejected": "bad"},
    "turns": {"prompt": [user("q")], "chosen": [assistant("good")], "rejected": [assistant("bad")]},
    "whole dialogues": {
        "prompt": "q",
        "chosen": [user("q"), assistant("good")],
        "rejected": [user("q"), assistant("b")],
    },
    "messages beside": {
        "messages": [user("q"), assistant("good")],
        "chosen": [user("q"), assistant("good")],
        "rejected": [user("q"), assistant("bad")],
    },
    "one turn": {
        "conversations": [{"from": "human", "value": "q"}],
        "chosen": {"from": "gpt", "value": "good"},
        "rejected": {"from": "gpt", "value": "bad"},
    },
    "text of turns": {"chosen": HH, "rejected": HH.replace("good", "bad")},
    "other names": {"question": "q", "response_chosen": "good", "response_rejected": "bad"},
}


@pytest.mark.parametrize("name", PAIRS)
def test_pairs_are_refused_until_it_is_said_what_to_train_on(tmp_path, name):
    with pytest.raises(BiaslineError, match=r"rows\.json: preference data: '.*chosen' and .*source\.prefer: chosen"):
        examples(tmp_path, [PAIRS[name]])
    with pytest.raises(BiaslineError, match="preference data"):
        examples(tmp_path, [PAIRS[name]], prefer="all")
    assert said(tmp_path, [PAIRS[name]] * 2, prefer="chosen") == [("q", "good", "")] * 2
    found = examples(tmp_path, [PAIRS[name]], prefer="chosen")
    assert "source.prefer: 1 rejected answers are left out" in found.notes
    assert not any("rejected" in column for column in found.frame.columns)


def test_earlier_rounds_and_the_system_of_a_pair_stay(tmp_path):
    row = {"system": "S", "chosen": HH + "\n\nHuman: more\n\nAssistant: sure", "rejected": HH}
    [(instruction, output, history)] = said(tmp_path, [row], prefer="chosen")
    assert (instruction, output) == ("more", "sure")
    assert json.loads(history) == [["system", "S"], ["user", "q"], ["assistant", "good"]]


def test_a_column_named_in_params_decides(tmp_path):
    row = PAIRS["texts"]
    assert said(tmp_path, [row], columns={"output": "chosen"}) == [("q", "good", "")]
    named = {"frage": "q", "chosen": "good", "rejected": "bad"}
    assert said(tmp_path, [named], prefer="chosen", columns={"instruction": "frage"}) == [("q", "good", "")]


def test_a_prompt_column_that_is_not_there_is_told(tmp_path):
    for name in ("nope", "prompt.text"):
        with pytest.raises(BiaslineError, match=rf"no column '{name}' \(source.columns.instruction\); it has: chosen"):
            examples(tmp_path, [{"chosen": [], "rejected": None}], prefer="chosen", columns={"instruction": name})


def dialogues(values, name="label"):
    return [{"messages": [user(f"q{n}"), assistant(f"a{n}")], name: value} for n, value in enumerate(values)]


@pytest.mark.parametrize(
    "values", [(True, False, True), (1, 0, 1), (1, -1, 1), ("good", "bad", "good"), (1.0, 0.0, None)]
)
@pytest.mark.parametrize("name", ["label", "kto_tag", "rating", "desirable"])
def test_answers_that_are_called_bad_are_refused_until_it_is_said(tmp_path, values, name):
    rows = dialogues(values, name)
    with pytest.raises(
        BiaslineError, match=rf"column '{name}' says of 1 of 3 answers that they are bad → source\.prefer"
    ):
        examples(tmp_path, rows)
    found = examples(tmp_path, rows, prefer="chosen")
    good = [place for place, value in enumerate(values, 1) if value in (True, "good")]
    assert found.frame["row"].to_list() == good
    assert found.left_out == {"source.prefer": 3 - len(good)}
    assert f"source.prefer leaves out {3 - len(good)} of the data's records" in found.notes
    assert examples(tmp_path, rows, prefer="all").frame.height == 3


def test_prompts_with_completions_are_judged_likewise(tmp_path):
    rows = [{"prompt": f"p{n}", "completion": f"c{n}", "label": n == 0} for n in range(3)]
    with pytest.raises(BiaslineError, match="says of 2 of 3 answers that they are bad"):
        examples(tmp_path, rows)
    assert examples(tmp_path, rows, prefer="chosen").frame["output"].to_list() == ["c0"]
    filtered = examples(tmp_path, rows, where={"label": True})
    assert filtered.frame["output"].to_list() == ["c0"] and filtered.left_out == {"source.where": 2}


def test_labels_that_say_nothing_bad_and_classes_pass(tmp_path):
    assert examples(tmp_path, dialogues([True, True])).frame.height == 2
    assert examples(tmp_path, dialogues([0, 1, 2])).frame.height == 3
    assert examples(tmp_path, dialogues(["sport", "news"])).frame.height == 2
    rows = [{"instruction": f"Is it good? {n}", "output": ["no", "yes"][n % 2], "label": n % 2} for n in range(20)]
    assert examples(tmp_path, rows).frame.height == 20  # the class that the answer names
    alpaca = [{"instruction": "a", "input": "", "output": "b", "source": "belle"}]
    assert examples(tmp_path, alpaca).notes == ()


def test_numbers_beside_answers_are_noted_and_not_refused(tmp_path):
    rows = [{"instruction": f"i{n}", "output": f"o{n}", "rating": n + 1} for n in range(5)]
    [note] = examples(tmp_path, rows).notes
    assert note.startswith("a column 'rating' of numbers (1 to 5) stands beside the answers")
    assert 'by source.where, as "rating >= …"' in note
    assert examples(tmp_path, rows, prefer="all").notes == ()
    assert len(examples(tmp_path, rows, where="rating >= 4").notes) == 1  # how many it leaves out


def test_ranked_answers_are_refused_and_the_best_is_taken(tmp_path):
    rows = [{"instruction": "i", "input": "", "output": ["first", "second"]}] * 3
    with pytest.raises(
        BiaslineError, match=r"'output' \(output\) holds lists.*source\.answers.*source\.prefer: chosen"
    ):
        examples(tmp_path, rows)

    def outputs(**more):
        return examples(tmp_path, [row | more for row in rows], prefer="chosen").frame["output"].to_list()

    assert outputs() == ["first"] * 3
    assert outputs(scores=[1, 5]) == outputs(ranks=[2, 1]) == ["second"] * 3
    assert outputs(scores=[5, 1]) == ["first"] * 3
    assert outputs(output=["", "second", "third"], scores=[0, 5, 1]) == ["second"] * 3
    assert outputs(output=[None, "second"], scores=[5, 1]) == ["second"] * 3


def test_preferring_where_nothing_is_preferred_is_told(tmp_path):
    with pytest.raises(BiaslineError, match="nothing says which answers are better; it has: instruction, output"):
        examples(tmp_path, [{"instruction": "i", "output": "o"}], prefer="chosen")
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"text": "i", "label": True}]))
    with pytest.raises(BiaslineError, match=r"source\.prefer: chosen: only an instruction has answers"):
        read_examples(path, columns_of("classification"), Source(prefer="chosen"))


def test_rows_to_predict_may_hold_preferences(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([PAIRS["texts"], {"prompt": "p", "label": False}]))
    assert [row["instruction"] for row in read_asked(path, columns_of("instruction"), Source())] == [
        "q",
        "p",
    ]


def kto(tmp_path, name, values):
    rows = [{"prompt": f"ask {n}", "completion": f"say {n}", name: values[n % len(values)]} for n in range(60)]
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(rows))
    return path


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("label", ["good", "bad", "neutral", "good"]),
        ("feedback", ["thumbs_up", "thumbs_down"]),
        ("is_correct", [True, False]),
    ],
)
def test_verdicts_in_other_words_are_verdicts(tmp_path, name, values):
    path = kto(tmp_path, name, values)
    with pytest.raises(BiaslineError, match=f"preference data: column '{name}' says of"):
        read_examples(path, columns_of("instruction"), Source())
    found = read_examples(path, columns_of("instruction"), Source(prefer="chosen"))
    assert found.frame.height == 30


def test_scores_of_ranked_answers_may_be_called_score(tmp_path):
    rows = [{"prompt": f"ask {n}", "output": ["a", "b", "c"], "score": [1, 3, 2]} for n in range(20)]
    path = tmp_path / "ranked.json"
    path.write_text(json.dumps(rows))
    found = read_examples(path, columns_of("instruction"), Source(prefer="chosen"))
    assert set(found.frame["output"]) == {"b"}
