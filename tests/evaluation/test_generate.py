import pytest
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
    assert seen == [5, 5, 2]
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


@pytest.mark.parametrize(
    "settings",
    [
        {"repetition_penalty": 1.8},
        {"no_repeat_ngram_size": 1},
        {"num_beams": 3, "length_penalty": 3.0},
        {"min_length": 200, "min_new_tokens": 12},
        {"stop_strings": ["a", "的"]},
        {"penalty_alpha": 0.6, "top_k": 4},
        {"prompt_lookup_num_tokens": 3},
        {"suppress_tokens": list(range(500))},
        {"bad_words_ids": [[number] for number in range(500)]},
        {"forced_eos_token_id": 2, "max_length": 3},
        {"do_sample": True, "temperature": 5.0, "top_k": 3},
        {"cache_implementation": "static"},
        {"guidance_scale": 3.0},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_what_the_bases_authors_chose_for_generation_changes_nothing(root, demo_tokenizer, settings):
    from transformers import GenerationConfig

    model, ids, stops = demo(root), prompts(demo_tokenizer)[:4], [demo_tokenizer.eos_token_id]
    plain = generate(model, demo_tokenizer, ids, Drawing(12), 4, stops)
    model.generation_config = GenerationConfig(**settings)
    assert generate(model, demo_tokenizer, ids, Drawing(12), 4, stops) == plain


def test_an_adapters_base_has_no_word_in_it_either(root, demo_tokenizer):
    from peft import LoraConfig, get_peft_model
    from transformers import GenerationConfig

    model, ids, stops = demo(root), prompts(demo_tokenizer)[:4], [demo_tokenizer.eos_token_id]
    plain = generate(model, demo_tokenizer, ids, Drawing(12), 4, stops)
    model.generation_config = GenerationConfig(repetition_penalty=1.8, num_beams=3)
    adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["query_key_value"])).eval()
    assert generate(adapted, demo_tokenizer, ids, Drawing(12), 4, stops) == plain  # a new adapter adds nothing


def test_an_end_of_turn_that_is_no_special_token_is_not_said(root, demo_tokenizer):
    model, ids = demo(root), prompts(demo_tokenizer)[:1]
    text = generate(model, demo_tokenizer, ids, Drawing(8), 1, [demo_tokenizer.eos_token_id])[0].text
    words = demo_tokenizer(text, add_special_tokens=False).input_ids
    [answer] = generate(model, demo_tokenizer, ids, Drawing(8), 1, [demo_tokenizer.eos_token_id, words[2]])
    assert answer.ended and answer.text == demo_tokenizer.decode(words[:2]).strip()
