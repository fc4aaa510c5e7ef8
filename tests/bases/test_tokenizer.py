"""Tokenizers that are read as AutoTokenizer reads them. Both are made here, of a few words."""

import json
import subprocess
import sys

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from biasline.bases.create import create_pin
from biasline.bases.limits import limits_of
from biasline.bases.pin import load_tokenizer, read_pin, tokenizer_sha256
from biasline.bases.tokenizer import open_tokenizer, overrides, stock_class

TEXTS = ["Hello World, hello world", "Ärger im Café, arger im cafe", "我们 在 北京", "one two three"]


def byte_level(folder, config, model):
    """GPT-2's kind of tokenizer, whose files say of themselves what `config` says."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator(TEXTS, trainer)
    return _written(folder, made, config, {"model_type": "gpt2", "vocab_size": made.get_vocab_size(), **model})


def word_pieces(folder, config):
    """BERT's kind, lower-cased by tokenizer.json."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=special, show_progress=False)
    )
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", made.token_to_id("[CLS]")), ("[SEP]", made.token_to_id("[SEP]"))],
    )
    named = {"tokenizer_class": "BertTokenizer", "unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
    named |= {"sep_token": "[SEP]", "mask_token": "[MASK]"}
    return _written(folder, made, named | config, {"model_type": "bert", "vocab_size": made.get_vocab_size()})


def _written(folder, tokenizer, config, model):
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / "config.json").write_text(json.dumps(model))
    return folder


def stock(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder))


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"do_lower_case": False}, "Hello World"),
        ({"strip_accents": False}, "Ärger im Café"),
        ({"tokenize_chinese_chars": False}, "我们在北京"),
    ],
)
def test_word_pieces_are_read_as_the_files_say(config, text, tmp_path):
    folder = word_pieces(tmp_path, config)
    plain = open_tokenizer(folder)
    name, (note,) = stock_class(folder, limits_of(folder))
    assert name == "BertTokenizer" and "note: read by Transformers' BertTokenizer" in note
    found = open_tokenizer(folder, name)(text)["input_ids"]
    assert found == stock(folder)(text)["input_ids"] != plain(text)["input_ids"]
    (key,) = config
    assert overrides(folder) == [f"{key}: false"]


def test_a_space_in_front_is_added_as_the_files_say(tmp_path):
    folder = byte_level(tmp_path, {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}, {})
    name, _ = stock_class(folder, limits_of(folder))
    found = open_tokenizer(folder, name)("world")["input_ids"]
    assert found == stock(folder)("world")["input_ids"] == open_tokenizer(folder)(" world")["input_ids"]
    assert overrides(folder) == ["add_prefix_space: true"]


def test_a_llama_s_spaces_are_read_as_its_class_reads_them(shared, tmp_path):
    for name in ("tokenizer.json", "config.json"):
        (tmp_path / name).write_text((shared / "models" / "stories260k" / name).read_text())
    named = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(named))
    name, _ = stock_class(tmp_path, limits_of(tmp_path))
    assert name == "LlamaTokenizer"
    found = open_tokenizer(tmp_path, name)("  a word")["input_ids"]
    assert found == stock(tmp_path)("  a word")["input_ids"] != open_tokenizer(tmp_path)("  a word")["input_ids"]


def test_what_agrees_names_no_class_and_warns_of_nothing(tmp_path, root):
    agreeing = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}
    for folder in (word_pieces(tmp_path, agreeing), root / "data" / "bases" / "tiny-bloom"):
        assert stock_class(folder, limits_of(folder)) == ("", [])
        assert overrides(folder) == []


def test_the_shared_tokenizers_name_no_class(shared):
    for folder in (shared / "tokenizers" / "bert-base-uncased", shared / "models" / "stories260k"):
        assert stock_class(folder, limits_of(folder)) == ("", [])


def test_a_class_that_adds_tokens_beyond_the_embedding_is_not_taken(tmp_path):
    """GPT-2's class adds its end of text to a vocabulary that lacks it."""
    folder = byte_level(tmp_path, {"eos_token": "!"}, {})
    raw = json.loads((folder / "tokenizer.json").read_text())
    raw["added_tokens"] = []
    raw["model"]["vocab"] = {name.replace("<|endoftext|>", "<end>"): i for name, i in raw["model"]["vocab"].items()}
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    name, (warning,) = stock_class(folder, limits_of(folder))
    assert name == "" and "warning: Transformers' GPT2Tokenizer reads" in warning


@pytest.mark.parametrize(
    ("model", "generation"),
    [
        ({"eos_token_id": 0}, None),
        ({"eos_token_id": [0, 5]}, None),
        ({"eos_token_id": None}, {"eos_token_id": 0}),
        ({"text_config": {"eos_token_id": 0}, "eos_token_id": 7}, None),
    ],
)
def test_an_end_that_only_the_base_s_config_names_is_the_tokenizer_s(model, generation, tmp_path):
    folder = byte_level(tmp_path, {"model_max_length": 1024}, model)
    if generation:
        (folder / "generation_config.json").write_text(json.dumps(generation))
    assert open_tokenizer(folder).eos_token == "<|endoftext|>"


