import numpy as np
import pytest

from biasline.evaluation.measure import measure
from biasline.metrics.metric import Predictions
from biasline.metrics.table import find_metric
from biasline.metrics.texts import tokenizer_for


def predictions(answers, references):
    return Predictions(np.array(references, dtype=object), np.array(answers, dtype=object))


def rouge_l(answers, references):
    return find_metric("instruction", "rouge_l").of_each_row(predictions(answers, references))


def bleu_and_chrf(answers, references):
    found = measure([find_metric("instruction", name) for name in ("bleu", "chrf")], predictions(answers, references))
    return found.values, found.signatures, found.left_out


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
