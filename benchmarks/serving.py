"""What it costs to serve many tenants from one base: throughput, waiting time and memory, as tenants grow.

`python -m benchmarks.serving` measures, prints and writes benchmarks/serving.json and benchmarks/serving.md. Requests
go to the engine as the server puts them there (no HTTP), in a closed loop: 32 clients, each asks again once it is
answered. All arms take turns, round by round, since the machine's speed drifts; told are medians of the rounds' ratios.
Beside it, on the same requests: deltas swapped in place for each request, and PEFT's mixed batches of LoRA.
"""

import gc
import json
import queue
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import torch
import transformers as hf

from benchmarks.engine import bloom, moved
from benchmarks.machine import machine
from biasline.bitfit import BiasDelta
from biasline.evaluation.generate import Drawing
from biasline.serving.engine.decoding import Decoding, DecodingLane, Generation
from biasline.serving.engine.engine import BankedModel, Engine
from biasline.serving.engine.passes import Batching, PassLane, Row

ROOT = Path(__file__).parent.parent
OUT = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).with_suffix(".md")
THREADS, CLIENTS, ROUNDS, WARM = 2, 32, 7, 1
TENANTS = (1, 8, 64, 256, 1_024)
CHOICE = {"roles": "attention+mlp"}
ANSWER = 12


def classifier() -> Any:
    """A classifier of MiniLM's size: 6 layers, 384 wide."""
    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    return hf.BertForSequenceClassification(hf.BertConfig(**sizes, num_labels=3))


def tiny_bloom() -> Any:
    return hf.AutoModelForCausalLM.from_pretrained(ROOT / "data/bases/tiny-bloom", dtype=torch.float32)


CASES: dict[str, tuple[Callable[[], Any], int]] = {
    "labels, BERT 23 M": (classifier, 256),
    "answers, tiny-bloom": (tiny_bloom, 96),
    "answers, BLOOM 32 M": (lambda: bloom(384, 8, 8, 46145), 48),
}


def asked(model: Any, count: int) -> list[list[int]]:
    """Rows of 8 to 40 tokens, the same each time."""
    draw = random.Random(0)
    words = model.config.vocab_size
    return [[draw.randrange(5, words) for _ in range(draw.randint(8, 40))] for _ in range(count)]


def slots_of(tenants: int, count: int, skewed: bool) -> list[int]:
    """Whose row each is: in turn, or a few of them most of the time (Zipf); tenant 0 is the base."""
    if not tenants:
        return [0] * count
    if not skewed:
        return [1 + number % tenants for number in range(count)]
    weights = [1 / (1 + number) for number in range(tenants)]
    return random.Random(1).choices(range(1, tenants + 1), weights, k=count)


class Loop:
    """A closed loop on a lane."""

    def __init__(self, lane: PassLane | DecodingLane, rows: list[list[int]]) -> None:
        self._lane, self._rows = lane, rows
        self._done: queue.SimpleQueue[float] = queue.SimpleQueue()

    def __call__(self, slots: list[int]) -> tuple[float, float]:
        """Rows a second, and the 95th percentile of how long one took, seconds."""
        started, waiting, taken = time.perf_counter(), iter(zip(self._rows, slots, strict=True)), list[float]()
        for _ in range(min(CLIENTS, len(slots))):
            self._ask(*next(waiting))
        while len(taken) < len(slots):
            taken.append(time.perf_counter() - self._done.get(timeout=300))
            if (following := next(waiting, None)) is not None:
                self._ask(*following)
        return len(slots) / (time.perf_counter() - started), statistics.quantiles(taken, n=20)[-1]

    def _ask(self, ids: list[int], slot: int) -> None:
        begun = time.perf_counter()
        if isinstance(self._lane, PassLane):
            row = Row({"input_ids": torch.tensor(ids)}, slot, len(ids))
            row.done.add_done_callback(lambda _: self._done.put(begun))
            self._lane.ask(str(slot), [row])
        else:
            told = lambda _, last: self._done.put(begun) if last else None  # noqa: E731
            self._lane.ask(str(slot), Generation(ids, slot, Drawing(ANSWER), frozenset(), told))


def swapped(model: Any, deltas: list[BiasDelta], rows: list[list[int]], slots: list[int]) -> float:
    """Rows a second where each request has its delta put in place, alone."""
    started = time.perf_counter()
    for ids, slot in zip(rows, slots, strict=True):
        with torch.inference_mode(), deltas[slot % len(deltas)].applied(model):
            if hasattr(model, "lm_head"):
                model.generate(torch.tensor([ids]), max_new_tokens=ANSWER, min_new_tokens=ANSWER, do_sample=False)
            else:
                model(torch.tensor([ids]))
    return len(rows) / (time.perf_counter() - started)


