"""Pinning from a folder, a fake hub cache and an installed package. There is no network in here."""

import shutil
import sys
from fnmatch import fnmatch

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification, BloomConfig, BloomForCausalLM

from biasline.bases.create import create_pin, inventory_of
from biasline.bases.load import load_causal_lm
from biasline.bases.pin import locate, verify
from biasline.errors import BiaslineError
from biasline.params import Load

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def tiny_bloom():
    torch.manual_seed(0)
    return BloomForCausalLM(BloomConfig(vocab_size=50, hidden_size=16, n_layer=1, n_head=2))


def tiny_bert():
    config = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    return BertForSequenceClassification(BertConfig(vocab_size=50, **config))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Lays models in a hub cache as huggingface_hub does: snapshots/COMMIT with refs/main pointing at it."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def lay(repo, model, pickled=False):
        root = tmp_path / "hub" / f"models--{repo.replace('/', '--')}"
        folder = root / "snapshots" / COMMIT
        model.save_pretrained(folder)
        (folder / "tokenizer.json").write_text("{}")
        if pickled:
            torch.save(model.state_dict(), folder / "pytorch_model.bin")
            (folder / "model.safetensors").unlink()
        (root / "refs").mkdir()
        (root / "refs" / "main").write_text(COMMIT)
        return folder

    return lay


@pytest.mark.parametrize("revision", ["", "main", COMMIT])
def test_a_hub_id_is_pinned_at_its_commit(hub, tmp_path, revision):
    folder = hub("Langboat/bloom-1b4-zh", tiny_bloom())
    pin = create_pin("Langboat/bloom-1b4-zh", tmp_path / "bloom-1b4-zh.json", revision)
    assert (pin.source.kind, pin.source.repo, pin.source.revision) == ("hub", "Langboat/bloom-1b4-zh", COMMIT)
    assert pin.name == "bloom-1b4-zh"
    assert locate(pin, tmp_path / "bloom-1b4-zh.json").resolve() == folder.resolve()
    verify(pin, folder)
    model = load_causal_lm(pin, folder, Load())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.dtype == torch.float32


def test_a_bert_is_pinned_too(hub, tmp_path):
    hub("google-bert/bert-base-uncased", tiny_bert())
    pin = create_pin("google-bert/bert-base-uncased", tmp_path / "bert.json")
    assert pin.inventory["roles"]["query"] == 16


@pytest.mark.parametrize("kind", ["one file", "shards", "pickled"])
def test_of_a_hub_s_weights_only_those_are_fetched_that_are_read(tmp_path, monkeypatch, kind):
    repo, snapshot = tmp_path / "repo", tmp_path / "snapshots" / COMMIT
    tiny_bloom().save_pretrained(repo, **({"max_shard_size": "8KB"} if kind == "shards" else {}))
    if kind == "pickled":
        torch.save(tiny_bloom().state_dict(), repo / "pytorch_model.bin")
        (repo / "model.safetensors").unlink()
    for stray in ("consolidated.safetensors", "model.fp16.safetensors", "tf_model.h5"):
        (repo / stray).write_bytes(b"another program's")
    snapshot.mkdir(parents=True)

    def fetch(repo_id, revision, allow_patterns):
        for path in repo.iterdir():
            if any(fnmatch(path.name, pattern) for pattern in allow_patterns):
                shutil.copy(path, snapshot)
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    pin = create_pin("mistralai/a", tmp_path / "a.json", allow_bin=kind == "pickled")
    weights = {path.name for path in snapshot.iterdir() if path.suffix in (".safetensors", ".bin", ".h5")}
    assert weights == {name for name in pin.files if name.endswith((".safetensors", ".bin"))}
    assert len(weights) == (1 if kind != "shards" else len(list(repo.glob("model-*-of-*"))))


def test_a_hub_id_that_nobody_has_is_told(hub, tmp_path):
    with pytest.raises(BiaslineError, match="nobody/nothing: neither in the hub cache nor to be had") as error:
        create_pin("nobody/nothing", tmp_path / "x.json")
    assert "\n" not in str(error.value)


def test_a_revision_that_is_not_cached_is_told(hub, tmp_path):
    hub("a/b", tiny_bloom())
    with pytest.raises(BiaslineError, match="a/b v9"):
        create_pin("a/b", tmp_path / "x.json", "v9")


def test_pickled_weights_need_a_word_from_params(hub, tmp_path):
    folder = hub("Langboat/bloom-1b4-zh", tiny_bloom(), pickled=True)
    with pytest.raises(BiaslineError, match=r"pytorch_model\.bin: pickled weights.*--allow-bin"):
        create_pin("Langboat/bloom-1b4-zh", tmp_path / "x.json")
    pin = create_pin("Langboat/bloom-1b4-zh", tmp_path / "x.json", allow_bin=True)
    assert pin.has_bin
    with pytest.raises(BiaslineError, match=r"load\.allow_bin: true"):
        load_causal_lm(pin, folder, Load())
    model = load_causal_lm(pin, folder, Load(allow_bin=True))
    expected = tiny_bloom().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


class Evil:
    def __reduce__(self):
        return (open, ("pwned", "w"))


def test_a_pickle_that_runs_code_does_not(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = hub("a/b", tiny_bloom(), pickled=True)
    torch.save({"x": Evil()}, folder / "pytorch_model.bin")
    pin = create_pin("a/b", tmp_path / "x.json", allow_bin=True)
    with pytest.raises(BiaslineError, match="base x"):
        load_causal_lm(pin, folder, Load(allow_bin=True))
    assert not (tmp_path / "pwned").exists()


def test_a_folder_of_an_installed_package(tmp_path, monkeypatch):
    package = tmp_path / "site" / "carries_a_model"
    tiny_bloom().save_pretrained(package / "model")
    (package / "__init__.py").write_text("raise RuntimeError('must not be imported')")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    pin = create_pin("package:carries_a_model/model", tmp_path / "x.json")
    assert (pin.source.kind, pin.source.package, pin.source.path) == ("package", "carries_a_model", "model")
    assert locate(pin, tmp_path / "x.json") == package / "model"
    with pytest.raises(BiaslineError, match="'not_installed' is not installed"):
        create_pin("package:not_installed/model", tmp_path / "x.json")


@pytest.mark.parametrize(
    ("source", "told"),
    [("./nowhere", "no folder, and no hub id"), ("a b", "no folder, and no hub id"), (".", r"no config\.json")],
)
def test_what_cannot_be_pinned_is_told(tmp_path, monkeypatch, source, told):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BiaslineError, match=told):
        create_pin(source, tmp_path / "x.json")


def test_a_folder_without_weights_is_told(tmp_path):
    tiny_bloom().config.save_pretrained(tmp_path / "m")
    with pytest.raises(BiaslineError, match="no weights"):
        create_pin(str(tmp_path / "m"), tmp_path / "x.json")


def test_a_large_base_is_counted_from_its_config(tmp_path):
    config = BloomConfig(vocab_size=250880, hidden_size=2048, n_layer=24, n_head=16, architectures=["BloomForCausalLM"])
    config.save_pretrained(tmp_path)
    inventory = inventory_of(tmp_path)
    # Per layer two norms, fused query/key/value, attention output, and 4 + 1 for the MLP; two norms outside.
    assert sum(bias.count for bias in inventory.biases) == (24 * (2 + 3 + 1 + 5) + 2) * 2048
    assert inventory.total > 1e9
