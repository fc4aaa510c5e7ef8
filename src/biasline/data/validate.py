"""The validate stage: raw file → clean splits, quarantine and report."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from biasline.data.columns import refuse_absent
from biasline.data.contract import Checked, check_examples, refuse_too_many, with_quarantined
from biasline.data.raw import FIXED_SPLIT
from biasline.data.report import quality_numbers, quality_page
from biasline.data.rules import LEAK, NEAR_DUPLICATE, own_rules
from biasline.data.sources import Examples, read_examples
from biasline.data.split import keys_of, refuse_empty, split_examples, without_near_duplicates
from biasline.data.tenants import refuse_alike, rows_of_others, tenant_notes, tenant_rules, tenant_section, tenant_table
from biasline.data.tombstones import Tombstones
from biasline.errors import BiaslineError
from biasline.jsonfile import dump_json
from biasline.kinds.learning import find_learning
from biasline.layout import SPLITS, TaskPlace, replacing, write_parquet, write_text
from biasline.params import Task

# What counts in reports for rows that were erased and have come back.
ERASED = "erased"


def data_sha256(data: Path) -> str:
    """sha256 of a file; of a folder, over the names and hashes of its files."""

    def of_file(path: Path) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    if not data.is_dir():
        return of_file(data)
    listed = [(path.relative_to(data).as_posix(), of_file(path)) for path in sorted(data.rglob("*")) if path.is_file()]
    return hashlib.sha256(json.dumps(listed).encode()).hexdigest()


@dataclass(frozen=True)
class Dealt:
    """A task's rows, read, checked and dealt to splits.

    Attributes:
        examples: as they were read.
        checked: which of them keep the contract; those taken out after the split are in quarantine too.
        splits: the rows that are left.
        notes: what a person should know.
    """

    examples: Examples
    checked: Checked
    splits: dict[str, pl.DataFrame]
    notes: list[str]


def deal(task: Task, erased: Path) -> Dealt:
    """Read a task's data, hold them against the contract and deal them to splits.

    Args:
        task: whose data.
        erased: its tombstones; rows that have one are left out before anything else sees them.

    Raises:
        BiaslineError: where they cannot be read, or break the contract beyond what params allow.
    """
    data, learning = Path(task.data), find_learning(task.kind)
    kind = learning.columns
    examples = read_examples(data, kind, task.source)
    refuse_absent(task, examples.frame)
    frame, notes = learning.prepared(examples.frame, task)
    notes = [*examples.notes, *notes]
    tenants = task.tenants.column
    if tenants:
        frame = frame.with_columns(pl.col(tenants).str.strip_chars())
    stones = Tombstones.read(erased)
    if stones.hashes:
        back = pl.Series([stones.has(key) for key in keys_of(frame, kind, tenants)], dtype=pl.Boolean)
        if count := int(back.sum()):
            frame = frame.filter(~back)
            examples.left_out[ERASED] = count
            notes.append(f"{count:,} rows were erased and have come back: left out; take them out of {data} again")
    own = own_rules(Path(task.quality.checks)) if task.quality.checks else []
    if tenants:
        own = [*own, *tenant_rules(tenants)]
    checked = check_examples(frame, task.kind, task.quality, task.source.labels, own, tenants)
    refuse_too_many(checked, task.quality)
    _refuse_lost_files(frame, checked.good)
    if tenants:
        refuse_alike(checked.good, tenants)
    dealt = split_examples(checked.good, kind, task.split, tenants)
    refuse_empty(dealt, task.split)
    splits, near = without_near_duplicates(
        dealt,
        kind,
        task.quality.near_duplicate,
        within=NEAR_DUPLICATE not in task.quality.off,
        across=LEAK not in task.quality.off,
        tenants=tenants,
    )
    checked = with_quarantined(checked, splits, near)
    refuse_too_many(checked, task.quality)
    refuse_empty(splits, task.split)
    notes += learning.look(splits, checked.good, frame, task)
    return Dealt(examples, checked, splits, notes)


def validate(task: Task, place: TaskPlace) -> str:
    """Run the stage; nothing is written unless all of it succeeds.

    Returns:
        one line that tells what happened.
    """
    data, learning, tenants = Path(task.data), find_learning(task.kind), task.tenants.column
    kind = learning.columns
    dealt = deal(task, place.erased)
    examples, checked, splits, notes = dealt.examples, dealt.checked, dealt.splits, dealt.notes
    table = tenant_table(splits, checked.quarantine, tenants) if tenants else None
    if table is not None:
        notes += tenant_notes(table, task.tenants.min_rows)
        if again := rows_of_others(splits, kind.prompt, tenants):
            notes.append(f"{again:,} rows ask word for word what another tenant's ask: counted, and kept")
    numbers = quality_numbers(checked, splits, data_sha256(data), examples.left_out)
    page = quality_page(data, learning, examples.taken, notes, numbers, checked, tenants)
    if table is not None:
        page += "\n".join(tenant_section(table))

    with replacing(place.clean) as draft:
        draft.mkdir()
        for name, part in {**splits, "quarantine": checked.quarantine}.items():
            write_parquet(part, draft / place.split(name).name)
        if table is not None:
            write_parquet(table, draft / place.tenants.name)
    write_text(place.quality, dump_json(numbers))
    write_text(place.quality_page, page)
    for note in notes:
        print(f"note: {note}")
    parts = ", ".join(f"{name} {count:,}" for name, count in numbers["splits"].items())
    guessed = ", ".join(f"{ours} from {theirs!r}" for ours, theirs in examples.taken.items() if ours != theirs)
    return (
        f"{numbers['rows']:,} rows: {parts}, quarantined {numbers['quarantined']:,}"
        + (f"; columns taken: {guessed}" if guessed else "")
        + f"; see {place.quality_page}"
    )


def _refuse_lost_files(frame: pl.DataFrame, good: pl.DataFrame) -> None:
    """`BiaslineError` where a file that fixes a split has no good row: rows of another would take its place unsaid."""
    for name in SPLITS:
        given = frame.filter(pl.col(FIXED_SPLIT) == name)
        if given.height and good.filter(pl.col(FIXED_SPLIT) == name).is_empty():
            raise BiaslineError(
                f"the {name} file has {given.height} rows and none keeps the contract",
                "mend it (a test file needs its labels or answers), or take it out of the folder",
            )
