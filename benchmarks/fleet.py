"""What a fleet costs beside a task for each tenant, and what many tenants cost the stores.

`python -m benchmarks.fleet` measures in a clone of this repository, and writes benchmarks/fleet.json and fleet.md.

- *speed*: 100 shops of 200 rows (`biasline.demo.shops`) on the demo base, from the file to the registered version: as a
  fleet by one `dvc repro`, and as a task for each shop. Of these a few are run and told times 100; a task has the
  parameters of the demo's `instruct`.
- *many*: 100 and 1,000 shops of 20 training rows (30 in all), two processes of one thread, 40 steps each: seconds of
  each stage, the largest process, bytes.
- *stores*: 1,000 and 10,000 tenants, whose deltas are the shared one with noise: what DVC takes to commit the model's
  folder and to see that nothing is to be done, and what publishing the run and registering the version take.

Takes an hour and a half with ten tasks (`--tasks`): many take most, the stores four minutes.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.machine import machine
from benchmarks.pipeline import Clone

OUT = Path(__file__).with_suffix(".json")
TENANTS, ROWS, MANY = 100, 200, (1_000, 10_000)
PARTS = ("speed", "many", "stores")
STAGES = ("resolve", "validate", "augment", "tokenize", "train", "evaluate", "register")
# What each of many shops has: 20 of these rows are trained on.
FEW, COUNTS = 30, (100, 1_000)
_TRAIN = {"biases": "all", "learning_rate": 1e-2, "epochs": 1, "min_steps": 400, "batch_size": 32}
_TASK = {"base": "data/bases/tiny-bloom.json", "train": _TRAIN, "evaluate": {"max_new_tokens": 24}}


def rows_of(shops: int, rows: int) -> str:
    from biasline.demo.shops import shops as made
    from biasline.demo.shops import to_jsonl

    return to_jsonl(tuple(replace(shop, rows=rows) for shop in made(shops)))


def lay(clone: Clone, tasks: dict[str, dict[str, Any]], text: dict[str, str]) -> None:
    """Params and raw data of tasks, and of no others."""
    clone.params(
        json.dumps({"tasks": {name: {**task, "data": f"data/{name}/raw.jsonl"} for name, task in tasks.items()}})
    )
    for name, rows in text.items():
        folder = clone.folder / "data" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "raw.jsonl").write_text(rows, encoding="utf-8")


def speed(folder: Path, tasks: int) -> dict[str, Any]:
    """Seconds of the fleet, and of a task alone."""
    clone = Clone(folder)
    everything = rows_of(TENANTS, ROWS)
    lay(clone, {"shops": {**_TASK, "tenants": {"column": "shop"}}}, {"shops": everything})
    fleet = clone.seconds("dvc", "repro")
    metrics = json.loads((clone.folder / "data/shops/evaluation/metrics.json").read_text(encoding="utf-8"))
    idle = clone.seconds("dvc", "repro")
    by_shop: dict[str, list[str]] = {}
    for line in everything.splitlines():
        by_shop.setdefault(json.loads(line)["shop"], []).append(line + "\n")
    alone, right = [], []
    for number, lines in enumerate(list(by_shop.values())[:tasks]):
        name = f"shop{number}"
        lay(clone, {name: _TASK}, {name: "".join(lines)})
        alone.append(clone.seconds("dvc", "repro"))
        found = json.loads((clone.folder / f"data/{name}/evaluation/metrics.json").read_text(encoding="utf-8"))
        right.append(found["tuned"]["exact_match"])
    return {
        "tenants": TENANTS,
        "rows": ROWS,
        "fleet_s": fleet,
        "idle_s": idle,
        "timed_tasks": tasks,
        "task_s": alone,
        "exact_match": {"fleet": metrics["tuned"]["exact_match"], "tasks": sum(right) / len(right)},
        "macro": metrics["tenants"]["macro"],
    }


def many(folder: Path) -> dict[str, Any]:
    """Seconds of each stage by the number of tenants, memory and bytes; and what nothing to do takes."""
    clone, found = Clone(folder), {}
    train, tenants = {**_TRAIN, "threads": 1}, {"column": "shop", "min_rows": 1, "min_steps": 40}
    fleet = {
        **_TASK,
        "train": train,
        "tenants": tenants,
        "run": {"processes": 2},
        "split": {"valid": 0.16, "test": 0.16},
    }
    for count in COUNTS:
        name = f"shops{count}"
        lay(clone, {name: fleet}, {name: rows_of(count, FEW)})
        seconds = {stage: clone.seconds("dvc", "repro", "--single-item", f"{stage}@{name}") for stage in STAGES}
        place = clone.folder / "data" / name
        rows = json.loads((place / "evaluation/metrics.json").read_text(encoding="utf-8"))
        found[str(count)] = {
            "stages_s": seconds,
            "peak_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
            "model_bytes": sum(path.stat().st_size for path in (place / "model").rglob("*") if path.is_file()),
            "macro": rows["tenants"]["macro"],
            "own": rows["tenants"]["own"],
            "test_rows": rows["rows"],
        }
        print(count, found[str(count)], flush=True)
    return {"rows": FEW, "fleets": found}


def stores(folder: Path) -> dict[str, Any]:
    """Seconds that DVC and MLflow take for many tenants, and what nothing to do takes beside few."""
    clone = Clone(folder)
    short = {**_TASK["train"], "min_steps": 4, "epochs": 0.01}
    tenants = {"column": "shop", "min_steps": 4, "epochs": 0.01, "evaluate_every": 2}
    lay(clone, {"shops": {**_TASK, "train": short, "tenants": tenants}}, {"shops": rows_of(2, 40)})
    clone.seconds("dvc", "repro")
    found: dict[str, Any] = {"idle_of_two_s": median(clone.seconds("dvc", "repro") for _ in range(5))}
    script, target = Path(__file__).with_name("fleet_many.py"), folder.parent / "many.json"
    for count in MANY:
        clone.seconds(sys.executable, str(script), str(count), str(target))
        told = json.loads(target.read_text(encoding="utf-8"))
        told["dvc_commit_s"] = clone.seconds("dvc", "commit", "--force", "--quiet")
        found[str(count)] = {**told, "dvc_idle_s": median(clone.seconds("dvc", "repro") for _ in range(5))}
    return found


def page(found: dict[str, Any]) -> str:
    machine_ = found["machine"]
    lines = ["# Fleets", ""]
    lines += [f"Made by `python -m benchmarks.fleet` on {machine_['processor']}, {machine_['cores']} cores.", ""]
    if fast := found.get("speed"):
        task = sum(fast["task_s"]) / len(fast["task_s"])
        lines += [
            f"{fast['tenants']} shops of {fast['rows']} rows, from the file to the registered version; of the tasks "
            f"{fast['timed_tasks']} were timed.",
            "",
            "| | seconds | exact match |",
            "|---|---:|---:|",
            f"| one fleet, one `dvc repro` | {fast['fleet_s']:,.0f} | {fast['exact_match']['fleet']:.3f} |",
            f"| {fast['tenants']} tasks, each {task:.0f} s | {fast['tenants'] * task:,.0f} | "
            f"{fast['exact_match']['tasks']:.3f} |",
            "",
            f"That is {fast['tenants'] * task / fast['fleet_s']:.1f} times as fast. `dvc repro` with nothing to do: "
            f"{fast['idle_s']:.1f} s.",
            "",
        ]
    if few := found.get("many"):
        lines += [f"Shops of {few['rows']} rows, two processes; seconds of each stage, under `dvc repro`:", ""]
        lines += [f"| shops | {' | '.join(STAGES)} | largest process | model |", "|---:" * 10 + "|"]
        for count, told in few["fleets"].items():
            seconds = " | ".join(f"{told['stages_s'][stage]:.1f}" for stage in STAGES)
            sizes = f"{told['peak_bytes'] / 1e9:.2f} GB | {told['model_bytes'] / 1e6:.1f} MB"
            lines.append(f"| {int(count):,} | {seconds} | {sizes} |")
        lines.append("")
    if stored := found.get("stores"):
        size = stored[str(MANY[0])]["bytes"] / MANY[0] / 1e3
        lines += [
            f"Deltas of {size:.0f} kB each, in seconds; `dvc repro` with nothing to do is the median of five:",
            "",
        ]
        lines += ["| tenants | record | run and version | `dvc commit` | nothing to do |", "|---:|---:|---:|---:|---:|"]
        lines += [f"| 2 | | | | {stored['idle_of_two_s']:.2f} |"]
        for count in MANY:
            told = stored[str(count)]
            taken = " | ".join(f"{told[name]:.1f}" for name in ("record_s", "register_s", "dvc_commit_s"))
            lines.append(f"| {count:,} | {taken} | {told['dvc_idle_s']:.2f} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=10, help="tasks of one shop that are timed")
    parser.add_argument("--only", choices=PARTS, help="measure this part and keep the others")
    arguments = parser.parse_args()
    found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else {}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        wanted = [arguments.only] if arguments.only else PARTS
        for part in wanted:
            clone = Path(folder) / part / "clone"
            if part == "speed":
                found[part] = speed(clone, arguments.tasks)
            else:
                found[part] = many(clone) if part == "many" else stores(clone)
    found["machine"] = machine("torch", "dvc", "mlflow")
    OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    OUT.with_suffix(".md").write_text(page(found), encoding="utf-8")
    print(f"{OUT.with_suffix('.md')}: {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
