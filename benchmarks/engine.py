"""What a delta costs: at each forward pass, and when it is put on or taken off.

`python -m benchmarks.engine` measures, prints a table and writes benchmarks/engine.json. Forward passes with and
without the delta are timed in turn, pair by pair, since the machine's speed drifts; what is told is the median of the
pairs' ratios. The model of 1.3 billion parameters (bloom-1b4-zh's shape) takes 6 GB of memory.
"""

import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from benchmarks.machine import machine
from biasline.bitfit import BiasDelta, tune_biases

PAIRS, SWAPS = 120, 20
THREADS = 2
OUT = Path(__file__).with_suffix(".json")


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def moved(model: Any, **choice: str) -> BiasDelta:
    """A delta of random values, taken off again."""
    tuning = tune_biases(model, **choice)
    with torch.no_grad():
        tuning.master.add_(torch.randn(tuning.master.shape) * 0.01)
    delta = BiasDelta.of(tuning)
    delta.revert(model)
    return delta


@torch.inference_mode()
def overhead(model: Any, delta: BiasDelta) -> dict[str, float]:
    """Forward pass of 8 × 64 tokens: applied against plain, and plain against plain, which is the noise."""
    ids = torch.randint(0, model.config.vocab_size, (8, 64))
    model(ids)
    ratios: dict[str, list[float]] = {"applied": [], "plain": []}
    plain_seconds = []
    for pair in range(PAIRS):
        for name in ("applied", "plain"):
            found = {}
            # Either side first in turn.
            for side in (("one", "other"), ("other", "one"))[pair % 2]:
                with delta.applied(model) if (side == "one" and name == "applied") else nullcontext():
                    found[side] = seconds(lambda: model(ids))
            ratios[name].append(found["one"] / found["other"])
            plain_seconds.append(found["other"])
    quartiles = statistics.quantiles(ratios["applied"], n=4)
    return {
        "plain_ms": 1000 * statistics.median(plain_seconds),
        "ratio": statistics.median(ratios["applied"]),
        "ratio_low": quartiles[0],
        "ratio_high": quartiles[2],
        "noise": statistics.median(ratios["plain"]),
    }


def swaps(model: Any, delta: BiasDelta) -> dict[str, float]:
    """Milliseconds of apply (with all its checks) and revert."""
    applied, reverted = [], []
    for _ in range(SWAPS):
        applied.append(seconds(lambda: delta.apply(model)))
        reverted.append(seconds(lambda: delta.revert(model)))
    return {"apply_ms": 1000 * statistics.median(applied), "revert_ms": 1000 * statistics.median(reverted)}


def bloom(hidden: int, layers: int, heads: int, words: int) -> Any:
    return hf.BloomForCausalLM(hf.BloomConfig(vocab_size=words, hidden_size=hidden, n_layer=layers, n_head=heads))


def llama(hidden: int, layers: int, heads: int, words: int) -> Any:
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "vocab_size": words}
    return hf.LlamaForCausalLM(hf.LlamaConfig(**sizes, intermediate_size=4 * hidden, num_key_value_heads=heads // 2))


# name → (model, choice of biases, whether forward passes are timed)
CASES: dict[str, tuple[Callable[[], Any], dict[str, str], bool]] = {
    "BLOOM 32 M": (lambda: bloom(384, 8, 8, 46145), {"roles": "all"}, True),
    "LLaMA 42 M, injected": (lambda: llama(384, 8, 8, 32000), {"roles": "all", "inject": "all"}, True),
    "BLOOM 1.3 B": (lambda: bloom(2048, 24, 16, 46145), {"roles": "all"}, False),
}


def measure() -> dict[str, Any]:
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    found: dict[str, Any] = {"machine": machine("torch", "transformers"), "threads": THREADS, "cases": {}}
    for name, (make, choice, timed) in CASES.items():
        model = make().eval()
        delta = moved(model, **choice)
        found["cases"][name] = {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "biases": sum(values.numel() for values in delta.tensors.values()),
            **swaps(model, delta),
            **(overhead(model, delta) if timed else {}),
        }
        print(_line(name, found["cases"][name]), flush=True)
    return found


def _line(name: str, case: dict[str, float]) -> str:
    told = f"{name}: {case['biases']:,} of {case['parameters']:,}; apply {case['apply_ms']:.1f} ms, "
    told += f"revert {case['revert_ms']:.1f} ms"
    if "ratio" in case:
        told += f"; forward {case['plain_ms']:.1f} ms, with the delta × {case['ratio']:.3f} "
        told += (
            f"(quartiles {case['ratio_low']:.3f} … {case['ratio_high']:.3f}; plain against plain {case['noise']:.3f})"
        )
    return told


if __name__ == "__main__":
    OUT.write_text(json.dumps(measure(), indent=2) + "\n", encoding="utf-8")
