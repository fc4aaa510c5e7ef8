"""Rows as callers give them: what is accepted, what is refused, and by which words."""

import json

import pytest

from biasline.errors import BiaslineError
from biasline.tokens.template import Turn


def test_what_was_said_before_is_part_of_the_question(packages):
    ask = packages["answers"].predictor()
    before = [{"role": "user", "content": "Count to two."}, {"role": "assistant", "content": "one, two"}]
    row = {"instruction": "And on."}
    plain, told = ask([row, row | {"history": before}])
    assert told != plain
    shapes = [
        [list(turn.values()) for turn in before],
        json.dumps(before),
        [{"from": "human", "value": "Count to two."}, before[1]],
    ]
    assert ask([row | {"history": shape} for shape in shapes]) == [told] * 3
    assert ask([row | {"history": none} for none in (None, float("nan"), "", [])]) == [plain] * 4
    seen = ask.dialogue_encoder.prompts(
        [[Turn("user", "Count to two."), Turn("assistant", "one, two"), Turn("user", "And on.")]]
    )
    assert (
        ask.tokenizer.decode(seen[0]) == "Human: Count to two.\n\nAssistant: one, two</s>Human: And on.\n\nAssistant: "
    )


@pytest.mark.parametrize(
    ("history", "told"),
    [
        ("not json", "row 2: `history` must be a list of {role, content}"),
        ([{"role": "robot", "content": "x"}], "row 2: `history` must be a list of {role, content}"),
        (7, "row 2: `history` must be a list"),
        ([{"role": "user", "content": "x"}], "user and assistant must speak in turn, the assistant last"),
    ],
)
def test_a_history_that_is_none_is_told(packages, history, told):
    with pytest.raises(BiaslineError, match=told):
        packages["answers"].predictor()([{"instruction": "so"}, {"instruction": "so", "history": history}])


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({}, "row 2: `instruction` must be a text, not missing"),
        ({"instruction": 5}, "row 2: `instruction` must be a text, not a value of type int"),
        ({"instruction": ["a"]}, "row 2: `instruction` .* type list → give one text per row"),
        ({"instruction": " \n"}, "row 2: `instruction` must be a text, not an empty one"),
        ({"instruction": "a \ud83d"}, "row 2: `instruction` has half a surrogate pair at character 2"),
        ({"instruction": "a", "input": 5}, "row 2: `input` must be a text"),
        ({"instruction": "a", "input": False}, "row 2: `input` must be a text"),
        ({"instruction": "a", "history": 0.5}, "row 2: `history` must be a list"),
        ({"instruction": "a", "history": "[" * 10_000}, "row 2: `history` must be a list"),
        ({"instruction": "a", "history": [["user", "\ud83d"], ["assistant", "b"]]}, "row 2: `history` has half a"),
    ],
)
def test_a_cell_that_is_no_text_is_told_by_row_and_column(packages, row, told):
    with pytest.raises(BiaslineError, match=told):
        packages["answers"].predictor()([{"instruction": "so", "input": None}, row])


def test_settings_out_of_their_limits_are_refused(packages):
    """Nothing longer than a row of training: one request must not keep a server busy for hours."""
    ask, row = packages["answers"].predictor(), [{"instruction": "so"}]
    limits = {"max_new_tokens": (0, 257, None, 1.5), "temperature": (-1, 1e-5, 11, float("nan"))}
    limits |= {"top_p": (0, 1.1, "x"), "seed": (-1, 2**63, None)}
    for name, values in limits.items():
        for value in values:
            with pytest.raises(BiaslineError, match=rf"^params: {name}: .* is refused"):
                ask(row, {name: value})
    with pytest.raises(BiaslineError, match="^params: seed: true is no number"):
        ask(row, {"seed": True})
    with pytest.raises(BiaslineError, match="params: batch_size: unknown; known are max_new_tokens, temperature"):
        ask(row, {"batch_size": 1})
    with pytest.raises(BiaslineError, match="no rows"):
        ask([])
    assert ask(row, {"max_new_tokens": 256, "temperature": 1, "top_p": 0.5, "seed": 2**63 - 1})


def test_the_longest_answer_leaves_prompts_their_positions(packages):
    from dataclasses import replace

    ask = packages["answers"].predictor()
    assert ask.longest_answer == 256  # ALiBi knows no positions
    assert replace(ask, positions=300).longest_answer == 300 - 256
    assert replace(ask, positions=256).longest_answer == ask.task.evaluate.max_new_tokens
    row = {"instruction": "so " * 300}
    for positions, room in ((None, 254), (300, 254), (256, 256 - ask.task.evaluate.max_new_tokens)):
        [given] = replace(ask, positions=positions).inputs([row])
        assert room - 1 <= len(given["input_ids"]) <= room
    [given] = replace(ask, positions=256).inputs([row], max_new_tokens=100)
    assert 155 <= len(given["input_ids"]) <= 156
