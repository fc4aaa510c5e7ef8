"""Bases in llama.cpp's format: the same model, nothing lost on the way, and pinned as others are."""

import json
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM
from typer.testing import CliRunner

from biasline.bases.create import create_pin
from biasline.bases.gguf import cache_folder, unpacked
from biasline.bases.load import load_causal_lm
from biasline.bases.pin import Pin, file_sha256, load_tokenizer, locate, read_pin, verified_folder, verify
from biasline.cli import app
from biasline.errors import BiaslineError
from biasline.params import Load
from tests.bases.ggufs import TEMPLATE, small, small_llama, write_gguf


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("BIASLINE_BASES", raising=False)
    return cache_folder()


@pytest.fixture
def file(tmp_path):
    return write_gguf(tmp_path / "small.gguf", small_llama())


def logits(model):
    with torch.no_grad():
        return model(torch.arange(3, 40)[None]).logits


def pinned(file):
    path = file.with_suffix(".json")
    path.write_text(create_pin(str(file), path).dumps())
    return path


def test_it_is_the_model_that_the_file_was_written_of(file, capsys):
    path = pinned(file)
    assert "small.gguf: unpacked once, to" in capsys.readouterr().err
    pin, folder = verified_folder(path)
    model = load_causal_lm(pin, folder, Load())
    assert torch.equal(logits(model), logits(small_llama()))
    tokenizer = load_tokenizer(pin, folder)
    ids = tokenizer("the cat's Ärger\n 12")["input_ids"]
    assert ids[0] == 260 and tokenizer.decode(ids) == "the cat's Ärger\n 12"
    assert tokenizer.eos_token == "<|end|>" and tokenizer.chat_template == TEMPLATE
    assert pin.inventory["biases"] == 0 and pin.inventory["model_type"] == "llama"
    assert capsys.readouterr().err == ""  # it is not unpacked again


def test_a_model_of_another_architecture_with_biases_of_its_own(tmp_path):
    whole = small(Qwen2ForCausalLM, Qwen2Config)
    file = write_gguf(tmp_path / "small.gguf", whole, architecture="qwen2")
    pin, folder = verified_folder(pinned(file))
    assert torch.equal(logits(load_causal_lm(pin, folder, Load())), logits(whole))
    assert pin.inventory["biases"] == 2 * (64 + 32 + 32)


def test_quantized_weights_are_unpacked_to_what_they_stand_for(tmp_path):
    from gguf import GGUFReader
    from gguf.quants import dequantize

    file = write_gguf(tmp_path / "small.gguf", small_llama(), quantized=True)
    pin, folder = verified_folder(pinned(file))
    model = load_causal_lm(pin, folder, Load())
    down = next(one for one in GGUFReader(file).tensors if one.name == "blk.1.ffn_down.weight")
    own = torch.from_numpy(dequantize(down.data, down.tensor_type))
    assert torch.equal(model.get_parameter("model.layers.1.mlp.down_proj.weight"), own)
    assert not torch.equal(own, small_llama().get_parameter("model.layers.1.mlp.down_proj.weight"))


def test_stock_transformers_reads_what_was_unpacked_and_nothing_tells_where_it_was(file):
    folder = unpacked(file, file_sha256(file))
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(folder)), logits(small_llama()))
    config = json.loads((folder / "config.json").read_text())
    assert not {"quantization_config", "_name_or_path", "transformers_version"} & config.keys()


def test_the_pin_says_which_file_it_was_and_has_the_same_digest_wherever_that_lies(file, tmp_path):
    one = read_pin(pinned(file))
    (tmp_path / "elsewhere").mkdir()
    other = create_pin(str(shutil.copy(file, tmp_path / "elsewhere")), tmp_path / "x.json")
    assert one.digest == other.digest and one.source.gguf == "small.gguf"
    assert one.source.gguf_sha256 == file_sha256(file) and other.source.path == "elsewhere"
    # Another kind of base's pin says nothing of it.
    plain = Pin.model_validate({**one.model_dump(), "source": {"kind": "folder", "path": "x"}})
    assert "gguf" not in plain.dumps()


def test_what_was_unpacked_is_enough_and_is_made_again_where_it_is_gone(file, cache, monkeypatch, tmp_path):
    path = pinned(file)
    file.rename(tmp_path / "gone.gguf")
    pin, folder = verified_folder(path)
    shutil.rmtree(cache)
    with pytest.raises(BiaslineError, match=r"base small: small.gguf not found; looked in .*set BIASLINE_BASES"):
        locate(pin, path)
    (tmp_path / "bases/small").mkdir(parents=True)
    shutil.copy(tmp_path / "gone.gguf", tmp_path / "bases/small/small.gguf")
    monkeypatch.setenv("BIASLINE_BASES", str(tmp_path / "bases"))
    assert verified_folder(path)[1] == folder


def test_another_file_in_its_place_is_refused(file, cache):
    path = pinned(file)
    shutil.rmtree(cache)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(BiaslineError, match="small.gguf has changed since it was pinned"):
        verified_folder(path)


def test_a_changed_unpacked_file_is_refused(file):
    pin, folder = verified_folder(pinned(file))
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + " ")
    with pytest.raises(BiaslineError, match="tokenizer.json has changed"):
        verify(pin, folder)


