"""Which choice of biases, rates and steps trains best: one factor changed at a time, on a real BERT and real tasks.

`python -m benchmarks.study` trains what benchmarks/study/cells/ lacks, cell by cell (a cell is a data set, a change and
a seed, and one JSON there), and writes benchmarks/study/README.md. Stopped and started again it goes on. `--only
sst2-6000` takes the cells whose names begin so, `--table` writes the table of what there is.

Needs the data in ../shared (or --data) and the base: `make minilm`. What judges are rows of the training file that no
cell trains on: dev files are for benchmarks.classification, which measures what was chosen here.
"""

import shutil
from pathlib import Path
from typing import Any

import typer

from benchmarks.rows import copied
from benchmarks.runner import Benchmark, check_data
from benchmarks.study.cells import Cell, cells
from benchmarks.study.page import page
from benchmarks.study.rows import WORK, lay


def measure(cell: Cell, data: Path) -> tuple[dict[str, Any], str]:
    """Train one cell and judge it."""
    from benchmarks.study.train import trained

    work = copied(lay(cell.set, data), WORK / "cells" / cell.name)
    found = trained(cell)
    shutil.rmtree(work)
    return found, f"accuracy {found['accuracy']:.4f}, loss {found['loss']:.4f}, {found['seconds']:.0f} s"


def lay_all(wanted: list[Cell], data: Path) -> None:
    """The rows of all cells."""
    check_data(data / "sst2")
    for name in dict.fromkeys(one.set for one in wanted):
        lay(name, data)


STUDY = Benchmark(
    module="benchmarks.study",
    out=Path(__file__).with_name("README.md"),
    cells=cells,
    lay=lay_all,
    measure=measure,
    page=page,
)

if __name__ == "__main__":
    typer.run(STUDY.__call__)
