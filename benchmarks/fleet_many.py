"""Makes the workspace's fleet one of many tenants and registers it; `benchmarks.fleet` runs it in a clone.

Arguments: how many tenants, and the file that is told what it took.
"""

import json
import shutil
import sys
import time
from pathlib import Path

import polars as pl
import torch

from biasline.bitfit import BiasDelta
from biasline.bitfit.deltas import file_of, write_index
from biasline.bitfit.inventory import value_hash
from biasline.layout import TaskPlace
from biasline.registry import versions
from biasline.registry.sync import register_workspace
from biasline.tracking.record import record_of_workspace


def make(place: TaskPlace, count: int) -> None:
    """Give each of many tenants the shared delta with noise, as a run of its own."""
    names = [f"tenant {number:05}" for number in range(count)]
    delta = BiasDelta.load(place.delta)
    shutil.rmtree(place.own)
    place.own.mkdir()
    torch.manual_seed(0)
    for name in names:
        tensors = {key: values + 0.01 * torch.randn_like(values) for key, values in delta.tensors.items()}
        entries = {
            key: entry.model_copy(update={"values": value_hash(tensors[key])})
            for key, entry in delta.manifest.tensors.items()
        }
        BiasDelta(tensors, delta.manifest.model_copy(update={"tensors": entries})).save(place.own / file_of(name))
    write_index(place.own, names, [])
    row = pl.read_parquet(place.own_report).head(1)
    row.drop("tenant").join(pl.DataFrame({"tenant": names}), how="cross").select(row.columns).write_parquet(
        place.own_report
    )
    for path in (place.train_report, place.metrics):
        told = json.loads(path.read_text(encoding="utf-8"))
        told["fingerprint"] = f"{count:016d}"
        path.write_text(json.dumps(told), encoding="utf-8")


def main(count: int, target: Path) -> None:
    place = TaskPlace("shops")
    make(place, count)
    versions.check_package = lambda record, uri: None  # its evaluation was of other deltas
    began = time.perf_counter()
    record_of_workspace("shops")
    taken = time.perf_counter() - began
    register_workspace(place)
    registered = time.perf_counter() - began - taken
    size = sum(path.stat().st_size for path in place.own.iterdir())
    target.write_text(json.dumps({"record_s": taken, "register_s": registered, "bytes": size}), encoding="utf-8")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
