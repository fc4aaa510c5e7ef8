"""Which choice of biases, rates and steps trains best: one factor changed at a time, on a real BERT and real tasks.

`python -m benchmarks.study` trains what benchmarks/study/cells/ lacks, cell by cell (a cell is a data set, a change and
a seed, and one JSON there), and writes benchmarks/study/README.md. Stopped and started again it goes on. `--only
sst2-6000` takes the cells whose names begin so, `--table` writes the table of what there is.

Needs the data in ../shared (or --data) and the base: `make minilm`. What judges are rows of the training file that no
cell trains on: dev files are for benchmarks.classification, which measures what was chosen here.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.runner import run_cells
from benchmarks.study.cells import CELLS, Cell, cells
from benchmarks.study.page import page
from benchmarks.study.rows import ROOT, lay

SHARED = ROOT.parent / "shared/data"
PAGE = Path(__file__).with_name("README.md")


def main(
    data: Annotated[Path, typer.Option(help="a folder with sst2/, glue/ and banking77/")] = SHARED,
    workers: Annotated[int, typer.Option(help="cells at a time, each on one core")] = os.cpu_count() or 1,
    only: Annotated[str, typer.Option(help="cells whose names begin so")] = "",
    table: Annotated[bool, typer.Option("--table", help="only write the table of what there is")] = False,
    cell: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    if cell:
        run(next(one for one in cells() if one.name == cell))
        return
    wanted = [one for one in cells() if one.name.startswith(only) and not one.path.is_file() and not table]
    for one in {one.set: one for one in wanted}.values():
        lay(one.set, data)
    for told in run_cells("benchmarks.study", [one.name for one in wanted], workers):
        print(told, flush=True)
    PAGE.write_text(page(), encoding="utf-8")
    missing = [one.name for one in cells() if not one.path.is_file()]
    print(f"{PAGE.relative_to(ROOT)}: {len(missing)} cells are missing" + (f", {missing[0]} first" if missing else ""))


def run(cell: Cell) -> None:
    """Train one cell, judge it and write its JSON."""
    from benchmarks.study.train import trained

    folder = lay(cell.set, SHARED)
    work = folder.parent.parent / "cells" / cell.name
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(folder, work)
    os.chdir(work)
    found = trained(cell)
    CELLS.mkdir(exist_ok=True)
    cell.path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(work)
    print(f"{cell.name}: accuracy {found['accuracy']:.4f}, loss {found['loss']:.4f}, {found['seconds']:.0f} s")


if __name__ == "__main__":
    typer.run(main)
