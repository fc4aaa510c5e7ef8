"""The server under load, over HTTP, beside `mlflow models serve`; and while what it serves changes.

`python -m benchmarks.load` makes a project in a clone of this repository (the demo's two tasks in two versions each,
and a fleet of 1,000 shops, all barely trained), serves it by `biasline serve`, and writes benchmarks/load/load.json and
README.md:

- *start*: from the command to `/ready`; the same after kill -9.
- *tenants*: a closed loop over 1 to 1,000 tenants in turn, and over a few most of the time; rounds take turns.
- *servers*: labels and answers in a closed loop, and in an open loop (Poisson arrivals) at half of what MLflow's own
  server of the same version gave in the closed one, and at half of what this one gave.
- *change*: versions are put in each other's place, and a fleet of 1,000 comes in, while labels and answers are asked
  evenly: how long a label waits at most, beside the same without a change, and requests that failed.
- *soak*: minutes of mixed load with aliases that move all the while; each answer is held against what the delta that
  its header names says alone. `--minutes`.

The client is a process of its own and takes a share of the same cores. `--only soak` measures one part and keeps the
others. Takes half an hour, of which the project is ten minutes (`--project FOLDER` makes it there, or takes it from
there).
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.load import parts
from benchmarks.load.page import page
from benchmarks.load.project import Project
from benchmarks.machine import machine

PARTS = ("start", "tenants", "servers", "change", "soak")
OUT, PAGE = Path(__file__).with_name("load.json"), Path(__file__).with_name("README.md")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part and keep the others")
    parser.add_argument("--project", type=Path, help="where the project is made, or lies")
    parser.add_argument("--minutes", type=float, default=10.0, help="of the soak")
    arguments = parser.parse_args()
    found = json.loads(OUT.read_text(encoding="utf-8")) if OUT.is_file() else {}
    with tempfile.TemporaryDirectory() as scratch:
        project = Project((arguments.project or Path(scratch) / "project").resolve())
        for part in arguments.only or PARTS:
            measure: Callable[..., dict[str, Any]] = getattr(parts, part)
            found[part] = measure(project, *((arguments.minutes,) if part == "soak" else ()))
            print(part, json.dumps({name: one for name, one in found[part].items() if name != "memory_mb"}), flush=True)
            found["machine"] = machine("torch", "transformers", "mlflow")
            OUT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            PAGE.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
