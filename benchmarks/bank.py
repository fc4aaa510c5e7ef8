"""What it costs that each row of a batch has a delta of its own, and how that grows with the number of tenants.

`python -m benchmarks.bank` measures, prints a table and writes benchmarks/bank.json. A batch of 32 rows of 32 tokens,
two threads; a mixed batch (as many tenants as the bank has, 32 at most) beside the same batch with one delta, forward
and forward with backward. Timed in turn, round by round, since the machine's speed drifts; told is the median of the
rounds' ratios.
"""

import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers as hf

from benchmarks.engine import bloom, moved, seconds
from benchmarks.machine import machine
from biasline.bitfit import Bank, BiasDelta, tune_biases

ROUNDS, WARM = 15, 2
THREADS = 2
ROWS, LENGTH = 32, 32
TENANTS = (1, 32, 1_024)
CHOICE = {"roles": "attention+mlp"}
OUT = Path(__file__).with_suffix(".json")


def bert(hidden: int, layers: int, heads: int, words: int) -> Any:
    sizes = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads, "vocab_size": words}
    return hf.BertModel(hf.BertConfig(**sizes, intermediate_size=4 * hidden))


CASES: dict[str, Callable[[], Any]] = {
    "BERT 33 M": lambda: bert(384, 12, 12, 30522),
    "BLOOM 32 M": lambda: bloom(384, 8, 8, 46145).transformer,
}


def rounds(works: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Median over the rounds of each one's seconds by those of the first."""
    first, *others = works
    found: dict[str, list[float]] = {name: [] for name in others}
    for number in range(WARM + ROUNDS):
        taken = {name: seconds(works[name]) for name in (list(works) if number % 2 else [*others[::-1], first])}
        if number >= WARM:
            for name in others:
                found[name].append(taken[name] / taken[first])
    return {name: statistics.median(ratios) for name, ratios in found.items()}


def forward(model: Any, delta: BiasDelta, banks: dict[int, Bank], ids: torch.Tensor) -> dict[str, float]:
    """Mixed batches beside one with an applied delta."""

    def one() -> None:
        with delta.applied(model), torch.inference_mode():
            model(ids)

    def again() -> None:
        one()

    def mixed(tenants: int) -> Callable[[], None]:
        def work() -> None:
            with banks[tenants].rows(_slots(tenants)), torch.inference_mode():
                model(ids)

        return work

    return rounds({"one": one, "noise": again, **{str(count): mixed(count) for count in banks}})


def backward(model: Any, banks: dict[int, Bank], ids: torch.Tensor) -> dict[str, float]:
    """Forward and backward of mixed batches beside those of one training; the model keeps its tuning."""
    for bank in banks.values():
        bank.table.requires_grad_(True)
    tuning = tune_biases(model, **CHOICE)

    def one() -> None:
        model(ids)[0].square().mean().backward()
        tuning.collect()

    def again() -> None:
        one()

    def mixed(tenants: int) -> Callable[[], None]:
        def work() -> None:
            banks[tenants].table.grad = None
            with banks[tenants].rows(_slots(tenants)):
                model(ids)[0].square().mean().backward()

        return work

    return rounds({"one": one, "noise": again, **{str(count): mixed(count) for count in banks}})


def _slots(tenants: int) -> list[int]:
    """Slots spread over the bank."""
    return [1 + number * max(1, tenants // ROWS) % tenants for number in range(ROWS)]


def measure() -> dict[str, Any]:
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    found: dict[str, Any] = {"machine": machine("torch", "transformers"), "threads": THREADS, "cases": {}}
    for name, make in CASES.items():
        model = make().eval()
        deltas = [moved(model, **CHOICE) for _ in range(8)]
        banks = {count: Bank(model, count) for count in TENANTS}
        for count, bank in banks.items():
            put = [seconds(lambda slot=slot: bank.put(slot, deltas[slot % 8])) for slot in range(1, count + 1)]  # noqa: B023
        ids = torch.randint(0, model.config.vocab_size, (ROWS, LENGTH))
        case = {
            "entries": sum(values.numel() for values in deltas[0].tensors.values()),
            "put_ms": 1000 * statistics.median(put),
            "forward": forward(model, deltas[0], banks, ids),
            "backward": backward(model, banks, ids),
        }
        found["cases"][name] = case
        print(f"{name}: {case['entries']:,} entries a slot, put in {case['put_ms']:.1f} ms", flush=True)
        for what in ("forward", "backward"):
            told = ", ".join(f"{key} × {ratio:.3f}" for key, ratio in case[what].items())
            print(f"  {what}, beside one applied delta: tenants {told}", flush=True)
    return found


if __name__ == "__main__":
    OUT.write_text(json.dumps(measure(), indent=2) + "\n", encoding="utf-8")
