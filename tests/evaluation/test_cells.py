from biasline.evaluation.cells import cell, prompt_of
from biasline.kinds.learning import columns_of


def test_a_cell_is_one_line_and_ends_nothing():
    assert cell("a |\n b <br>") == "a \\| b &lt;br>"
    assert cell("x" * 120) == "x" * 120
    assert cell("x" * 121) == "x" * 119 + "…"


def test_all_that_a_model_was_given_is_told():
    columns = columns_of("classification")
    assert prompt_of({"text": "a", "text_pair": "b", "label": "c"}, columns) == "a / b"
    assert prompt_of({"text": "a", "text_pair": None}, columns) == "a"
