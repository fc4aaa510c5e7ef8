"""What the pipeline costs: each stage, and a `dvc repro` that has nothing to do, with 1 and 50 tasks.

`python -m benchmarks.pipeline` measures in a clone of this repository, and writes benchmarks/pipeline.json and
pipeline.md. The stages are those of the demo's `instruct`, each a process of its own, as `dvc repro` runs them; the
train stage is told twice, with its 400 steps and with one: what it costs before and after any training. With nothing to
do, `dvc repro`, `dvc repro -P` and `dvc status` are run in turn; told is the median of the rounds' ratios. The 50 tasks
are copies of `instruct` with what it made, told to DVC by `dvc commit`.

Takes five minutes.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import machine

ROOT = Path(__file__).resolve().parent.parent
OUT = Path(__file__).with_suffix(".json")
STAGES = ("resolve", "validate", "augment", "tokenize", "train", "evaluate", "register")
ROUNDS, TASKS = 7, 50
# What has nothing to do, in the order of the table; the last is what the others are held against.
IDLE = ("dvc repro", "dvc repro -P", "dvc status")
# Outs that are made anew by a stage.
_OUTS = ("task.json", "clean", "quality.json", "quality.md", "augmented.parquet", "tokens", "preview.md", "lengths.csv")
_OUTS += ("model", "history.csv", "evaluation", "registered.json")


class Clone:
    """A clone of this repository without a store or a cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)

    def seconds(self, *command: str) -> float:
        drop = ("DVC_ROOT", "MLFLOW_TRACKING_URI")
        env = {key: value for key, value in os.environ.items() if key not in drop}
        env |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}",
            "PYTHONPATH": str(self.folder / "src"),
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        started = time.perf_counter()
        done = subprocess.run(command, cwd=self.folder, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stdout[-1000:]}{done.stderr[-2000:]}")
        return time.perf_counter() - started

    def params(self, text: str) -> None:
        (self.folder / "params.yaml").write_text(text, encoding="utf-8")


def measure() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        clone = Clone(Path(folder) / "clone")
        text = (clone.folder / "params.yaml").read_text(encoding="utf-8")
        task = text[text.index("  instruct:") : text.index("  # The same frozen base")].partition("\n")[2]
        clone.params(f"tasks:\n  instruct:\n{task}")
        found: dict[str, Any] = {"machine": machine("torch", "dvc", "mlflow"), "stages": {}}
        clone.seconds("dvc", "repro")
        for stage in STAGES:
            found["stages"][stage] = clone.seconds("python", "-m", f"stages.{stage}", "instruct")
        found["noop"] = {"1": noop(clone)}
        one_step = task.replace("min_steps: 400", "min_steps: 1").replace("epochs: 3", "epochs: 0.001")
        clone.params(f"tasks:\n  instruct:\n{one_step}")
        clone.seconds("python", "-m", "stages.resolve", "instruct")
        found["one_step"] = clone.seconds("python", "-m", "stages.train", "instruct")
        clone.params(f"tasks:\n  instruct:\n{task}")
        clone.seconds("dvc", "repro")
        copy_tasks(clone, task)
        found["noop"][str(TASKS)] = noop(clone)
        return found


def copy_tasks(clone: Clone, task: str) -> None:
    """Further tasks with the data, parameters and outs of the first."""
    names = [f"copy{number}" for number in range(1, TASKS)]
    blocks = [f"  {name}:\n{task.replace('data/instruct', f'data/{name}')}" for name in names]
    clone.params(f"tasks:\n  instruct:\n{task}{''.join(blocks)}")
    source = clone.folder / "data" / "instruct"
    for name in names:
        target = clone.folder / "data" / name
        target.mkdir()
        for path in (source / "raw.jsonl", *(source / out for out in _OUTS)):
            if path.is_dir():
                shutil.copytree(path, target / path.name)
            elif path.is_file():
                shutil.copy2(path, target / path.name)
        resolved = target / "task.json"
        resolved.write_text(
            resolved.read_text(encoding="utf-8").replace("data/instruct", f"data/{name}"), encoding="utf-8"
        )
    clone.seconds("dvc", "commit", "--force", "--quiet")


def noop(clone: Clone) -> dict[str, list[float]]:
    """Seconds of each of `IDLE`, in turn."""
    found: dict[str, list[float]] = {command: [] for command in IDLE}
    for number in range(ROUNDS):
        for command in IDLE[:: -1 if number % 2 else 1]:
            found[command].append(clone.seconds(*command.split()))
    return found


def ratio(took: dict[str, list[float]], command: str) -> float:
    """How many times as long a command takes as the last of `IDLE`: the median of the rounds' ratios."""
    return statistics.median(one / other for one, other in zip(took[command], took[IDLE[-1]], strict=True))


def page(found: dict[str, Any]) -> str:
    about = found["machine"]
    lines = [
        "# What the pipeline costs",
        "",
        f"`python -m benchmarks.pipeline` on {about['processor']}, {about['cores']} cores; Python {about['python']}, "
        f"torch {about['torch']}, DVC {about['dvc']}, MLflow {about['mlflow']}. The stages of `instruct`:",
        "",
        "| " + " | ".join(found["stages"]) + " | train stage, one step of 400 |",
        "|" + "---:|" * (len(found["stages"]) + 1),
        "| " + " | ".join(f"{seconds:.1f} s" for seconds in (*found["stages"].values(), found["one_step"])) + " |",
        "",
        f"With nothing to do, medians of {ROUNDS} rounds in turn, and how many times as long as `{IDLE[-1]}`:",
        "",
        "| tasks | " + " | ".join(f"`{command}`" for command in IDLE) + " |",
        "|" + "---:|" * (len(IDLE) + 1),
    ]
    for tasks, took in found["noop"].items():
        cells = [f"{statistics.median(took[command]):.2f} s, {ratio(took, command):.2f} ×" for command in IDLE]
        lines.append(f"| {tasks} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "`dvc repro` reads dvc.lock and builds its stages twice, to find those of dvc.yaml and then all; with "
        "`-P` (of every dvc.yaml, and there is one) only the second time. Each locks a stage's files four times, `dvc "
        "status` once: that is what is left of the surplus, and DVC's own. All read YAML by libyaml "
        "(`ruamel.yaml.clib`); in Python they take 1.7 times as long.",
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    told = measure()
    OUT.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    OUT.with_suffix(".md").write_text(page(told), encoding="utf-8")
