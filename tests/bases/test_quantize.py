"""Bases that are quantized while they are read, and what memory loading takes."""

import json
import re
import subprocess
import sys
from importlib.util import find_spec

import psutil
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from biasline.bases import load as room
from biasline.bases.create import create_pin
from biasline.bases.load import load_causal_lm
from biasline.bases.pin import verified_folder
from biasline.bitfit import BiasDelta, tune_biases
from biasline.errors import BiaslineError
from biasline.kinds.learning import find_learning
from biasline.layout import TaskPlace
from biasline.params import Load, Task
from biasline.training.train import load_training
from tests.conftest import run_stages

PEAK = """
import re, sys, threading, time
from pathlib import Path
from biasline.bases.load import load_causal_lm
from biasline.bases.pin import verified_folder
from biasline.bitfit import BiasDelta, tune_biases
from biasline.bases.pin import verified_folder
from biasline.params import Load
import transformers
from transformers import AutoModelForCausalLM, LlamaForCausalLM

def own():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) * 1024

pin, folder = verified_folder(Path(sys.argv[1]))
before, peak, over = own(), [0], threading.Event()

def watch():
    while not over.is_set():
        peak[0] = max(peak[0], own())
        time.sleep(0.001)

watching = threading.Thread(target=watch)
watching.start()
model = load_causal_lm(pin, folder, Load(dtype=sys.argv[2]))
over.set()
watching.join()
weights = sum(part.numel() * part.element_size() for part in model.parameters())
print("RATIO", (peak[0] - before) / weights)
"""


def small(folder, width=64):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=1200,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("dtype", "most"), [("float32", 0.3), ("bfloat16", 1.1)])
def test_loading_takes_no_second_copy_of_the_weights(tmp_path, dtype, most):
    """In the file's dtype weights are the file itself, mapped; in another one they are made once."""
    pin = tmp_path / "m.json"
    pin.write_text(create_pin(str(small(tmp_path / "m", 2048)), pin).dumps())
    done = subprocess.run([sys.executable, "-c", PEAK, str(pin), dtype], capture_output=True, text=True, check=True)
    assert float(re.search(r"RATIO (\S+)", done.stdout).group(1)) < most


def test_a_base_that_the_machine_has_no_room_for_is_refused(tmp_path, monkeypatch):
    pin = create_pin(str(small(tmp_path / "m")), tmp_path / "m.json")
    numbers = pin.inventory["parameters"]

    class Memory:
        total = 3 * numbers

    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    monkeypatch.setattr(room, "best_device", lambda: torch.device("cpu"))
    told = r"base m: 0.0 GB as float32, and this machine has 0.0 GB → load: {dtype: bfloat16} or load: {quantize: 8bit}"
    with pytest.raises(BiaslineError, match=told):
        load_causal_lm(pin, tmp_path / "m", Load())
    load_causal_lm(pin, tmp_path / "m", Load(dtype="bfloat16"))


@pytest.mark.parametrize(
    ("more", "told"),
    [({"train": {"method": "full"}}, "train.method full needs"), ({"run": {"shard": True}}, "run.shard needs weights")],
)
def test_what_needs_whole_weights_is_refused(more, told):
    with pytest.raises(ValueError, match=f"load.quantize 4bit: {told}"):
        Task(base="b", data="d", load={"quantize": "4bit"}, **more)


@pytest.mark.skipif(find_spec("bitsandbytes") is not None, reason="it is installed")
def test_the_package_that_is_missing_is_named(tmp_path):
    pin = create_pin(str(small(tmp_path / "m")), tmp_path / "m.json")
    with pytest.raises(BiaslineError, match=r"base m: a package that it needs is missing: .*bitsandbytes"):
        load_causal_lm(pin, tmp_path / "m", Load(quantize="8bit"))


@pytest.mark.parametrize("kind", ["classification", "instruction"])
def test_biases_are_trained_on_it_and_go_back_on_it(workspace, kind):
    pytest.importorskip("bitsandbytes")
    names = ("text", "label") if kind == "classification" else ("instruction", "output")
    rows = [{names[0]: f"sample {one} is {one % 2}", names[1]: ["low", "high"][one % 2]} for one in range(60)]
    (workspace / "rows.json").write_text(json.dumps(rows))
    base = workspace / "data/bases/tiny-bloom.json"
    task = Task(
        kind=kind,
        base=str(base),
        data="rows.json",
        load={"quantize": "8bit"},
        quality={"near_duplicate": 1.0, "off": ["leak"]},
        train={"min_steps": 6, "epochs": 0.1, "batch_size": 8},
        evaluate={"max_new_tokens": 3},
    )
    place = TaskPlace("few")
    run_stages(task, place)
    report = json.loads(place.train_report.read_text())
    assert report["trainable"]["biases"] > 0 and report["valid_loss"] > 0
    delta, (pin, folder) = BiasDelta.load(place.delta), verified_folder(base)
    find = find_learning(kind)
    model, _ = find.load(pin, folder, task.load, task.train, delta.manifest.labels)
    assert any("bitsandbytes" in type(module).__module__ for module in model.modules())
    delta.apply(model)
    # Whole weights are another base.
    whole, _ = find.load(pin, folder, Load(), task.train, delta.manifest.labels)
    with pytest.raises(BiaslineError, match="this model's values are not those of the base"):
        delta.apply(whole)


def test_4_bit_layers_take_biases(tmp_path):
    """As far as a CPU goes: it gives answers, and no gradients."""
    pytest.importorskip("bitsandbytes")
    pin = create_pin(str(small(tmp_path / "m")), tmp_path / "m.json")
    model = load_causal_lm(pin, tmp_path / "m", Load(quantize="4bit"))
    tuning = tune_biases(model, "attention+mlp", inject="attention+mlp")
    ids = torch.arange(20)[None]
    with torch.inference_mode():
        before = model(ids).logits
        tuning.masters[0].add_(0.1)
        tuning.write()
        after = model(ids).logits
    assert "Linear4bit" in {type(module).__name__ for module in model.modules()}
    assert not torch.allclose(before, after, atol=1e-3)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="there is an accelerator")
def test_4_bit_is_not_trained_on_a_cpu(trained):
    task, place = trained
    with pytest.raises(BiaslineError, match="4bit: on a CPU nothing can be trained through it"):
        load_training(task.model_copy(update={"load": Load(quantize="4bit")}), place)
