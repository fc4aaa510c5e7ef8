"""How long `biasline erase --dry-run` takes to say what has a tenant's rows.

`python -m benchmarks.erasing` writes benchmarks/erasing.md. A fleet of 1,000 tenants with 20 rows each, made up, a
store of MLflow's with ten runs, and a record of each that notes which rows it had; no model is trained. Some seconds.
"""

import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import polars as pl

from benchmarks.machine import machine
from biasline.erasing.plan import Plan, Request, plan
from biasline.layout import record_folder
from biasline.params import read_params
from biasline.tracking.record import ROWS_FILE, row_hash
from biasline.tracking.store import connect, experiment_id

OUT = Path(__file__).with_suffix(".md")
TENANTS, EACH, RUNS, LOOKS = 1_000, 20, 10, 5


def lay(folder: Path) -> None:
    """A project with a fleet, runs in its store and their records."""
    os.chdir(folder)
    Path("dvc.yaml").write_text("", encoding="utf-8")
    rows = [
        {"instruction": f"question {number} to shop {tenant}", "output": f"answer {number}", "shop": f"shop {tenant}"}
        for tenant in range(TENANTS)
        for number in range(EACH)
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = {"base": "base.json", "data": "rows.jsonl", "tenants": {"column": "shop"}}
    Path("params.yaml").write_text(json.dumps({"tasks": {"shops": task}}), encoding="utf-8")
    hashes = [row_hash(f"{row['shop']}\x1f{row['instruction']}") for row in rows]
    client = connect()
    experiment = experiment_id(client, "shops")
    for number in range(RUNS):
        fingerprint = f"{number:016x}"
        client.create_run(experiment, tags={"biasline.fingerprint": fingerprint})
        record = record_folder("shops", fingerprint)
        record.mkdir(parents=True)
        pl.DataFrame({"split": ["train"] * len(hashes), "row": hashes}).write_parquet(record / ROWS_FILE)


def looked() -> tuple[Plan, float]:
    """What is said of one tenant, and the seconds that it takes."""
    task = read_params(Path("params.yaml")).tasks["shops"]
    began = time.monotonic()
    found = plan(connect(), Request("shops", None, {"shop": "shop 7"}), task)
    return found, time.monotonic() - began


def page() -> str:
    """Everything, measured."""
    with tempfile.TemporaryDirectory() as folder:
        lay(Path(folder))
        told = [looked() for _ in range(LOOKS)]
        os.chdir("/")
    found = told[0][0]
    assert found.selected.rows == EACH
    assert len(found.learned) == RUNS
    seconds = statistics.median(taken for _, taken in told)
    return "\n".join(
        [
            "# What `biasline erase --dry-run` takes",
            "",
            f"`python -m benchmarks.erasing`, {machine('polars')['processor']}; see its text.",
            "",
            f"- {TENANTS:,} tenants with {EACH} rows each, {RUNS} trainings: what has the {EACH} rows of one tenant is "
            f"told in {seconds:.1f} s (median of {LOOKS}).",
            "",
        ]
    )


if __name__ == "__main__":
    OUT.write_text(page(), encoding="utf-8")
    print(OUT.read_text(encoding="utf-8"))