def lora_passes(tenants: int) -> Iterator[tuple[str, float]]:
    """Seconds of a pass over 16 rows of a classifier: all of one adapter, and each of another one (PEFT's own way)."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=8, target_modules=["query", "value"], task_type="SEQ_CLS")
    model = get_peft_model(classifier().eval(), config, adapter_name="t0")
    for number in range(1, tenants):
        model.add_adapter(f"t{number}", config)
    model.eval()
    ids, names = torch.randint(5, 30_000, (16, 24)), [f"t{number * tenants // 16}" for number in range(16)]
    for what, given in (("one", ["t0"] * 16), ("mixed", names)):
        taken = []
        for _ in range(12):
            started = time.perf_counter()
            with torch.inference_mode():
                model(input_ids=ids, attention_mask=torch.ones_like(ids), adapter_names=given)
            taken.append(time.perf_counter() - started)
        yield what, statistics.median(taken[2:])


def case(name: str) -> dict[str, Any]:
    """One model: arms in turn."""
    make, count = CASES[name]
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    model = make().eval()
    model.config.pad_token_id = model.config.pad_token_id or 0
    head = {"head": "train"} if "labels" in name else {}
    deltas = [moved(model, **CHOICE, **head) for _ in range(8)]
    banked, engine = BankedModel(model, 1), Engine(name, THREADS)
    banked.put(deltas[0])
    gc.collect()
    before = psutil.Process().memory_info().rss
    banked.reserve(max(TENANTS) - 1)
    for number in range(1, max(TENANTS)):
        banked.put(deltas[number % 8])
    held = psutil.Process().memory_info().rss - before
    lane = PassLane(engine, banked, Batching()) if "labels" in name else DecodingLane(engine, banked, Decoding())
    engine.add(lane)
    rows = asked(model, count)
    loop = Loop(lane, rows)
    arms = {"base": (0, False), **{str(one): (one, False) for one in TENANTS}, "1024 skewed": (1024, True)}
    found: dict[str, list[tuple[float, float]]] = {arm: [] for arm in arms}
    for number in range(WARM + ROUNDS):
        for arm in list(arms) if number % 2 else [*arms][::-1]:
            measured = loop(slots_of(arms[arm][0], count, arms[arm][1]))
            if number >= WARM:
                found[arm].append(measured)
    engine.close()
    values = sum(part.numel() for part in deltas[0].tensors.values())
    ratios = {
        arm: [
            statistics.median(one[at] / other[at] for one, other in zip(runs, found["1"], strict=True)) for at in (0, 1)
        ]
        for arm, runs in found.items()
    }
    few = rows[:24]
    alone = statistics.median(swapped(model, deltas, few, slots_of(1024, len(few), False)) for _ in range(3))
    return {
        "values": values,
        "bytes_a_tenant": held / (max(TENANTS) - 1),
        "rows_a_second": statistics.median(one[0] for one in found["1"]),
        "p95_ms": 1000 * statistics.median(one[1] for one in found["1"]),
        "throughput": {arm: pair[0] for arm, pair in ratios.items()},
        "p95": {arm: pair[1] for arm, pair in ratios.items()},
        "swapped": alone / statistics.median(one[0] for one in found["1024"]),
    }


def page(found: dict[str, Any]) -> str:
    arms = ["base", *map(str, TENANTS), "1024 skewed"]
    lines = [
        "# Many tenants on one base: throughput as they grow",
        "",
        f"`python -m benchmarks.serving`: {CLIENTS} clients in a closed loop, rows of 8 to 40 tokens, answers of "
        f"{ANSWER}, {THREADS} threads, {found['machine']['processor']}. Rows a second beside those of one tenant in "
        f"the same round, and the 95th percentile of waiting likewise; medians of {ROUNDS} rounds.",
        "",
        "| | rows a second, one tenant | " + " | ".join(arms) + " | deltas swapped in place |",
        "|---|---:|" + "---:|" * (len(arms) + 1),
    ]
    for name, one in found["cases"].items():
        told = " | ".join(f"{one['throughput'][arm]:.2f}" for arm in arms)
        lines.append(f"| {name} | {one['rows_a_second']:.0f} | {told} | {one['swapped']:.2f} |")
        told = " | ".join(f"{one['p95'][arm]:.2f}" for arm in arms)
        lines.append(f"| p95 | {one['p95_ms']:.0f} ms | {told} | |")
    lines += ["", "| | biases of a tenant | memory of a further one |", "|---|---:|---:|"]
    for name, one in found["cases"].items():
        share = one["bytes_a_tenant"] / (4 * one["values"])
        lines.append(
            f"| {name} | {4 * one['values'] / 1e3:.0f} KB | {one['bytes_a_tenant'] / 1e3:.0f} KB ({share:.2f} ×) |"
        )
    lora = found["lora"]
    lines += [
        "",
        "PEFT's mixed batches of LoRA (r = 8 on query and value, the BERT above): a pass over 16 rows of "
        + ", ".join(f"{count} adapters takes {ratio:.2f} × that of one" for count, ratio in lora.items())
        + ".",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    found: dict[str, Any] = {"machine": machine("torch", "transformers", "peft"), "cases": {}, "lora": {}}
    for name in CASES:
        found["cases"][name] = case(name)
        print(name, json.dumps(found["cases"][name], indent=1), flush=True)
    for tenants in (16, 64):
        taken = dict(lora_passes(tenants))
        found["lora"][str(tenants)] = taken["mixed"] / taken["one"]
        print(f"LoRA, {tenants} adapters: × {found['lora'][str(tenants)]:.2f}", flush=True)
    OUT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    PAGE.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
