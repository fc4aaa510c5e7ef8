"""Where each thing of a task lies, and the two roots. No other module spells a path.

Two roots, because a queued experiment runs in a temporary checkout that is deleted afterwards:

- the *workspace* (the current folder) holds inputs and outs;
- the *home* (`DVC_ROOT`, which DVC sets to the main checkout) holds what outlives a run: the MLflow store,
  checkpoints, records of finished runs and the ledger.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from biasline.errors import BiaslineError, full_disk_is_told

if TYPE_CHECKING:
    import polars as pl

PARAMS = Path("params.yaml")
SPLITS = ("train", "valid", "test")
# What a method that trains biases or a head writes below a task's `model/`.
DELTA_FILE = "delta.safetensors"
# The deltas of a fleet's tenants in one file, as a run and a package have them.
OWN_PACKED = "tenants.zip"


def home() -> Path:
    """The main checkout: `DVC_ROOT` where DVC runs us, else the folder above us that holds `dvc.yaml`.

    Returns:
        an absolute path.

    Raises:
        BiaslineError: where the current folder lies in no Biasline project.
    """
    if root := os.environ.get("DVC_ROOT"):
        return Path(root).resolve()
    here = Path.cwd().resolve()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file() and (folder / PARAMS).is_file():
            return folder
    raise BiaslineError(
        f"{here}: not inside a Biasline project (no dvc.yaml and params.yaml here or above)",
        "change into the project's folder",
    )


def in_project() -> bool:
    """Whether there is a home: a server reads its registry from any folder."""
    try:
        home()
    except BiaslineError:
        return False
    return True


def local_state() -> Path:
    """`.biasline/` of the home: checkpoints, records and locks; never in git."""
    return home() / ".biasline"


def record_folder(task: str, fingerprint: str) -> Path:
    """Local copy of a finished run's small outs, from which `biasline sync` rebuilds a lost store."""
    return local_state() / "records" / task / fingerprint


def checkpoints() -> Path:
    """Holds each training's checkpoints in a folder named by its fingerprint; they outlive an experiment's checkout."""
    return local_state() / "checkpoints"


def own_trainings(task: str) -> Path:
    """Holds the finished trainings of a fleet's tenants, each in files named by what it was made of."""
    return local_state() / "tenants" / task


