"""Biases beside LoRA, prefix and full tuning on a real language model, SmolLM2-135M, that has no bias of its own.

`python -m benchmarks.smollm` measures what benchmarks/smollm/ lacks, cell by cell (a data set, a number of training
rows, what is trained, its rate, a seed), and writes benchmarks/smollm.md. Stopped and started again it goes on;
`--only sst2-200` takes the cells whose names begin so, `--table` writes the table of what there is. Needs the data in
../shared (or --data) and the base: `make smollm`.

Reviews of SST-2 and pairs of RTE are instructions that a word answers; Alpaca's are open. (Chinese has no place in this
base's vocabulary, so there is no Chinese Alpaca.) A tenth of the training rows, and so many more, choose the step that
is kept and the rate: cells `…@RATE` are tried at seed 0, and the other seeds take the rate whose validation loss was
lowest. Eighty steps of sixteen rows, or two epochs where those are more.

Cells of their own: `…-export…` asks llama.cpp (`make llamacpp`) what the delta was asked, `tenants-100-export-0` writes
a hundred tasks on one base, `…-evaluation-0` times the evaluation with and without what is computed once.
"""

import csv
import json
import os
import random
import resource
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import typer

from benchmarks.machine import machine
from benchmarks.rows import ALL_TEXTS, PLACE, copied, laid, splits, trained
from benchmarks.runner import ROOT, Benchmark, check_data, found
from biasline.params import Task

BASE = ROOT / "data/bases/smollm2.json"
CELLS = Path(__file__).with_suffix("")
WORK = ROOT / ".biasline" / "smollm"
TEST = 400
LLAMACPP = ROOT / ".llamacpp/node_modules/node-llama-cpp/dist/index.js"
TENANTS = 100

# What is asked, and the longest answer.
SETS: dict[str, tuple[str, int]] = {
    "sst2": ("Is this review positive or negative?", 4),
    "rte": ("Does the second sentence follow from the first? Answer yes or no.", 4),
    "alpaca": ("", 96),
}


def _biases(roles: str) -> dict[str, Any]:
    return {"biases": roles, "inject": roles}


WHAT: dict[str, tuple[dict[str, Any], tuple[float, ...]]] = {
    "attention+mlp": (_biases("attention+mlp"), (1e-3, 3e-3, 1e-2)),
    "lora": ({"method": "lora", "lora": {"layers": "all", "rank": 8}}, (3e-4, 1e-3, 3e-3)),
    "value": (_biases("value"), (3e-3, 1e-2, 3e-2)),
    "mlp_out": (_biases("mlp_out"), (3e-3, 1e-2, 3e-2)),
    "all": (_biases("all"), (1e-3, 3e-3, 1e-2)),
    "prefix": ({"method": "prefix"}, (3e-3, 1e-2, 3e-2)),
    "full": ({"method": "full"}, (1e-5, 3e-5, 1e-4)),
}
# Data set, training rows, what is tried there: those first that say most.
_ORDER: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    ("sst2", 200, ("attention+mlp", "lora", "value", "mlp_out", "all", "prefix", "full")),
    ("sst2", 1_000, ("attention+mlp", "lora", "value", "mlp_out", "all", "full")),
    ("rte", 1_000, ("attention+mlp", "lora")),
    ("alpaca", 1_000, ("attention+mlp", "lora")),
)
_SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Cell:
    """One training; or, where `what` is no key of WHAT, one measurement.

    Attributes:
        rate: 0 where nothing is trained.
    """

    data: str
    rows: int
    what: str
    rate: float = 0.0
    seed: int = 0

    @property
    def name(self) -> str:
        """Its name, and that of its file."""
        at = f"@{self.rate:g}" if self.rate else ""
        return f"{self.data}-{self.rows}-{self.what}{at}-{self.seed}"

    @property
    def path(self) -> Path:
        """What it found."""
        return CELLS / f"{self.name}.json"

    def task(self) -> Task:
        """What a user would have written, and what is tried."""
        longest = SETS[self.data][1]
        changes = WHAT[self.what][0] if self.what in WHAT else WHAT["attention+mlp"][0]
        train = {"threads": 1, "seed": self.seed, "batch_size": 16, "epochs": 2.0, "min_steps": 80, **changes}
        train |= {"learning_rate": self.rate or None, "evaluate_every": 20}
        return Task.model_validate(
            {
                "base": str(BASE),
                "data": "raw",
                "quality": ALL_TEXTS,
                "tokens": {"template": "chat", "max_length": 256},
                "train": train,
                "evaluate": {"max_new_tokens": longest},
                "run": {"reuse": True},
            }
        )


def tried(data: str, rows: int, what: str) -> list[Cell]:
    """The cells of one thing's rates."""
    return [Cell(data, rows, what, rate) for rate in WHAT[what][1]]


