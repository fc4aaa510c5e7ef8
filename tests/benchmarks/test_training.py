import json
import statistics

import pytest
import transformers as hf

from benchmarks import training
from biasline.tokens.saved import IGNORED

ROWS = [
    {"row": number, "input_ids": [5] * (3 + number) + [7, 8, 2], "labels": [IGNORED] * (3 + number) + [7, 8, 2]}
    for number in range(16)
]


@pytest.fixture
def tiny(monkeypatch):
    sizes = {"vocab_size": 50_257, "hidden_size": 32, "n_layer": 1, "n_head": 4, "pad_token_id": 3}
    monkeypatch.setattr(training, "base", lambda: hf.BloomForCausalLM(hf.BloomConfig(**sizes)).eval())


@pytest.mark.parametrize("method", ["bitfit", "lora", "full"])
def test_our_loop_is_measured(tiny, method):
    found = training.ours(ROWS, method, 8)
    assert found["tokens"] == sum(6 + number for number in range(16)) and found["supervised"] == 48
    assert found["seconds"] > 0 and found["bytes"] > 0 and 0 <= found["padding"] < 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("method", "batch"), [("article", 1), ("lora", 8), ("full", 8)])
def test_stock_tools_are_measured(tiny, method, batch):
    if not (training.SHARED / "tokenizers/gpt2").is_dir():
        pytest.skip("no tokenizer of GPT-2 beside the checkout")
    assert training.stock(ROWS, method, batch)["seconds"] > 0


def test_the_committed_figures_are_what_the_docs_claim():
    found = json.loads(training.OUT.read_text())
    assert training.page(found) == training.OUT.with_suffix(".md").read_text()
    assert training.ratio(found, "article") >= 1.2
    assert min(training.ratio(found, name) for name in ("lora-1", "lora-8")) >= 1.7
    assert min(training.ratio(found, name) for name in ("full-1", "full-8")) >= 2.5
    assert statistics.median(found["loop"]["overhead"]) <= 1.05
    assert found["runs"]["bitfit-32"][0]["padding"] < 0.05