@dataclass(frozen=True)
class TaskPlace:
    """The files of one task, relative to the workspace unless said otherwise.

    Attributes:
        task: its name.
        at: a folder that is laid out as the task's own, such as a record's files; None for the task's own.
    """

    task: str
    at: Path | None = None

    @property
    def folder(self) -> Path:
        """data/<task>: the task's own folder."""
        return self.at or Path("data") / self.task

    @property
    def resolved(self) -> Path:
        """task.json: the task with every default merged."""
        return self.folder / "task.json"

    @property
    def clean(self) -> Path:
        """A folder: the splits and the quarantine."""
        return self.folder / "clean"

    def split(self, name: str) -> Path:
        """One of `SPLITS`, or `quarantine`, as Parquet."""
        return self.clean / f"{name}.parquet"

    @property
    def tenants(self) -> Path:
        """tenants.parquet in `clean`, of a fleet: how many rows each tenant has."""
        return self.clean / "tenants.parquet"

    @property
    def quality(self) -> Path:
        """quality.json: counts of the contract, as metrics."""
        return self.folder / "quality.json"

    @property
    def quality_page(self) -> Path:
        """quality.md: the same for a reader, with rows."""
        return self.folder / "quality.md"

    @property
    def augmented(self) -> Path:
        """augmented.parquet: further training rows; of no rows by default."""
        return self.folder / "augmented.parquet"

    @property
    def tokens(self) -> Path:
        """A folder: the token sets and their summary."""
        return self.folder / "tokens"

    @property
    def preview(self) -> Path:
        """preview.md: training rows as the model sees them."""
        return self.folder / "preview.md"

    @property
    def lengths(self) -> Path:
        """lengths.csv: how long the rows of each split are, in tokens."""
        return self.folder / "lengths.csv"

    @property
    def model(self) -> Path:
        """A folder: what was trained, and its report."""
        return self.folder / "model"

    @property
    def delta(self) -> Path:
        """What was trained, where it is biases or a head."""
        return self.model / DELTA_FILE

    @property
    def train_report(self) -> Path:
        """train.json: what was trained, and how it went."""
        return self.model / "train.json"

    @property
    def own(self) -> Path:
        """A folder, of a fleet: the deltas of its tenants, see `biasline.bitfit.Deltas`."""
        return self.model / "tenants"

    @property
    def own_report(self) -> Path:
        """tenants.parquet in `model`, of a fleet: how each tenant's training went, and what serves it."""
        return self.model / "tenants.parquet"

    @property
    def history(self) -> Path:
        """history.csv: the logged steps, as plots."""
        return self.folder / "history.csv"

    @property
    def evaluation(self) -> Path:
        """A folder: what the model is worth."""
        return self.folder / "evaluation"

    @property
    def metrics(self) -> Path:
        """metrics.json: of base and tuned model, with intervals."""
        return self.evaluation / "metrics.json"

    @property
    def predictions(self) -> Path:
        """Both models' answers and scores, row by row."""
        return self.evaluation / "predictions.parquet"

    @property
    def slices(self) -> Path:
        """slices.csv: the metric per value of each slice column."""
        return self.evaluation / "slices.csv"

    @property
    def bias_change(self) -> Path:
        """bias_change.csv: how far training moved the biases, by layer and role."""
        return self.evaluation / "bias_change.csv"

    @property
    def confusion(self) -> Path:
        """A folder: DVC gives all plots in it one template; empty where nothing is classified."""
        return self.evaluation / "confusion"

    @property
    def samples(self) -> Path:
        """samples.md: test rows with both models' answers."""
        return self.evaluation / "samples.md"

    @property
    def by_tenant(self) -> Path:
        """A folder, of a fleet: each tenant's test rows as a table and as a page; empty where there are no tenants."""
        return self.evaluation / "tenants"

    @property
    def card(self) -> Path:
        """card.md: the model card."""
        return self.evaluation / "card.md"

    @property
    def registered(self) -> Path:
        """registered.json: name, fingerprint and delta hash of the registered model; not in git."""
        return self.folder / "registered.json"

    @property
    def erased(self) -> Path:
        """erased.txt of the home: hashes of rows that must not come back; like the ledger in git."""
        return (home() if in_project() else Path()) / TaskPlace(self.task).folder / "erased.txt"

    @property
    def ledger(self) -> Path:
        """promotions.jsonl, absolute: a decision belongs to the main checkout."""
        return home() / TaskPlace(self.task).folder / "promotions.jsonl"

    @property
    def signatures(self) -> Path:
        """A folder, absolute, beside the ledger and in git as it is: the signatures of registered versions."""
        return self.ledger.with_name("signatures")


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Write a file or folder whole or not at all.

    Yields a path beside `target` to write to; it takes the target's place when the block ends well and is
    removed when it fails, so that a crash never leaves half an out.
    """
    import shutil

    with full_disk_is_told(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
        draft = scratch / target.name
        try:
            yield draft
            if target.is_dir():
                target.rename(scratch / "replaced")
            draft.replace(target)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def readable_as(one: Path, others: Iterable[Path]) -> None:
    """Let whoever may read a file read others; safetensors lets its owner alone."""
    for path in others:
        path.chmod(one.stat().st_mode & 0o777)


def write_text(target: Path, text: str) -> None:
    r"""Write UTF-8 text with `\n` line ends, whole or not at all."""
    with replacing(target) as draft:
        draft.write_text(text, encoding="utf-8", newline="\n")


def write_parquet(frame: "pl.DataFrame", path: Path) -> None:
    """Write a frame as Parquet; what the system refuses is an `OSError`, which Polars itself tells in many ways."""
    written = BytesIO()
    frame.write_parquet(written)
    path.write_bytes(written.getbuffer())