def best_rate(data: str, rows: int, what: str) -> float:
    """The rate with the lowest validation loss; 0 while one is missing."""
    there = [cell for cell in tried(data, rows, what) if cell.path.is_file()]
    if len(there) < len(WHAT[what][1]):
        return 0.0
    return min(there, key=lambda cell: found(cell)["valid_loss"]).rate


def cells() -> Iterator[Cell]:
    """Every cell that can be measured as yet; further seeds come where all rates were tried."""
    for data, rows, whats in _ORDER:
        for what in whats:
            yield from tried(data, rows, what)
    yield Cell("tenants", TENANTS, "export")
    yield Cell("sst2", 200, "evaluation")
    if LLAMACPP.is_file() and (rate := best_rate("sst2", 1_000, "attention+mlp")):
        yield Cell("sst2", 1_000, "export", rate)
    for seed in _SEEDS[1:]:
        for data, rows, whats in _ORDER[:2]:
            for what in whats[:2]:
                if rate := best_rate(data, rows, what):
                    yield Cell(data, rows, what, rate, seed)


def rows_of(cell: Cell, data: Path) -> dict[str, list[dict[str, str]]]:
    """Rows of each split; the test's are the same for all seeds."""
    asked = SETS[cell.data][0]
    if cell.data == "alpaca":
        rows = json.loads((data / "alpaca_en/alpaca_data.json").read_text(encoding="utf-8"))
        rows = [row for row in rows if row["output"].strip()]
        random.Random(2026).shuffle(rows)
        test, rest = rows[: TEST // 4], rows[TEST // 4 :]
    else:
        test, rest = (_read(data, cell.data, name, asked) for name in ("dev", "train"))
        random.Random(2026).shuffle(test)
        test = test[:TEST]
    random.Random(cell.seed).shuffle(rest)
    valid = cell.rows // 10
    return {"train": rest[: cell.rows], "valid": rest[cell.rows :][:valid], "test": test}


def _read(data: Path, name: str, split: str, asked: str) -> list[dict[str, str]]:
    folder = data / "sst2" if name == "sst2" else data / "glue/RTE"
    with (folder / f"{split}.tsv").open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))
    if name == "sst2":
        answers = ("negative", "positive")
        return [
            {"instruction": asked, "input": row["sentence"].strip(), "output": answers[int(row["label"])]}
            for row in rows
        ]
    return [
        {
            "instruction": asked,
            "input": f"{row['sentence1']}\n{row['sentence2']}",
            "output": "yes" if row["label"] == "entailment" else "no",
        }
        for row in rows
    ]


