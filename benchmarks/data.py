"""What validation and tokenization cost, on Stanford Alpaca with GPT-2's tokenizer.

`python -m benchmarks.data` measures, prints a table and writes benchmarks/data.json. Three things are timed:

- the two stages in this process (imports apart) beside the article's own per-row `map` and beside the bare encoder: one
  call of the tokenizer's Rust encoder over all rows as single texts, its tokens not even taken out. Round by round in
  turn, since the machine's speed drifts; what is told is the median of the rounds' ratios;
- both stages as the pipeline runs them, a process each, on one, two, five and ten times the rows, with the
  memory that they took at most;
- both on a million rows.

Rows beyond the file's own are its rows with their words shuffled, so that they are as long and no copies.
Needs the data in ../shared (or --alpaca and --tokenizer), 4 GB of memory and ten minutes.
"""

import gc
import json
import os
import random
import shutil
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
ROUNDS, TIMES, MANY = 5, (1, 2, 5, 10), 1_000_000
MAX_LENGTH = 512
# A stage, and then the most memory that it held. What a parent is told of a child counts the parent's own too.
_STAGE = """
import re, runpy, sys
sys.argv.pop(0)
runpy.run_module(sys.argv[0], run_name="__main__")
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def main(
    alpaca: Annotated[Path, typer.Option(help="alpaca_data.json")] = SHARED / "data/alpaca_en/alpaca_data.json",
    tokenizer: Annotated[Path, typer.Option(help="a folder with GPT-2's tokenizer")] = SHARED / "tokenizers/gpt2",
) -> None:
    for path in (alpaca, tokenizer):
        if not path.exists():
            raise SystemExit(f"{path}: not there → name it with --alpaca or --tokenizer")
    OUT.write_text(json.dumps(measure(alpaca, tokenizer), indent=2) + "\n", encoding="utf-8")


def measure(alpaca: Path, tokenizer: Path) -> dict[str, Any]:
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    rows = json.loads(alpaca.read_text(encoding="utf-8"))
    versions = machine("tokenizers", "transformers", "datasets", "polars", "pandera", "rensa")
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        lay(work, tokenizer)
        found = {"machine": versions, "rows": len(rows), "in_process": in_process(work, rows), "stages": []}
        for count in [len(rows) * times for times in TIMES] + [MANY]:
            found["stages"].append(as_stages(work, rows, count))
    return found


def lay(work: Path, tokenizer: Path) -> None:
    """A project folder with a base of no weights to speak of: only its tokenizer is used."""
    import transformers as hf

    from biasline.bases.create import create_pin

    base = work / "data/bases/gpt2"
    hf.utils.logging.disable_progress_bar()
    config = hf.GPT2Config(n_embd=8, n_layer=1, n_head=2, n_positions=1024)
    hf.GPT2LMHeadModel(config).save_pretrained(base)
    for file in tokenizer.iterdir():
        shutil.copyfile(file, base / file.name)
    pin = base.with_suffix(".json")
    pin.write_text(create_pin(str(base), pin).dumps(), encoding="utf-8")
    (work / "dvc.yaml").write_text("stages: {}\n")


def task_of(work: Path, rows: list[dict[str, str]], count: int) -> Any:
    """Write so many rows and the resolved task on them; returns its place, relative to `work`."""
    from biasline.layout import TaskPlace
    from biasline.params import Task

    place = TaskPlace(f"alpaca{count}")
    (work / place.folder).mkdir()
    data = work / place.folder / "raw.json"
    with data.open("w", encoding="utf-8") as file:
        for number in range(count):
            row = rows[number % len(rows)]
            if number >= len(rows):
                chance = random.Random(number)
                row = {name: " ".join(chance.sample(words, len(words))) for name, words in _words(row)}
            file.write(("," if number else "[") + json.dumps(row) + "\n")
        file.write("]")
    task = Task(
        base="data/bases/gpt2.json",
        data=f"{place.folder}/raw.json",
        tokens={"max_length": MAX_LENGTH, "template": "human-assistant"},
    )
    (work / place.resolved).write_text(task.model_dump_json())
    return place


def _words(row: dict[str, str]) -> list[tuple[str, list[str]]]:
    return [(name, text.split()) for name, text in row.items()]


def seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_process(work: Path, rows: list[dict[str, str]]) -> dict[str, float]:
    """Medians of seconds, and of ratios to the two yardsticks, over interleaved rounds."""
    import datasets
    from transformers import PreTrainedTokenizerFast

    from biasline.data.augment import augment
    from biasline.data.validate import validate
    from biasline.params import read_task
    from biasline.tokens.sets import tokenize

    place = task_of(work, rows, len(rows))
    os.chdir(work)
    task = read_task(place.resolved)
    tokenizer = PreTrainedTokenizerFast.from_pretrained("data/bases/gpt2")
    plain = datasets.Dataset.from_list(rows)
    texts = [_prompt(row) + row["output"] + tokenizer.eos_token for row in rows]

    def as_in_the_article(row: dict[str, str]) -> dict[str, list[int]]:
        asked, answered = tokenizer(_prompt(row)), tokenizer(row["output"] + tokenizer.eos_token)
        found = {name: (asked[name] + answered[name])[:MAX_LENGTH] for name in ("input_ids", "attention_mask")}
        labels = [-100] * len(asked["input_ids"]) + answered["input_ids"]
        return {**found, "labels": labels[:MAX_LENGTH]}

    datasets.disable_progress_bars()
    works: dict[str, Callable[[], Any]] = {
        "map": lambda: plain.map(as_in_the_article, remove_columns=plain.column_names, load_from_cache_file=False),
        "encoder": lambda: tokenizer.backend_tokenizer.encode_batch(texts),
        "validate": lambda: validate(task, place),
        "tokenize": lambda: tokenize(task, place),
    }
    works["validate"]()  # what tokenize reads
    augment(task, place)
    gc.freeze()  # the yardsticks' rows and texts are nothing that a stage would have beside it
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, step in works.items():
            taken[name].append(seconds(step))
    os.chdir(ROOT)
    shutil.rmtree(work / place.folder)

    def ratio(one: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(taken[one], taken[other], strict=True))

    found = {f"{name}_s": statistics.median(times) for name, times in taken.items()}
    found |= {"tokenize_per_map": ratio("map", "tokenize"), "tokenize_per_encoder": ratio("encoder", "tokenize")}
    found |= {"encoder_per_map": ratio("map", "encoder"), "validate_share_of_tokenize": ratio("validate", "tokenize")}
    print(f"{len(rows):,} rows in process: " + ", ".join(f"{name} {found[f'{name}_s']:.2f} s" for name in works))
    to_map, to_encoder = found["tokenize_per_map"], found["tokenize_per_encoder"]
    best = found["encoder_per_map"]
    print(f"tokenize: {to_map:.2f} × the map's rate, {to_encoder:.2f} × the encoder's (that is {best:.2f} × the map's)")
    return found


def _prompt(row: dict[str, str]) -> str:
    return f"Human: {row['instruction']}\n{row['input']}".strip() + "\n\nAssistant: "


def as_stages(work: Path, rows: list[dict[str, str]], count: int) -> dict[str, Any]:
    """Seconds and peak memory of both stages, each a process of its own."""
    name = task_of(work, rows, count).task
    found: dict[str, Any] = {"rows": count}
    told = []
    for stage in ("validate", "augment", "tokenize"):
        started = time.perf_counter()
        command = [sys.executable, "-c", _STAGE, f"stages.{stage}", name]
        done = subprocess.run(
            command,
            cwd=work,
            env=os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        taken, peak = time.perf_counter() - started, int(done.stdout.split()[-1]) / 1024
        found[stage] = {"s": taken, "peak_mb": peak}
        if stage != "augment":  # off by default: it writes no row
            told.append(f"{stage} {taken:.1f} s ({1e6 * taken / count:.0f} µs a row), {peak:,.0f} MB")
    print(f"{count:>9,} rows: {', '.join(told)}", flush=True)
    shutil.rmtree(work / "data" / name)
    return found


if __name__ == "__main__":
    typer.run(main)
