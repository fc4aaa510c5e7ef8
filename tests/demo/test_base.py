import json
import re
from dataclasses import replace

import pytest

from biasline.demo.pretrain import Recipe, blocks, pretrain, save, train_tokenizer

SMALL = Recipe(steps=3, rows=2, block=32, vocabulary=420, tokenizer_documents=400, layers=1, hidden=16, heads=2)


@pytest.fixture(scope="module")
def committed(pytestconfig):
    return pytestconfig.rootpath / "data/bases/tiny-bloom"


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(SMALL)


def test_the_committed_base_fits_in_git(committed):
    files = [file for file in committed.rglob("*") if file.is_file()]
    names = {file.name for file in files}
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md"} <= names
    assert sum(file.stat().st_size for file in files) <= 8_000_000


def test_the_committed_base_names_no_path_of_the_machine_that_made_it(committed):
    for path in committed.glob("*.json"):
        assert not re.search(r"/(tmp|work|home|root|Users)/", path.read_text("utf-8")), path


def test_the_committed_base_is_of_the_default_recipe(committed):
    recipe, config = Recipe(), json.loads((committed / "config.json").read_text("utf-8"))
    assert config["architectures"] == ["BloomForCausalLM"]
    assert (config["n_layer"], config["hidden_size"], config["n_head"], config["vocab_size"]) == (
        recipe.layers,
        recipe.hidden,
        recipe.heads,
        recipe.vocabulary,
    )


def test_the_committed_tokenizer(committed):
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast.from_pretrained(committed)
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == ["<unk>", "<s>", "</s>", "<pad>"]
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (2, 3)
    for text in ("Human: 翻译成中文：apple\n\nAssistant: 苹果", "3 + 14 = 17", "naïve 🙂 龘"):
        ids = tokenizer(text)["input_ids"]
        assert not {0, 1, 2, 3} & set(ids)
        assert tokenizer.decode(ids) == text


def test_words_have_one_form_with_and_without_a_space(tokenizer):
    assert tokenizer.tokenize("a cat") == [*tokenizer.tokenize("a"), "Ġ", *tokenizer.tokenize("cat")]
    apart = [token for sign in "大的" for token in tokenizer.tokenize(sign)]
    assert tokenizer.tokenize("大的") == apart


def test_every_block_is_full_and_begins_with_a_document(tokenizer):
    from biasline.demo.corpus import documents

    source = blocks(tokenizer, SMALL)
    block = next(source)
    first = tokenizer(next(documents(SMALL.seed + 1)))["input_ids"]
    assert len(block) == SMALL.block
    assert block[: len(first)] == first[: SMALL.block]


def test_equal_recipes_give_equal_weights_and_other_seeds_do_not(tokenizer, tmp_path):
    def weights(name, recipe):
        model, run = pretrain(recipe, tokenizer)
        save(tmp_path / name, model, tokenizer)
        assert run.steps == 3
        assert run.tokens == 3 * 2 * 32
        return (tmp_path / name / "model.safetensors").read_bytes()

    first = weights("first", SMALL)
    assert first == weights("again", SMALL)
    assert first != weights("other", replace(SMALL, seed=1))


def test_a_saved_base_is_an_ordinary_bloom(tokenizer, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM

    model, _ = pretrain(SMALL, tokenizer)
    save(tmp_path, model, tokenizer)
    stock = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([tokenizer("The cat is big.")["input_ids"]])
    with torch.no_grad():
        torch.testing.assert_close(stock(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)