def write(cell: Cell, data: Path, raw: Path) -> None:
    """The rows of a cell, as files of a user."""
    for split, rows in rows_of(cell, data).items():
        lines = (json.dumps(row, ensure_ascii=False) for row in rows)
        (raw / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def lay(cell: Cell, data: Path) -> Path:
    """The folder of a cell's rows, made once for all that is tried on them."""
    folder = WORK / "sets" / f"{cell.data}-{cell.rows}@{cell.seed}"
    return laid(folder, cell.task(), lambda raw: write(cell, data, raw))


def lay_all(wanted: list[Cell], data: Path) -> None:
    """The rows of all cells."""
    check_data(data / "sst2")
    for cell in {(cell.data, cell.rows, cell.seed): cell for cell in wanted if cell.data in SETS}.values():
        lay(cell, data)


def measure(cell: Cell, data: Path) -> tuple[dict[str, Any], str]:
    """One cell."""
    if cell.data == "tenants":
        return many_tenants(cell)
    work = copied(lay(cell, data), WORK / "cells" / cell.name)
    for name in ("dvc.yaml", "params.yaml"):  # a project of its own, which keeps what the untuned base said
        Path(name).touch()
    if cell.what == "evaluation":
        told, line = timed(cell)
    elif cell.what == "export":
        told, line = asked_elsewhere(cell)
    else:
        told, line = one_training(cell)
    told |= {"splits": splits(), "machine": machine("torch", "transformers", "peft")}
    shutil.rmtree(work)
    return told, line


def one_training(cell: Cell) -> tuple[dict[str, Any], str]:
    """Train and evaluate."""
    kept = WORK / "untuned"
    kept.mkdir(parents=True, exist_ok=True)
    Path(".biasline").mkdir(exist_ok=True)
    Path(".biasline/untuned").symlink_to(kept)
    task = cell.task()
    began = time.monotonic()
    metrics, report, seconds = trained(task)
    told = {name: metrics[name] for name in ("tuned", "base")}
    told |= {name: report[name] for name in ("trainable", "bytes", "steps", "kept_step", "valid_loss", "learning_rate")}
    told |= {"train_seconds": round(seconds, 1), "seconds": round(time.monotonic() - began, 1)}
    told["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    metric = "rouge_l" if cell.data == "alpaca" else "exact_match"
    return told, f"{metric} {told['tuned'][metric]:.3f}, loss {told['valid_loss']:.3f}, {told['seconds']:.0f} s"


def timed(cell: Cell) -> tuple[dict[str, Any], str]:
    """Answers and likelihoods of the untuned base, with and without what all prompts begin with computed once."""
    from biasline.bases.pin import load_tokenizer, verified_folder
    from biasline.evaluation.generate import Drawing, generate
    from biasline.evaluation.prefix import shared_prefix, shared_prompt
    from biasline.evaluation.scoring import score_likelihood
    from biasline.kinds.learning import find_learning
    from biasline.tokens.mask import Encoder
    from biasline.tokens.saved import read_token_set

    task = cell.task()
    pin, folder = verified_folder(BASE)
    model, _ = find_learning(task.kind).load(pin, folder, task.load, task.train, ())
    tokenizer = load_tokenizer(pin, folder)
    stops, pad = Encoder.from_params(tokenizer, task.tokens).stops(), model.config.pad_token_id
    columns = read_token_set(PLACE, "test")[:64]
    lengths = [sum(label == -100 for label in labels) for labels in columns["labels"]]
    prompts = [ids[:length] for ids, length in zip(columns["input_ids"], lengths, strict=True)]
    drawing, size = Drawing(SETS[cell.data][1]), task.evaluate.batch_size
    rounds: list[dict[str, float]] = []
    same = True
    for _ in range(3):
        taken: dict[str, float] = {}
        answers = {}
        for once in (False, True):
            began = time.perf_counter()
            prefix = shared_prefix(model, prompts) if once else None
            answers[once] = generate(model, tokenizer, prompts, drawing, size, stops, prefix=prefix)
            taken[f"answers {once}"] = time.perf_counter() - began
            began = time.perf_counter()
            prefix = shared_prompt(model, columns) if once else None
            score_likelihood(model, columns, pad, size, prefix=prefix)
            taken[f"likelihoods {once}"] = time.perf_counter() - began
        same &= answers[False] == answers[True]
        rounds.append(taken)
    ratios = {
        name: statistics.median(one[f"{name} True"] / one[f"{name} False"] for one in rounds)
        for name in ("answers", "likelihoods")
    }
    told = {"rows": len(prompts), "tokens": statistics.mean(map(len, prompts)), "same": same, "ratios": ratios}
    return told, ", ".join(f"{name} in {ratio:.2f} of the time" for name, ratio in ratios.items())


def asked_elsewhere(cell: Cell) -> tuple[dict[str, Any], str]:
    """Train, export, and ask llama.cpp what the evaluation asked."""
    import polars as pl

    from biasline.bases.pin import gguf_file, read_pin
    from biasline.bitfit import BiasDelta
    from biasline.serving.gguf_export import export_gguf
    from biasline.serving.package import Package

    task = cell.task()
    trained(task)
    pin = read_pin(BASE)
    package = Package(task, BiasDelta.load(PLACE.delta), pin, BASE)
    export_gguf(package, Path("out.gguf"), name=cell.name, fingerprint="0" * 16)
    predictions = pl.read_parquet(PLACE.predictions).head(TEST)
    predictor = package.predictor()
    prompts = [row["input_ids"] for row in predictor.inputs(predictions.select("instruction", "input").to_dicts())]
    Path("prompts.json").write_text(json.dumps(prompts), encoding="utf-8")
    given = {}
    for name, file in (("tuned", Path("out.gguf")), ("base", gguf_file(pin, BASE))):
        script = ROOT / "tests/real/llamacpp.mjs"
        command = ["node", str(script), str(LLAMACPP), str(file), "prompts.json", str(SETS[cell.data][1])]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ})
        given[name] = json.loads(done.stdout.splitlines()[-1])
    right = predictions["output"].to_list()

    def share(answers: list[str]) -> float:
        return float(np.mean([one == other for one, other in zip(answers, right, strict=True)]))

    told = {"rows": len(right), "delta": share(predictions["tuned"].to_list())}
    told |= {f"{name} in llama.cpp": share(answers) for name, answers in given.items()}
    told["same"] = float(
        np.mean([one == other for one, other in zip(given["tuned"], predictions["tuned"], strict=True)])
    )
    return told, ", ".join(f"{name} {value:.3f}" for name, value in told.items() if name != "rows")


