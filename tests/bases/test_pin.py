import json
import shutil

import pytest

from biasline.bases.create import create_pin
from biasline.bases.pin import (
    Pin,
    file_sha256,
    load_tokenizer,
    locate,
    read_pin,
    tokenizer_sha256,
    verified_folder,
    verify,
)
from biasline.errors import BiaslineError


@pytest.fixture
def pinned(tmp_path, bloom):
    """A random BLOOM with a stand-in tokenizer file, and its pin beside it."""
    folder = tmp_path / "bases" / "tiny"
    bloom.save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    path = tmp_path / "bases" / "tiny.json"
    path.write_text(create_pin(str(folder), path).dumps())
    return path


def test_a_pin_holds_hashes_and_counts_and_no_path_of_this_machine(pinned, tmp_path):
    pin = read_pin(pinned)
    assert set(pin.files) == {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}
    assert pin.inventory["biases"] == sum(pin.inventory["roles"].values()) == 768
    assert pin.source.path == "tiny"
    assert str(tmp_path) not in pinned.read_text()


def test_pinning_twice_gives_the_same_bytes(pinned):
    assert create_pin(str(pinned.with_suffix("")), pinned).dumps() == pinned.read_text()


def test_pin_and_base_move_together(pinned, tmp_path):
    shutil.move(pinned.parent, tmp_path / "elsewhere")
    pin, folder = verified_folder(tmp_path / "elsewhere" / "tiny.json")
    assert folder == tmp_path / "elsewhere" / "tiny"
    assert pin.name == "tiny"


def test_biasline_bases_comes_first(pinned, tmp_path, monkeypatch):
    other = tmp_path / "mirror" / "tiny"
    shutil.copytree(pinned.with_suffix(""), other)
    monkeypatch.setenv("BIASLINE_BASES", str(tmp_path / "mirror"))
    assert locate(read_pin(pinned), pinned) == other


def test_a_base_that_is_not_there_names_the_places(pinned, tmp_path, monkeypatch):
    shutil.rmtree(pinned.with_suffix(""))
    monkeypatch.setenv("BIASLINE_BASES", str(tmp_path / "mirror"))
    with pytest.raises(BiaslineError, match=r"base tiny: not found; looked in .*mirror.*BIASLINE_BASES"):
        locate(read_pin(pinned), pinned)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_changed_file_is_named(pinned, name):
    path = pinned.with_suffix("") / name
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    with pytest.raises(BiaslineError, match=rf"{name} has changed since it was pinned.*biasline pin"):
        verified_folder(pinned)


def test_a_missing_file_is_named(pinned):
    (pinned.with_suffix("") / "model.safetensors").unlink()
    with pytest.raises(BiaslineError, match=r"model\.safetensors is missing"):
        verify(read_pin(pinned), pinned.with_suffix(""))


def test_a_file_that_came_later_is_told(pinned):
    (pinned.with_suffix("") / "special_tokens_map.json").write_text("{}")
    with pytest.raises(BiaslineError, match=r"special_tokens_map\.json was not there when the base was pinned"):
        verified_folder(pinned)


@pytest.mark.parametrize("sharded", [False, True])
def test_of_several_weights_those_are_pinned_that_transformers_reads(tmp_path, bloom, sharded):
    """As beside Mistral's own `consolidated.safetensors`, or an adapter."""
    folder = tmp_path / "m"
    bloom.save_pretrained(folder, **({"max_shard_size": "30KB"} if sharded else {}))
    for stray in ("consolidated.safetensors", "adapter_model.safetensors", "model.fp16.safetensors"):
        (folder / stray).write_bytes(b"another program's")
    pin = create_pin(str(folder), tmp_path / "m.json")
    found = [name for name in pin.files if name.endswith(".safetensors")]
    expected = (
        sorted(path.name for path in folder.glob("model-*-of-*.safetensors")) if sharded else ["model.safetensors"]
    )
    assert found == expected and len(found) == 1 + 4 * sharded
    verify(pin, folder)


def test_an_older_pin_with_stray_weights_is_still_verified(pinned):
    stray = pinned.with_suffix("") / "consolidated.safetensors"
    stray.write_bytes(b"once pinned too")
    pin = read_pin(pinned)
    older = pin.model_copy(update={"files": pin.files | {stray.name: file_sha256(stray)}})
    verify(older, pinned.with_suffix(""))
    stray.write_bytes(b"changed")
    with pytest.raises(BiaslineError, match=r"consolidated\.safetensors has changed"):
        verify(older, pinned.with_suffix(""))


def test_stray_weights_alone_are_none(pinned):
    (pinned.with_suffix("") / "model.safetensors").rename(pinned.with_suffix("") / "consolidated.safetensors")
    with pytest.raises(BiaslineError, match=r"no weights .*Transformers does not read consolidated\.safetensors"):
        create_pin(str(pinned.with_suffix("")), pinned)


def test_a_shard_that_is_not_there_is_named(tmp_path, bloom):
    bloom.save_pretrained(tmp_path / "m", max_shard_size="30KB")
    (tmp_path / "m" / "model-00002-of-00005.safetensors").unlink()
    with pytest.raises(BiaslineError, match=r"model-00002-of-00005\.safetensors is missing, which model\.safetensors"):
        create_pin(str(tmp_path / "m"), tmp_path / "m.json")


def test_weights_that_came_later_and_would_be_read_instead_are_told(tmp_path, bloom):
    bloom.save_pretrained(tmp_path / "m", max_shard_size="30KB")
    pin = create_pin(str(tmp_path / "m"), tmp_path / "m.json")
    bloom.save_pretrained(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path / "m")
    with pytest.raises(BiaslineError, match=r"m/model\.safetensors was not there when the base was pinned"):
        verify(pin, tmp_path / "m")


def test_the_digest_is_of_content_not_of_place(pinned):
    pin = read_pin(pinned)
    moved = Pin.model_validate(pin.model_dump() | {"name": "x", "source": {"kind": "hub", "repo": "a/b"}})
    assert moved.digest == pin.digest
    assert pin.model_copy(update={"files": pin.files | {"config.json": "0"}}).digest != pin.digest


def test_the_tokenizer_hash_sees_tokenizer_files_alone():
    files = {"tokenizer.json": "1", "model.safetensors": "2"}
    assert tokenizer_sha256(files) == tokenizer_sha256(files | {"model.safetensors": "3"})
    assert tokenizer_sha256(files) != tokenizer_sha256(files | {"tokenizer.json": "3"})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, r"no such pin.*biasline pin"),
        ("not json", "no pin"),
        ("{}", "no pin: name"),
        (json.dumps({"name": "a"}), "no pin: source"),
    ],
)
def test_what_is_no_pin_is_told(tmp_path, text, told):
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BiaslineError, match=told):
        read_pin(path)


def test_a_base_without_a_fast_tokenizer_is_told(pinned):
    folder = pinned.with_suffix("")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(BiaslineError, match="only fast tokenizers"):
        load_tokenizer(read_pin(pinned), folder)


def test_the_demo_base_is_as_pinned_and_fits_in_git(root):
    pin, folder = verified_folder(root / "data" / "bases" / "tiny-bloom.json")
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 8_000_000
    assert pin.inventory["biases"] / pin.inventory["parameters"] < 0.01