def test_tensors_that_the_model_has_no_place_for_are_named(tmp_path):
    model = small_llama(attention_bias=True)
    file = write_gguf(tmp_path / "biased.gguf", model)
    with pytest.raises(BiaslineError) as told:
        create_pin(str(file), tmp_path / "x.json")
    assert (
        "LlamaForCausalLM has no place for blk.0.attn_q.bias, blk.0.attn_k.bias, blk.0.attn_v.bias and 5 more"
        in str(told.value)
    )
    file = write_gguf(tmp_path / "more.gguf", small_llama(), further={"rope_freqs.weight": np.ones(8, np.float32)})
    with pytest.raises(BiaslineError, match=r"has no place for rope_freqs.weight, so it would not"):
        create_pin(str(file), tmp_path / "x.json")


def test_a_file_of_the_same_name_in_the_current_folder_and_what_lies_beside_it_are_not_read(
    file, tmp_path, monkeypatch
):
    torch.manual_seed(1)
    (tmp_path / "here").mkdir()
    other = small_llama()
    with torch.no_grad():
        for part in other.parameters():
            part.mul_(2)
    write_gguf(tmp_path / "here/small.gguf", other)
    alone = create_pin(str(file), tmp_path / "x.json")
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "tokenizer_config.json").write_text('{"eos_token": "<|start|>"}')
    (tmp_path / "adapter_config.json").write_text("{}")
    assert create_pin(str(file), tmp_path / "x.json").digest == alone.digest
    assert create_pin("small.gguf", tmp_path / "x.json").digest != alone.digest


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("llama.rope.scaling.type", "linear", "which Transformers does not read"),
        ("llama.rope.scaling.factor", 4.0, "which Transformers does not read"),
        ("llama.attention.sliding_window", 64, "and nothing as Transformers builds the model"),
        ("llama.rope.dimension_count", 16, None),
        ("llama.logit_scale", 0.5, "which Transformers does not read"),
        ("llama.rope.scaling.type", "none", None),
        ("tokenizer.ggml.pre", "starcoder", "its texts are split as 'starcoder'"),
        ("tokenizer.ggml.pre", "qwen2", None),
    ],
)
def test_what_the_model_or_its_tokens_would_be_without_is_refused(tmp_path, key, value, told):
    file = write_gguf(tmp_path / "more.gguf", small_llama(), says={key: value})
    if told is None:
        create_pin(str(file), tmp_path / "x.json")
        return
    with pytest.raises(BiaslineError, match=rf"more.gguf: .*{told}"):
        create_pin(str(file), tmp_path / "x.json")


def test_pinned_anew_a_damaged_cache_is_made_again(file):
    pin, folder = verified_folder(pinned(file))
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(content))
    with pytest.raises(BiaslineError, match=r"model.safetensors has changed .* delete .*: it is unpacked again"):
        verified_folder(file.with_suffix(".json"))
    assert create_pin(str(file), file.with_suffix(".json")).digest == pin.digest
    verified_folder(file.with_suffix(".json"))


def test_a_config_beside_the_file_is_not_taken_for_what_was_unpacked(file, cache, tmp_path, monkeypatch):
    path = pinned(file)
    shutil.rmtree(cache)
    (tmp_path / "bases/small").mkdir(parents=True)
    file.rename(tmp_path / "bases/small/small.gguf")
    (tmp_path / "bases/small/config.json").write_text("{}")
    monkeypatch.setenv("BIASLINE_BASES", str(tmp_path / "bases"))
    assert verified_folder(path)[1].parent == cache


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        ("magic", lambda whole: b"GGML" + whole[4:], "no GGUF file"),
        ("empty", lambda whole: b"", "no GGUF file"),
        ("half", lambda whole: whole[: len(whole) // 2], "damaged, or not whole"),
        ("header", lambda whole: whole[:40], "damaged, or not whole"),
    ],
)
def test_a_file_that_is_not_whole_is_named(file, cache, name, damage, told):
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(BiaslineError, match=rf"small.gguf: {told}"):
        create_pin(str(file), file.with_suffix(".json"))
    # Nothing that is half made is taken for a base later.
    assert not any((one / "config.json").is_file() for one in cache.iterdir() if not one.name.endswith(".draft"))


def test_what_transformers_does_not_read_is_told(tmp_path):
    for name, more, told in (
        ("odd", {"architecture": "rwkv6"}, "does not read it"),
        ("mute", {"tokenizer": False}, "no tokenizer comes of it"),
        ("part", {"says": {"split.count": 2, "split.no": 0}}, "one of 2 parts of a split file"),
    ):
        file = write_gguf(tmp_path / f"{name}.gguf", small_llama(), **more)
        with pytest.raises(BiaslineError, match=rf"{name}.gguf: .*{told}"):
            create_pin(str(file), tmp_path / "x.json")


def test_weights_that_are_missing_are_named(tmp_path):
    model = small_llama()
    del model.model.layers[1].mlp.down_proj
    file = write_gguf(tmp_path / "less.gguf", model)
    with pytest.raises(BiaslineError, match=r"no weights for model.layers.1.mlp.down_proj.weight"):
        create_pin(str(file), tmp_path / "x.json")


def test_it_is_pinned_and_looked_into_by_command(file, monkeypatch):
    monkeypatch.chdir(file.parent)
    told = CliRunner().invoke(app, ["pin", "small.gguf"])
    assert told.exit_code == 0 and "data/bases/small.json: llama, " in told.stdout
    assert read_pin(file.parent / "data/bases/small.json").source.path == "../.."
    found = CliRunner().invoke(app, ["inspect", "small.gguf"])
    assert found.exit_code == 0 and "llama" in found.stdout
    told = CliRunner().invoke(app, ["pin", "none.gguf"])
    assert told.exit_code == 1 and "none.gguf: no such file" in str(told.exception)
