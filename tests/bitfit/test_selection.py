import pytest
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from biasline.bitfit import inspect_biases, select_biases
from biasline.errors import BiaslineError


def roles(selection):
    return sorted({bias.role for bias in selection.biases})


def test_all_leaves_out_key_biases_that_cannot_act_and_says_so(bloom):
    selection = select_biases(inspect_biases(bloom), "all")
    assert "key" not in roles(selection)
    assert "64 key biases left out" in selection.notes[0]


def test_key_asked_for_by_name_is_taken(bloom):
    selection = select_biases(inspect_biases(bloom), "key+value")
    assert roles(selection) == ["key", "value"]
    assert selection.notes == ()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("query+mlp_in", ["mlp_in", "query"]),
        ("attention+mlp", ["attention_output", "mlp_in", "mlp_out", "query", "value"]),
        ("value", ["value"]),
        ("norm", ["norm"]),
    ],
)
def test_roles_and_groups(bloom, asked, expected):
    assert roles(select_biases(inspect_biases(bloom), asked)) == expected


def test_a_head_is_not_part_of_all():
    config = BertConfig(hidden_size=32, num_attention_heads=4, num_hidden_layers=1, intermediate_size=64, vocab_size=50)
    assert "head" not in roles(select_biases(inspect_biases(BertForSequenceClassification(config)), "all"))


@pytest.mark.parametrize(("layers", "expected"), [("0", {0}), ("1-", {1}), ("0-1", {0, 1}), ("0,1", {0, 1})])
def test_layers(bloom, layers, expected):
    assert {bias.layer for bias in select_biases(inspect_biases(bloom), "all", layers).biases} == expected


def test_pattern(bloom):
    selection = select_biases(inspect_biases(bloom), "all", pattern=r"h\.1\.mlp")
    assert {bias.name.split(".mlp")[0] for bias in selection.biases} == {"transformer.h.1"}


@pytest.mark.parametrize(
    ("asked", "layers", "pattern", "told"),
    [
        ("qery", "", "", "'qery' is no role"),
        ("all", "a-b", "", "no layer or range"),
        ("all", "", "(", "not a regular expression"),
        ("pooler", "", "", "nothing selected.*query 64"),
        ("all", "7", "", "has the layers 0 to 1"),
        ("all", "0-9", "", "has the layers 0 to 1"),
        ("all", "0", "ln_f", "nothing selected"),
    ],
)
def test_a_choice_that_cannot_be_is_told(bloom, asked, layers, pattern, told):
    with pytest.raises(BiaslineError, match=told):
        select_biases(inspect_biases(bloom), asked, layers, pattern)


def test_a_model_without_biases_says_what_injection_would_add():
    config = LlamaConfig(
        hidden_size=32, num_attention_heads=4, num_hidden_layers=1, intermediate_size=64, vocab_size=50
    )
    with pytest.raises(BiaslineError, match=r"no bias at all; inject would add: query 32, key 32.*norm 96"):
        select_biases(inspect_biases(LlamaForCausalLM(config)))


def test_an_unknown_architecture_gives_all_but_no_roles():
    inventory = inspect_biases(nn.Sequential(nn.Linear(2, 3)))
    assert select_biases(inventory).count == 3
    with pytest.raises(BiaslineError, match=r"roles of 'Sequential' are not known; its biases: 0\.bias"):
        select_biases(inventory, "query")
