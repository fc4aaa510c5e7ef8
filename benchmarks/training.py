"""What training costs: Biasline beside the articles' recipe, stock LoRA and stock full tuning.

`python -m benchmarks.training` measures, and writes benchmarks/training.json, training.md and training.png. A BLOOM of
33 million parameters with GPT-2's vocabulary of 50,257 tokens (random weights: speed does not depend on them) is
trained on the same rows of Stanford Alpaca, with the same threads, by

- `article`: the recipe of the articles: the Trainer of Transformers, every parameter with "bias" in its name, batches
  of one row, gradients accumulated over eight;
- `stock LoRA`, `stock full`: the Trainer with PEFT's LoRA of rank 8 on all linear layers, and with every parameter;
  batches of eight rows, and of one row accumulated over eight;
- `biasline bitfit`, `lora`, `full`: our loop, eight rows a step.

Each in a process of its own, round by round in turn, since the machine's speed drifts; what is told is the median over
the rounds, and for ratios the median of the rounds' ratios. Times are of the whole call that trains, imports and
loading apart. Memory is the most that the process held while training, above what it held with the base loaded. Then,
in one process in turn: our loop beside bare forward and backward passes on batches that are prepared already.

Needs the data in ../shared (or --alpaca and --tokenizer), 4 GB of memory and a quarter of an hour.
"""

import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.machine import machine

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
OUT = Path(__file__).with_suffix(".json")
ROWS, BATCH, THREADS, ROUNDS, PAIRS, LONGEST = 64, 8, 2, 5, 10, 512
RATE = 1e-3
# Name → what it is in the table, in the order in which a round runs them.
CONTESTANTS = {
    "article": "articles' recipe: Trainer, biases, 1 row × 8",
    "lora-8": "Trainer + PEFT LoRA r = 8, 8 rows",
    "bitfit": "Biasline, biases",
    "lora-1": "Trainer + PEFT LoRA r = 8, 1 row × 8",
    "lora": "Biasline, LoRA r = 8",
    "full-8": "Trainer, every parameter, 8 rows",
    "full": "Biasline, every parameter",
    "full-1": "Trainer, every parameter, 1 row × 8",
    "bitfit-1": "Biasline, biases, 1 row × 8",
    "bitfit-32": "Biasline, biases, 32 rows a step",
}


def main(
    alpaca: Annotated[Path, typer.Option(help="alpaca_data.json")] = SHARED / "data/alpaca_en/alpaca_data.json",
    tokenizer: Annotated[Path, typer.Option(help="a folder with GPT-2's tokenizer")] = SHARED / "tokenizers/gpt2",
    rounds: Annotated[int, typer.Option(help="times that each is run")] = ROUNDS,
    contestant: Annotated[str, typer.Option(help="run one and print what was measured", hidden=True)] = "",
) -> None:
    for path in (alpaca, tokenizer):
        if not path.exists():
            raise SystemExit(f"{path}: not there → name it with --alpaca or --tokenizer")
    if contestant:
        print(json.dumps(LONE[contestant](examples(alpaca, tokenizer))))
        return
    found = measure(["--alpaca", str(alpaca), "--tokenizer", str(tokenizer)], rounds)
    OUT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    OUT.with_suffix(".md").write_text(page(found), encoding="utf-8")
    plot(found)


def measure(data: list[str], rounds: int) -> dict[str, Any]:
    libraries = machine("torch", "transformers", "accelerate", "peft")
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CONTESTANTS}
    for number in range(rounds):
        for name in CONTESTANTS:
            runs[name].append(in_a_process(name, data))
            told = runs[name][-1]
            print(f"round {number + 1}, {name}: {told['seconds']:.1f} s, {told['memory_mb']:.0f} MB", flush=True)
    return {"machine": libraries, "threads": THREADS, "rows": ROWS, "runs": runs, "loop": in_a_process("loop", data)}


