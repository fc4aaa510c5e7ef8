"""Adapters: PEFT reads the biases themselves; other programs get the nearest LoRA, or are refused it."""

import json

import pytest
import torch
from peft import PeftModel

from biasline.errors import BiaslineError
from biasline.serving import lora_export as room
from biasline.serving.lora_export import export_lora
from tests.serving.packages import fleet, moved, on_llama, package

ROWS = [{"instruction": f"Say {word} to them {word}"} for word in ("one", "two", "three", "four", "five", "six")]


def logits(model):
    with torch.no_grad():
        return model(torch.arange(3, 40)[None]).logits


def test_peft_loads_the_biases_as_they_are(llama_pin, tmp_path):
    made, out = on_llama(llama_pin), tmp_path / "out"
    done = export_lora(made, out, ROWS, target="", fingerprint="f" * 16)
    assert done.nearest is None and done.compared == len(ROWS)
    assert {path.name for path in out.iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "biasline.json",
    }
    plain = made.load(made.base())
    base, wanted = logits(plain), logits(made.predictor().model)
    found = logits(PeftModel.from_pretrained(plain, str(out)).eval())
    assert torch.allclose(found, wanted, atol=1e-5) and not torch.allclose(found, base, atol=0.1)
    assert json.loads((out / "biasline.json").read_text()) == {"fingerprint": "f" * 16, "base": made.pin.digest}


def test_fused_biases_of_a_base_that_has_them_are_added_to(workspace, tmp_path):
    made = package(workspace, 2)
    export_lora(made, tmp_path / "out", ROWS, target="transformers", fingerprint="f" * 16)


def test_the_nearest_lora_is_told_by_its_error_and_its_answers(llama_pin, tmp_path, monkeypatch):
    made = on_llama(llama_pin, size=0.02)
    for name, at_once in (("one", 2**20), ("two", 1)):  # numbers of the regressions of one pass over the rows
        monkeypatch.setattr(room, "_AT_ONCE", at_once)
        done = export_lora(made, tmp_path / name, ROWS, target="vllm", fingerprint="f" * 16)
    assert done.nearest.error.keys() == {"query", "key", "value", "attention_output", "mlp_in", "mlp_out"}
    assert all(0 < error < 1 for error in done.nearest.error.values()) and done.nearest.same == 1
    config = json.loads((tmp_path / "one/adapter_config.json").read_text())
    assert config["r"] == 1 and not config["lora_bias"]
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_lora_that_answers_otherwise_is_refused(llama_pin, tmp_path):
    with pytest.raises(
        BiaslineError, match=r"vllm takes LoRAs alone, and the nearest of rank one gives the delta's answer"
    ):
        export_lora(on_llama(llama_pin, size=3.0), tmp_path / "out", ROWS, target="vllm", fingerprint="f" * 16)
    assert not (tmp_path / "out").exists()


def test_what_no_adapter_holds_is_refused(workspace, llama_pin, tmp_path):
    out, about = tmp_path / "out", {"target": "", "fingerprint": "f" * 16}
    normed = package(workspace, 1)
    for made, told in (
        (moved(normed.pin_path, normed.task, 1, (), "all"), "an adapter changes linear layers alone"),
        (package(workspace, 1, ["bad", "good"]), "a classification: its head is no part of an adapter"),
        (fleet(workspace, ["one", "two"]), "a fleet of 2 tenants"),
    ):
        with pytest.raises(BiaslineError, match=told):
            export_lora(made, out, ROWS, **about)
    with pytest.raises(BiaslineError, match="1 test rows: some must be left to compare the adapter on"):
        export_lora(on_llama(llama_pin), out, ROWS[:1], target="vllm", fingerprint="f" * 16)
    assert not out.exists()