def test_the_tokenizer_s_own_end_comes_first_and_an_unknown_one_is_none(tmp_path):
    folder = byte_level(tmp_path, {"eos_token": "!"}, {"eos_token_id": 0})
    assert open_tokenizer(folder).eos_token == "!"
    assert open_tokenizer(byte_level(tmp_path, {}, {"eos_token_id": 100_000})).eos_token is None


def test_an_end_that_is_a_plain_word_of_the_vocabulary_is_read_as_one_token(tmp_path):
    folder = byte_level(tmp_path, {}, {})
    words = open_tokenizer(folder).get_vocab()
    number = words["Ġworld"]
    (folder / "config.json").write_text(json.dumps({"eos_token_id": number, "vocab_size": len(words)}))
    found = open_tokenizer(folder)
    assert (found.eos_token_id, len(found)) == (number, len(words))


@pytest.mark.slow
def test_gpt2_as_the_hub_has_it_ends_its_texts_as_autotokenizer_does(shared, tmp_path):
    (tmp_path / "tokenizer.json").write_text((shared / "tokenizers" / "gpt2" / "tokenizer.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": 1024}')
    config = {"model_type": "gpt2", "vocab_size": 50257, "eos_token_id": 50256}
    (tmp_path / "config.json").write_text(json.dumps(config))
    name, _ = stock_class(tmp_path, limits_of(tmp_path))
    for found in (open_tokenizer(tmp_path), open_tokenizer(tmp_path, name)):
        assert found.eos_token_id == stock(tmp_path).eos_token_id == 50256


def test_no_torch_for_any_of_it(tmp_path):
    folder = byte_level(tmp_path, {"model_max_length": 1024}, {"eos_token_id": 0})
    code = f"""
import sys
from pathlib import Path
from biasline.bases.tokenizer import open_tokenizer, overrides
for name in ("", "GPT2Tokenizer"):
    assert open_tokenizer(Path({str(folder)!r}), name).eos_token == "<|endoftext|>"
overrides(Path({str(folder)!r}))
sys.exit("torch" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture
def gpt2(tmp_path):
    """A random GPT-2 with a space put in front of every text, and where its pin will be."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path / "tiny"
    sizes = {"vocab_size": 300, "n_positions": 32, "n_embd": 16, "n_layer": 1, "n_head": 2}
    GPT2LMHeadModel(GPT2Config(**sizes, eos_token_id=0, bos_token_id=0)).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    byte_level(folder, {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True}, config)
    return folder


def test_the_class_stands_in_the_pin_and_in_the_tokenizer_s_hash_not_in_the_base_s(gpt2, capsys):
    pin = create_pin(str(gpt2), gpt2.with_suffix(".json"))
    assert "'Hello World, HELLO'" in capsys.readouterr().err
    gpt2.with_suffix(".json").write_text(pin.dumps())
    assert read_pin(gpt2.with_suffix(".json")) == pin
    assert load_tokenizer(pin, gpt2)("world")["input_ids"] == stock(gpt2)("world")["input_ids"]
    assert capsys.readouterr().err == ""
    older = pin.model_copy(update={"tokenizer_class": ""})
    assert older.digest == pin.digest
    assert tokenizer_sha256(pin.files) != pin.tokenizer_sha256


def test_a_pin_of_before_goes_on_as_it_was_and_is_told(gpt2, capsys):
    pin = create_pin(str(gpt2), gpt2.with_suffix(".json")).model_copy(update={"tokenizer_class": ""})
    assert '"tokenizer_class"' not in pin.dumps()
    capsys.readouterr()
    assert load_tokenizer(pin, gpt2)("world")["input_ids"] != stock(gpt2)("world")["input_ids"]
    assert "tokenizer_config.json's add_prefix_space: true is not heeded" in capsys.readouterr().err


def test_tokens_that_the_base_has_no_embedding_for_are_named(gpt2, capsys):
    tokenizer = Tokenizer.from_file(str(gpt2 / "tokenizer.json"))
    tokenizer.add_special_tokens([AddedToken("<|im_start|>"), AddedToken("<|im_end|>")])
    tokenizer.save(str(gpt2 / "tokenizer.json"))
    config = json.loads((gpt2 / "config.json").read_text())
    assert tokenizer.get_vocab_size() == config["vocab_size"] + 2
    create_pin(str(gpt2), gpt2.with_suffix(".json"))
    told = capsys.readouterr().err
    assert (
        f"2 tokens that the base's {config['vocab_size']} embeddings do not reach ('<|im_start|>', '<|im_end|>')"
        in told
    )
