import numpy as np
import pytest

from biasline.errors import BiaslineError
from biasline.evaluation.overlap import OwnScores, bleu_and_chrf, rouge_l, tokenizer_for


def test_the_same_words_are_worth_all_and_others_nothing():
    references = ["the cat sat on the mat today", "苹果是一种水果，很好吃。"]
    values, signatures, left_out = bleu_and_chrf(references, references)
    assert not left_out
    assert values == pytest.approx({"bleu": 100.0, "chrf": 100.0})
    assert "tok:zh" in signatures["bleu"]
    assert rouge_l(references, references).tolist() == [1.0, 1.0]
    assert rouge_l(["dogs", ""], references).tolist() == [0.0, 0.0]
    assert rouge_l([""], [""]).tolist() == [1.0]


def test_bleu_is_left_out_where_answers_have_no_runs_of_four_words():
    references = ["positive", "negative", "not bad"] * 4
    values, signatures, left_out = bleu_and_chrf(references, references)
    assert values == pytest.approx({"chrf": 100.0}) and set(signatures) == {"chrf"}
    assert left_out == {"bleu": "it counts runs of 4 words, and 12 of 12 references are shorter"}
    some = [*references, "the cat sat on the mat", "the dog sat on the cat"]
    assert bleu_and_chrf(some, some)[0]["bleu"] == pytest.approx(100.0)


def test_rouge_l_is_the_f1_of_the_longest_common_subsequence():
    # Lin (2004), section 3: police killed the gunman / police kill the gunman: 3 of 4 words in order.
    assert rouge_l(["Police kill the gunman"], ["police killed the gunman"])[0] == pytest.approx(0.75)
    assert rouge_l(["the gunman kill police"], ["police killed the gunman"])[0] == pytest.approx(0.5)
    # Precision 2/2, recall 2/4.
    assert rouge_l(["police gunman"], ["police killed the gunman"])[0] == pytest.approx(2 / 3)


def test_chinese_counts_by_character():
    assert tokenizer_for(["an apple", "苹果"]) == "zh"
    assert tokenizer_for(["an apple"]) == "13a"
    assert rouge_l(["红苹果"], ["青苹果"])[0] == pytest.approx(2 / 3)
    assert 0 < bleu_and_chrf(["红色的苹果很好吃"], ["青色的苹果很好吃"])[0]["bleu"] < 100


def own(tmp_path, text):
    path = tmp_path / "own.py"
    path.write_text(text, encoding="utf-8")
    return OwnScores(path)


def test_a_projects_own_scores_see_the_row_and_the_answer(tmp_path):
    scores = own(tmp_path, 'def shorter(row):\n    return len(row["answer"]) <= len(row["output"])\n')
    rows = [{"row": 1, "output": "ab"}, {"row": 2, "output": "a"}]
    found = scores(rows, ["a", "ab"])
    assert list(found) == ["shorter"]
    assert np.array_equal(found["shorter"], [1.0, 0.0])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('def bad(row):\n    return row["nothing"]\n', "bad: row 7: KeyError: 'nothing' → mend the function"),
        ("def bad(row):\n    return float('nan')\n", "bad: row 7: nan is no score"),
        ("def bad(row):\n    return 'much'\n", "bad: row 7: ValueError"),
        ("def exact_match(row):\n    return 1\n", "exact_match is a metric already"),
        ("x = 1\n", "no function in it"),
        ("import nothing_of_the_kind\n", "does not run: ModuleNotFoundError"),
    ],
)
def test_what_is_wrong_with_own_scores_is_told(tmp_path, text, told):
    with pytest.raises(BiaslineError, match=told):
        own(tmp_path, text)([{"row": 7}], ["x"])
