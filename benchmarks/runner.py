"""A benchmark of cells: each a training in a process of its own and one JSON, so that it can be stopped and goes on."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Protocol, TypeVar

import typer

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared/data"


class Cell(Protocol):
    """One thing to measure."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def path(self) -> Path:
        """The JSON of what it found."""


CellT = TypeVar("CellT", bound=Cell)


def check_data(path: Path) -> None:
    """Refuse to begin without the data sets."""
    if not path.exists():
        raise SystemExit(f"{path}: not there → name the folder of the data sets with --data")


def found(cell: Cell) -> dict[str, Any]:
    """What a cell found."""
    return json.loads(cell.path.read_text(encoding="utf-8"))


@dataclass(frozen=True, kw_only=True)
class Benchmark(Generic[CellT]):
    """Cells, what measures one, and the page of all.

    Attributes:
        module: what is run: `python -m MODULE`.
        out: the page.
        cells: every cell, those first that say most.
        lay: makes what the cells that are to be measured share, from the folder of the data sets.
        measure: what a cell finds, given the folder of the data sets, and the line that tells it.
        page: the page's text.
        done: whether a cell is there.
    """

    module: str
    out: Path
    cells: Callable[[], Iterable[CellT]]
    measure: Callable[[CellT, Path], tuple[dict[str, Any], str]]
    page: Callable[[], str]
    lay: Callable[[list[CellT], Path], None] = lambda cells, data: None
    done: Callable[[CellT], bool] = lambda cell: cell.path.is_file()

    def __call__(
        self,
        data: Annotated[Path, typer.Option(help="the folder of the data sets")] = SHARED,
        workers: Annotated[int, typer.Option(help="cells at a time, each on one core")] = os.cpu_count() or 1,
        only: Annotated[str, typer.Option(help="cells whose names begin so")] = "",
        table: Annotated[bool, typer.Option("--table", help="only write the table of what there is")] = False,
        cell: Annotated[str, typer.Option(hidden=True)] = "",
    ) -> None:
        """Measure what is missing, and write the page."""
        data = data.resolve()
        if cell:
            self.run(next(one for one in self.cells() if one.name == cell), data)
            return
        wanted = [one for one in self.cells() if one.name.startswith(only) and not self.done(one) and not table]
        if wanted:
            self.lay(wanted, data)
        for told in _run_each(self.module, [one.name for one in wanted], data, workers):
            print(told, flush=True)
        self.out.write_text(self.page(), encoding="utf-8")
        missing = [one.name for one in self.cells() if not self.done(one)]
        first = f", {missing[0]} first" if missing else ""
        print(f"{self.out.relative_to(ROOT)}: {len(missing)} cells are missing{first}")
        if not table and any(name.startswith(only) for name in missing):
            raise SystemExit(1)

    def run(self, cell: CellT, data: Path) -> None:
        """Measure one cell and write its JSON."""
        told, line = self.measure(cell, data)
        cell.path.parent.mkdir(exist_ok=True)
        draft = cell.path.with_suffix(".draft")
        draft.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        draft.rename(cell.path)
        print(f"{cell.name}: {line}")


def _run_each(module: str, names: Iterable[str], data: Path, workers: int) -> Iterator[str]:
    """Run cells, so many at a time; what each said last, or the end of what it said if it failed."""

    def run(name: str) -> str:
        command = [sys.executable, "-m", module, "--data", str(data), "--cell", name]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if ended.returncode:
            return f"{name}: failed: {ended.stderr.strip()[-500:]}"
        return ended.stdout.strip().splitlines()[-1]

    with ThreadPoolExecutor(workers) as pool:
        yield from pool.map(run, names)
