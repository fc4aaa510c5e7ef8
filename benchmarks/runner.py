"""Cells of a benchmark, each in a process of its own."""

import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run_cells(module: str, names: Iterable[str], workers: int) -> Iterator[str]:
    """Run cells, so many at a time; what each said last, or the end of what it said if it failed.

    Args:
        module: of the benchmark, which runs one with `--cell NAME`.
        names: of the cells.
        workers: cells at a time, each on one core.
    """

    def run(name: str) -> str:
        command = [sys.executable, "-m", module, "--cell", name]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if ended.returncode:
            return f"{name}: failed: {ended.stderr.strip()[-500:]}"
        return ended.stdout.strip().splitlines()[-1]

    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(run, names)
