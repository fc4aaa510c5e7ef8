import torch

from biasline.evaluation.generate import generate


def prompts(tokenizer):
    texts = ["The", "Add 4 and", "问：苹果属于哪一类？答：", "Q: What is the opposite of big? A:"] * 3
    return tokenizer(texts, add_special_tokens=False).input_ids


def demo(root):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(str(root / "data" / "bases" / "tiny-bloom"), dtype=torch.float32).eval()


def test_a_batch_answers_as_single_rows_do(root, demo_tokenizer):
    model, ids, stops = demo(root), prompts(demo_tokenizer), [demo_tokenizer.eos_token_id]
    alone = [generate(model, demo_tokenizer, [row], 12, 1, stops)[0] for row in ids]
    assert generate(model, demo_tokenizer, ids, 12, 5, stops) == alone
    assert any(alone)


def test_answers_come_in_the_order_of_the_prompts_and_progress_is_told(root, demo_tokenizer):
    model, ids, stops = demo(root), prompts(demo_tokenizer), [demo_tokenizer.eos_token_id]
    seen = []
    forward = generate(model, demo_tokenizer, ids, 4, 5, stops, seen.append)
    assert seen == [5, 10, 12]
    assert generate(model, demo_tokenizer, ids[::-1], 4, 5, stops) == forward[::-1]
