import torch

from biasline.evaluation.generate import Drawing, generate


def prompts(tokenizer):
    texts = ["The", "Add 4 and", "问：苹果属于哪一类？答：", "Q: What is the opposite of big? A:"] * 3
    return tokenizer(texts, add_special_tokens=False).input_ids


def demo(root):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(root / "data" / "bases" / "tiny-bloom"), dtype=torch.float32).eval()


def test_a_batch_answers_as_single_rows_do(root, demo_tokenizer):
    model, ids, stops = demo(root), prompts(demo_tokenizer), [demo_tokenizer.eos_token_id]
    alone = [generate(model, demo_tokenizer, [row], Drawing(12), 1, stops)[0] for row in ids]
    assert generate(model, demo_tokenizer, ids, Drawing(12), 5, stops) == alone
    assert any(answer.text for answer in alone)
    assert {answer.ended for answer in alone} == {True, False}


def test_answers_come_in_the_order_of_the_prompts_and_progress_is_told(root, demo_tokenizer):
    model, ids, stops = demo(root), prompts(demo_tokenizer), [demo_tokenizer.eos_token_id]
    seen = []
    forward = generate(model, demo_tokenizer, ids, Drawing(4), 5, stops, seen.append)
    assert seen == [5, 10, 12]
    assert generate(model, demo_tokenizer, ids[::-1], Drawing(4), 5, stops) == forward[::-1]


def test_drawn_answers_are_seeded_and_differ_from_the_likeliest(root, demo_tokenizer):
    model, ids, stops = demo(root), prompts(demo_tokenizer), [demo_tokenizer.eos_token_id]

    def drawn(**settings):
        return [answer.text for answer in generate(model, demo_tokenizer, ids, Drawing(12, **settings), 5, stops)]

    greedy, one = drawn(), drawn(temperature=1.0, seed=1)
    assert one == drawn(temperature=1.0, seed=1)
    assert len({tuple(greedy), tuple(one), tuple(drawn(temperature=1.0, seed=2))}) == 3
    # So little of the probability that one token makes it up.
    assert drawn(temperature=1.0, top_p=1e-6) == greedy