def in_a_process(name: str, data: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.training", *data, "--contestant", name]
    env = os.environ | {"OMP_WAIT_POLICY": "PASSIVE", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def examples(alpaca: Path, tokenizer: Path) -> list[dict[str, Any]]:
    """Some rows in tokens, as the tokenize stage makes them."""
    import polars as pl

    from biasline.tokens.mask import Encoder
    from biasline.tokens.sets import answer_columns

    raw = json.loads(alpaca.read_text(encoding="utf-8"))
    random.Random(0).shuffle(raw)
    found = [row for row in raw if row["output"].strip()][: 2 * ROWS]
    frame = pl.DataFrame(
        [{"row": number, **row, "history": []} for number, row in enumerate(found)],
        schema_overrides={"history": pl.List(pl.List(pl.String))},
    )
    columns = answer_columns(Encoder(tokenizer_of(tokenizer), "human-assistant", LONGEST, "reject"), frame)
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return rows[:ROWS]


def tokenizer_of(folder: Path) -> Any:
    import transformers as hf

    return hf.PreTrainedTokenizerFast.from_pretrained(str(folder), eos_token="<|endoftext|>")


def base() -> Any:
    import torch
    import transformers as hf

    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    model = hf.BloomForCausalLM(hf.BloomConfig(vocab_size=50_257, hidden_size=384, n_layer=8, n_head=8)).eval()
    # What libraries load and allot at their first use is no one's training.
    small = hf.BloomForCausalLM(hf.BloomConfig(vocab_size=64, hidden_size=64, n_layer=1, n_head=4))
    optimizer = torch.optim.AdamW(small.parameters())
    small(torch.ones(2, 64, dtype=torch.int64)).logits.sum().backward()
    optimizer.step()
    return model


def measured(train: Callable[[], Any]) -> dict[str, float]:
    """Seconds and megabytes of training, above what the process holds now."""
    status = Path("/proc/self/status")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # forget the most that was held so far

    def held(what: str) -> float:
        return int(re.search(rf"{what}:\s+(\d+)", status.read_text(encoding="utf-8"))[1]) / 1024

    before = held("VmRSS")
    started = time.perf_counter()
    train()
    return {"seconds": time.perf_counter() - started, "memory_mb": held("VmHWM") - before}


def sizes(rows: list[dict[str, Any]]) -> dict[str, float]:
    from biasline.tokens.saved import IGNORED

    supervised = sum(label != IGNORED for row in rows for label in row["labels"])
    return {"tokens": sum(len(row["input_ids"]) for row in rows), "supervised": supervised}


def folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def stock(rows: list[dict[str, Any]], method: str, batch: int) -> dict[str, float]:
    """The Trainer of Transformers, as its documentation has it."""
    import transformers as hf
    from datasets import Dataset

    model = base()
    if method == "article":
        for name, part in model.named_parameters():
            part.requires_grad_("bias" in name)
    elif method == "lora":
        from peft import LoraConfig, get_peft_model

        model = get_peft_model(
            model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        )
    tokenizer = tokenizer_of(SHARED / "tokenizers/gpt2")
    tokenizer.pad_token = tokenizer.eos_token
    data = Dataset.from_list([{"input_ids": row["input_ids"], "labels": row["labels"]} for row in rows])
    with tempfile.TemporaryDirectory() as folder:
        arguments = hf.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=BATCH // batch,
            num_train_epochs=1,
            learning_rate=RATE,
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
            logging_strategy="no",
            use_cpu=True,
        )
        collator = hf.DataCollatorForSeq2Seq(tokenizer, padding=True)
        trainer = hf.Trainer(model=model, args=arguments, train_dataset=data, data_collator=collator)
        found = measured(trainer.train)
        trainer.save_model(folder)
        (Path(folder) / "training_args.bin").unlink(missing_ok=True)
        return found | sizes(rows) | {"bytes": folder_bytes(Path(folder))}


def ours(rows: list[dict[str, Any]], method: str, batch: int, most: int = 0) -> dict[str, float]:
    """Our loop, without a look at validation rows, as the others are without one."""
    from accelerate import Accelerator

    from biasline.params import method_spec
    from biasline.training.loop import fit
    from biasline.training.methods import Provenance

    trainee, plan, sets, params = trainee_of(rows, method, batch, most)
    accelerator = Accelerator(cpu=True)
    found = measured(
        lambda: fit(trainee.model, trainee.tuning, plan, sets, params, lambda *_: None, accelerator=accelerator)
    )
    with tempfile.TemporaryDirectory() as folder:
        artifact = Path(folder) / method_spec(method).artifact
        trainee.save(artifact, Provenance(_Pin(), [], {}, {}))  # type: ignore[arg-type]
        found["bytes"] = folder_bytes(Path(folder))
    return found | sizes(rows) | {"padding": padding(rows, plan, sets, params)}


class _Pin:
    name, digest = "bloom", "0"


def trainee_of(rows: list[dict[str, Any]], method: str, batch: int, most: int = 0) -> Any:
    from accelerate import Accelerator
    from datasets import Dataset

    from biasline.params import Run, Train
    from biasline.training.batches import Plan
    from biasline.training.loop import Sets
    from biasline.training.loss import ResponseTokens
    from biasline.training.methods import prepare_model
    from biasline.training.prepare import prepare

    told = {"method": method, "learning_rate": RATE, "batch_size": batch, "micro_batch_tokens": most}
    params = Train(**told, epochs=1, min_steps=1, threads=THREADS)
    trainee = prepare_model(base(), [], params)
    prepare(trainee.model, trainee.tuning.masters, Run(), Accelerator(cpu=True))
    data = Dataset.from_list(rows)
    return trainee, Plan.of(len(rows), params), Sets(data, data.select([]), ResponseTokens(), 3), params


def padding(rows: list[dict[str, Any]], plan: Any, sets: Any, params: Any) -> float:
    """The share of tokens that is padding."""
    from accelerate import Accelerator

    from biasline.training.batches import Rows
    from biasline.training.feed import Feed

    feed = Feed(Rows(sets.train), sets.objective, sets.pad, params, Accelerator(cpu=True))
    padded = sum(work.padded for _, work in feed.steps(plan, range(plan.total_steps)))
    return 1 - sizes(rows)["tokens"] / padded


def loop(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Our loop beside bare passes on prepared batches; the share of matrix products; what a checkpoint costs."""
    import torch
    from accelerate import Accelerator

    from biasline.training.batches import Rows
    from biasline.training.feed import Feed
    from biasline.training.loop import fit
    from biasline.training.runtime.checkpoint import Checkpoints
    from biasline.training.state import State
    from biasline.training.validation import Keeper

    trainee, plan, sets, params = trainee_of(rows, "bitfit", BATCH)
    accelerator = Accelerator(cpu=True)
    feed = Feed(Rows(sets.train), sets.objective, sets.pad, params, accelerator)
    works = [work for _, work in feed.steps(plan, range(plan.total_steps))]

    def bare() -> None:
        trainee.model.train()
        for work in works:
            trainee.model.zero_grad()
            for batch in work.batches:
                (sets.objective.losses(trainee.model, batch).sum() / work.targets).backward()

    def whole() -> None:
        fit(trainee.model, trainee.tuning, plan, sets, params, lambda *_: None, accelerator=accelerator)

    ratios = []
    bare()
    for number in range(PAIRS):
        took = {}
        for work in (whole, bare) if number % 2 else (bare, whole):
            started = time.perf_counter()
            work()
            took[work] = time.perf_counter() - started
        ratios.append(took[whole] / took[bare])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        bare()
    events = [event for event in profile.key_averages() if event.key.startswith("aten::")]
    products = ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm")
    matmul = sum(event.self_cpu_time_total for event in events if event.key in products)
    every = sum(event.self_cpu_time_total for event in profile.key_averages())
    masters = trainee.tuning.masters
    optimizer = torch.optim.AdamW(masters)
    optimizer.step()
    state, saves = State(masters, optimizer, Keeper(False)), []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder), "x", 0)
        for number in range(20):
            state.step = number
            started = time.perf_counter()
            checkpoints.save(state.snapshot())
            saves.append(time.perf_counter() - started)
    return {"overhead": ratios, "matmul_share": matmul / every, "checkpoint_ms": 1000 * statistics.median(saves)}


LONE: dict[str, Callable[[list[dict[str, Any]]], dict[str, Any]]] = {
    "article": lambda rows: stock(rows, "article", 1),
    "lora-8": lambda rows: stock(rows, "lora", 8),
    "lora-1": lambda rows: stock(rows, "lora", 1),
    "full-8": lambda rows: stock(rows, "full", 8),
    "full-1": lambda rows: stock(rows, "full", 1),
    "bitfit": lambda rows: ours(rows, "bitfit", BATCH),
    "bitfit-1": lambda rows: ours(rows, "bitfit", BATCH, 1),
    "bitfit-32": lambda rows: ours(rows, "bitfit", 32),
    "lora": lambda rows: ours(rows, "lora", BATCH),
    "full": lambda rows: ours(rows, "full", BATCH),
    "loop": loop,
}


def ratio(found: dict[str, Any], of: str, to: str = "bitfit") -> float:
    """How many times as long `of` takes as `to`: the median of the rounds' ratios."""
    pairs = zip(found["runs"][of], found["runs"][to], strict=True)
    return statistics.median(one["seconds"] / other["seconds"] for one, other in pairs)


def page(found: dict[str, Any]) -> str:
    """The tables, and what they were measured on."""
    about, runs = found["machine"], found["runs"]
    versions = ", ".join(f"{name} {about[name]}" for name in ("torch", "transformers", "accelerate", "peft"))
    tokens, supervised = (int(runs["bitfit"][0][name]) for name in ("tokens", "supervised"))
    lines = [
        "# What training costs",
        "",
        f"`python -m benchmarks.training` on {about['processor']}, {about['cores']} cores, {found['threads']} threads; "
        f"Python {about['python']}, {versions}. A BLOOM of 33 M parameters and 50,257 tokens, {found['rows']} rows of "
        f"Alpaca ({tokens:,} tokens, {supervised:,} supervised); medians of {len(runs['bitfit'])} rounds in turn.",
        "",
        "| | tokens/s | supervised tokens/s | time, Biasline's biases = 1 | memory above the base | artifact |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, told in CONTESTANTS.items():
        seconds = statistics.median(run["seconds"] for run in runs[name])
        memory = statistics.median(run["memory_mb"] for run in runs[name])
        first = runs[name][0]
        lines.append(
            f"| {told} | {first['tokens'] / seconds:,.0f} | {first['supervised'] / seconds:,.0f} | "
            f"{ratio(found, name):.2f} | {memory:,.0f} MB | {first['bytes'] / 1024:,.0f} kB |"
        )
    loop_told = found["loop"]
    shares = ", ".join(
        f"{runs[name][0]['padding']:.1%} with {rows} rows a step"
        for name, rows in (("bitfit", BATCH), ("bitfit-32", 32))
    )
    low, middle, high = statistics.quantiles(loop_told["overhead"], n=4)
    lines += [
        "",
        f"Padding: {shares}. Our loop takes {middle:.3f} times (quartiles {low:.3f} and {high:.3f}) bare forward and "
        f"backward passes on prepared batches; matrix products are {loop_told['matmul_share']:.0%} of those. A "
        f"checkpoint takes {loop_told['checkpoint_ms']:.1f} ms.",
        "",
        "![tokens per second and memory](training.png)",
        "",
    ]
    return "\n".join(lines)


def plot(found: dict[str, Any]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(CONTESTANTS)[::-1]
    runs = found["runs"]
    speeds = [[run["tokens"] / run["seconds"] for run in runs[name]] for name in names]
    memory = [statistics.median(run["memory_mb"] for run in runs[name]) for name in names]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4), sharey=True)
    colours = ["#2a6f97" if CONTESTANTS[name].startswith("Biasline") else "#b0b7bd" for name in names]
    labels = [CONTESTANTS[name] for name in names]
    left.barh(labels, [statistics.median(found) for found in speeds], color=colours)
    for place, values in enumerate(speeds):
        left.plot(values, [place] * len(values), "k|", markersize=6)
    left.set_xlabel("tokens per second (marks: rounds)")
    right.barh(labels, memory, color=colours)
    right.set_xlabel("MB above the loaded base")
    figure.tight_layout()
    figure.savefig(OUT.with_suffix(".png"), dpi=110)


if __name__ == "__main__":
    typer.run(main)