def many_tenants(cell: Cell) -> tuple[dict[str, Any], str]:
    """A hundred deltas, moved at random, exported as parts beside one base."""
    import torch

    from biasline.bases.pin import gguf_file, read_pin
    from biasline.bitfit import BiasDelta, tune_biases
    from biasline.kinds.learning import find_learning
    from biasline.serving.gguf_export import export_gguf_parts
    from biasline.serving.package import Package

    pin = read_pin(BASE)
    task = Cell("sst2", 200, "attention+mlp", 1e-3).task()
    shutil.rmtree(WORK / "tenants", ignore_errors=True)
    (WORK / "tenants").mkdir(parents=True)
    os.chdir(WORK / "tenants")
    model, _ = find_learning(task.kind).load(pin, _folder(), task.load, task.train, ())
    tuning = tune_biases(model, "attention+mlp", inject="attention+mlp")
    began, generator = time.monotonic(), torch.Generator().manual_seed(0)
    for number in range(cell.rows):
        with torch.no_grad():
            tuning.masters[0].copy_(torch.randn(tuning.masters[0].shape, generator=generator) * 0.01)
        delta = BiasDelta.of(tuning, base={"name": pin.name, "digest": pin.digest})
        about = {"task": f"task{number}", "name": f"task {number}", "fingerprint": f"{number:016}"}
        export_gguf_parts(Package(task, delta, pin, BASE), Path("out"), **about)
    paths = [path for path in Path("out").rglob("*") if path.is_file() and not path.is_symlink()]
    size, base = sum(path.stat().st_size for path in paths), gguf_file(pin, BASE).stat().st_size
    told = {"tasks": cell.rows, "bytes": size, "base": base, "seconds": round(time.monotonic() - began, 1)}
    told["each"] = (size - base) / cell.rows
    shutil.rmtree(WORK / "tenants")
    return told, f"{size / 1e6:.0f} MB, of which {base / 1e6:.0f} MB are the base"


def _folder() -> Path:
    from biasline.bases.pin import verified_folder

    return verified_folder(BASE)[1]


def page() -> str:
    """A table per set of rows, and what stands for itself."""
    there = [cell for cell in cells() if cell.path.is_file()]
    lines = ["# A real language model", "", "`python -m benchmarks.smollm`, SmolLM2-135M: see its text.", ""]
    for data, rows, whats in _ORDER:
        part = [cell for cell in there if (cell.data, cell.rows) == (data, rows) and cell.what in WHAT]
        if not part:
            continue
        metric = "rouge_l" if data == "alpaca" else "exact_match"
        some = found(part[0])
        lines += [
            f"## {data}, {rows:,} training rows, {some['splits']['test']:,} test rows",
            "",
            f"Untuned {some['base'][metric]:.3f}. Rates at seed 0; in bold that of the lowest validation loss.",
            "",
            f"| | trained | rate | seeds | {metric} | perplexity | validation loss | seconds of training | peak MB |",
            "|---|---:|---:|---:|---|---:|---:|---:|---:|",
        ]
        for what in whats:
            best = best_rate(data, rows, what)
            for rate in sorted({cell.rate for cell in part if cell.what == what}):
                told = [found(cell) for cell in part if (cell.what, cell.rate) == (what, rate)]
                lines.append(_line(what, rate, told, metric, rate == best))
        lines.append("")
    for cell in there:
        if cell.what not in WHAT:
            told = {name: value for name, value in found(cell).items() if name not in ("machine", "splits")}
            lines += [f"`{cell.name}`: {json.dumps(told)}", ""]
    return "\n".join(lines)


def _line(what: str, rate: float, told: list[dict[str, Any]], metric: str, best: bool) -> str:
    def mean(values: list[float]) -> float:
        return float(np.mean(values))

    values = [one["tuned"][metric] for one in told]
    first = told[0]["tuned"]
    interval = f" [{first[f'{metric}_low']:.3f}, {first[f'{metric}_high']:.3f}]" if len(told) == 1 else ""
    spread = f" [{min(values):.3f}, {max(values):.3f}]" if len(told) > 1 else interval
    cells = (
        what,
        f"{told[0]['trainable']['total']:,}",
        f"**{rate:g}**" if best else f"{rate:g}",
        str(len(told)),
        f"{mean(values):.3f}{spread}",
        f"{mean([one['tuned']['perplexity'] for one in told]):.3f}",
        f"{mean([one['valid_loss'] for one in told]):.3f}",
        f"{mean([one['train_seconds'] for one in told]):.0f}",
        f"{mean([one['peak_mb'] for one in told]):.0f}",
    )
    return f"| {' | '.join(cells)} |"


SMOLLM = Benchmark(
    module="benchmarks.smollm",
    out=Path(__file__).with_suffix(".md"),
    cells=cells,
    lay=lay_all,
    measure=measure,
    page=page,
)

if __name__ == "__main__":
    typer.run(SMOLLM.__call__)
