import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from biasline.evaluation.references import Decisive, decisive_metric, own_spelling
from biasline.metrics.texts import LOG_LIKELIHOOD
from biasline.params import Task

FILES = {"base": "base.json", "data": "rows.json"}
LONG = [f"It is the {number}th day of the week in which we talk about energy and the sun." for number in range(40)]


@pytest.mark.parametrize(
    ("references", "metric"),
    [
        (LONG, LOG_LIKELIHOOD),
        (LONG[:2] * 20, "exact_match"),  # a few long ones are known by heart
        (
            ["ผลิตภัณฑ์นี้มีคุณภาพดีมากและการจัดส่งรวดเร็วทันใจ ขอบคุณร้านค้าที่บริการดีเยี่ยม"]
            + [f"{n} สินค้านี้ดีมากและคุ้มค่ากับราคาที่จ่ายไปแต่การจัดส่งช้าไปหน่อยนะครับผมคิดว่าอย่างนั้น" for n in range(9)],
            LOG_LIKELIHOOD,
        ),
        (["positive", "negative"] * 20, "exact_match"),
        ([f"number {number}" for number in range(40)], "exact_match"),  # all different, and short
        ([f"{number} apples are too few for a cake" for number in range(40)], LOG_LIKELIHOOD),
        (["two apples are too few for us", "no apples are too few for us"] * 20, "exact_match"),
        ([f"太阳的能量来自氢核聚变为氦核的过程。{number}" for number in range(9)], LOG_LIKELIHOOD),
        (["正面", "负面"] * 9, "exact_match"),
    ],
)
def test_open_answers_are_judged_by_their_likelihood(references, metric):
    found = decisive_metric(Task(**FILES), references)
    assert found.name == metric
    assert "answers are " + ("open" if metric == LOG_LIKELIHOOD else "short") in found.reason


def test_what_parameters_name_decides():
    asked = Task(**FILES, gates={"metric": "rouge_l"})
    assert decisive_metric(asked, LONG) == Decisive("rouge_l", "gates.metric names it")
    assert decisive_metric(Task(**FILES, kind="classification")).name == "accuracy"
    assert asked.decided_by({"metric": "exact_match"}) == "rouge_l"
    assert Task(**FILES).decided_by({"metric": LOG_LIKELIHOOD}) == LOG_LIKELIHOOD
    assert Task(**FILES).decided_by({}) == "exact_match"  # the earliest evaluations name none


def test_a_reference_is_spelled_as_the_tokenizer_can():
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"[UNK]": 0, "café": 1, "a": 2}, unk_token="[UNK]"))
    words.normalizer, words.pre_tokenizer = normalizers.NFC(), pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
    assert own_spelling(tokenizer, ["a cafe\u0301", "a 茶", "a"]) == ["a caf\u00e9", "a 茶", "a"]
