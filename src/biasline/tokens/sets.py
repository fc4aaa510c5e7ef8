"""The tokenize stage: clean splits → memory-mapped token sets and a preview that shows the mask."""

import gc
import os
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from biasline.bases.limits import limits_of
from biasline.bases.pin import Pin, load_tokenizer, verified_folder
from biasline.bases.tokenizer import Tokenizer
from biasline.data.clean import read_augmented, read_split
from biasline.errors import BiaslineError
from biasline.jsonfile import dump_json
from biasline.kinds.learning import find_learning
from biasline.kinds.protocols import Learning
from biasline.layout import SPLITS, TaskPlace, replacing, write_text
from biasline.params import Task
from biasline.progress import Progress, progress
from biasline.tokens.checks import check_base_limits, check_token_ids, loss_warnings, unknown_tokens
from biasline.tokens.encoding import Encode, Encoding, TokenSet
from biasline.tokens.preview import PREVIEWED, preview
from biasline.tokens.saved import SUMMARY

# Rows that are Python lists at one time: a million of them would not fit.
_CHUNK, _MOST_THREADS = 1_000, 8
# Ranges of lengths up to the longest that is allowed.
_RANGES = 32


def tokenize(task: Task, place: TaskPlace) -> str:
    """Run the stage; nothing is written unless all of it succeeds.

    Raises:
        BiaslineError: a split keeps no row, its labels are not those of training, or the base cannot read its tokens.
    """
    pin, folder = verified_folder(Path(task.base))
    limits = limits_of(folder)
    check_base_limits(task, limits, pin.name)
    tokenizer = load_tokenizer(pin, folder)
    frames = {name: read_split(place, name) for name in SPLITS}
    augmented = read_augmented(place)
    frames["train"] = pl.concat([frames["train"], augmented.select(frames["train"].columns)])
    rows = sum(frame.height for frame in frames.values())
    learning = find_learning(task.kind)
    encoding = learning.encoding(task, tokenizer, folder, frames["train"])
    with progress("tokenize", rows) as shown:
        sets = dict(_encoded(frames, encoding.encode, shown))
    encoding.check(frames)
    for name, found in sets.items():
        if found.rejected and not found.table.num_rows:
            raise BiaslineError(
                f"tokens.max_length {task.tokens.max_length}: no response of the {name} split fits",
                "raise it, or set tokens.long_response: truncate",
            )
        check_token_ids(name, found.ids(), limits, tokenizer, pin.name)

    summary = _summary(pin, task, learning, encoding, sets, tokenizer)
    if column := task.tenants.column:
        names = sorted(set().union(*(frame[column].to_list() for frame in frames.values())))
        sets = {
            name: replace(found, table=_owned(found.table, frames[name], column, names)) for name, found in sets.items()
        }
        summary["tenants"] = names
    notes = [*encoding.notes, *(f"warning: {warning}" for warning in loss_warnings(task, summary["splits"]))]
    train = sets["train"]
    supervised = train.supervised() if encoding.per_token else None
    shown = train.table.slice(0, PREVIEWED).to_pylist()
    beside = _beside_parents(augmented, frames["train"])
    page = preview(encoding, summary, notes, shown, train.lengths(), supervised, beside)
    with replacing(place.tokens) as draft:
        draft.mkdir()
        for name, found in sets.items():
            _save(draft / name, found.table)
        (draft / SUMMARY).write_text(dump_json(summary), encoding="utf-8")
    write_text(place.preview, page)
    write_text(place.lengths, _length_table(sets, task.tokens.max_length).write_csv(float_precision=6))
    for note in notes:
        print(note if note.startswith("warning: ") else f"note: {note}")
    counts = ", ".join(f"{name} {numbers['rows']:,}" for name, numbers in summary["splits"].items())
    return f"{counts}{_losses(sets.values())}; {learning.answers_told(summary)}; see {place.preview}"


def _owned(table: pa.Table, frame: pl.DataFrame, column: str, names: list[str]) -> pa.Table:
    """A token set with `tenant`: whose each row is, as a place in the list of names."""
    place = {name: number for number, name in enumerate(names)}
    owner = {row: place[name] for row, name in frame.select("row", column).iter_rows()}
    return table.append_column("tenant", pa.array([owner[row] for row in table["row"].to_pylist()], pa.int32()))


def _losses(sets: Collection[TokenSet]) -> str:
    """What rows lost, as a part of a sentence."""
    lost = {
        "{:,} rows left out (answer over max_length, or without a token)": sum(len(found.rejected) for found in sets),
        "{:,} rows cut to max_length": sum(int(found.cut.sum()) for found in sets),
        "{:,} dialogues without their oldest exchanges": sum(int((found.exchanges > 0).sum()) for found in sets),
    }
    for what in next(iter(sets)).counts:
        lost[f"{{:,}} {what.replace('_', ' ')}"] = sum(int(found.counts[what].sum()) for found in sets)
    return "".join(f", {what.format(count)}" for what, count in lost.items() if count)


def _beside_parents(augmented: pl.DataFrame, train: pl.DataFrame) -> list[dict[str, Any]]:
    """Some augmented rows: `row`, `parent`, `method`, and what was changed as `old` and `new`."""
    found = []
    for row in augmented.head(PREVIEWED).iter_rows(named=True):
        parent = train.row(by_predicate=pl.col("row") == row["parent"], named=True)
        changed = [name for name in train.columns if name != "row" and row[name] != parent[name]]
        old, new = ("\n".join(source[name] for name in changed) for source in (parent, row))
        found.append({name: row[name] for name in ("row", "parent", "method")} | {"old": old, "new": new})
    return found


def _encoded(frames: Mapping[str, pl.DataFrame], encode: Encode, shown: Progress) -> Iterator[tuple[str, TokenSet]]:
    done = 0
    with _own_threads() as pool:
        for name, frame in frames.items():
            chunks = list(frame.iter_slices(_CHUNK)) or [frame]
            parts = []
            for part in pool.map(encode, [name] * len(chunks), chunks):
                parts.append(part)
                done += part.table.num_rows + len(part.rejected)
                shown.at(done)
            yield name, TokenSet.joined(parts)


@contextmanager
def _own_threads() -> Iterator[ThreadPoolExecutor]:
    """A thread for each core, each with a chunk of its own.

    The tokenizer's own threads would share one chunk, and all but one wait while its tokens are put together. Python's
    search for cycles, of which rows have none, would look through every token again and again.
    """
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    gc.disable()
    try:
        with ThreadPoolExecutor(min(os.cpu_count() or 1, _MOST_THREADS)) as pool:
            yield pool
    finally:
        gc.enable()
        del os.environ["TOKENIZERS_PARALLELISM"]
        os.environ |= {"TOKENIZERS_PARALLELISM": before} if before else {}


def _save(folder: Path, table: pa.Table) -> None:
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset(datasets.table.InMemoryTable(table)).save_to_disk(str(folder))


def _summary(
    pin: Pin,
    task: Task,
    learning: Learning,
    encoding: Encoding,
    sets: Mapping[str, TokenSet],
    tokenizer: Tokenizer,
) -> dict[str, Any]:
    splits = {}
    for name, found in sets.items():
        lost, rows = np.unique(found.exchanges[found.exchanges > 0], return_counts=True)
        exchanges = {"rows_by_lost_exchanges": dict(zip(map(str, lost), rows.tolist(), strict=True))}
        splits[name] = {
            "rows": found.table.num_rows,
            "rejected_rows": found.rejected,
            "cut_rows": int(found.cut.sum()),
            **(exchanges if learning.columns.context else {}),
            **{what: int(counts.sum()) for what, counts in found.counts.items()},
            "unknown_tokens": unknown_tokens(tokenizer, found.ids()),
            **_sizes("", found.lengths()),
            **(_sizes("supervised_", found.supervised()) if encoding.per_token else {}),
        }
    summary = {"base": pin.name, "tokenizer_sha256": pin.tokenizer_sha256, "max_length": task.tokens.max_length}
    # A choice of rows is part of what a model was made from, even where it happens to leave none out.
    where = {"where": task.source.where} if task.source.where else {}
    return {**summary, **where, **encoding.target, "splits": splits}


def _length_table(sets: Mapping[str, TokenSet], longest: int) -> pl.DataFrame:
    """How rows spread over lengths: `tokens`, the upper end of a range, and per split the share of its rows in it."""
    # Of whole tokens, and all of the same width.
    width = -(-longest // _RANGES)
    ends = width * np.arange(_RANGES + 1)
    counts = {name: np.histogram(found.lengths(), bins=ends + 0.5)[0] for name, found in sets.items()}
    shares = {name: found / max(found.sum(), 1) for name, found in counts.items()}
    table = pl.DataFrame({"tokens": ends[1:], **shares})
    used = max((int(found.nonzero()[0].max()) + 1 for found in counts.values() if found.any()), default=1)
    return table.head(used)


def _sizes(prefix: str, lengths: np.ndarray) -> dict[str, int]:
    shortest, median, longest = np.quantile(lengths, [0, 0.5, 1], method="lower") if len(lengths) else (0, 0, 0)
    found = {"tokens": lengths.sum(), "shortest": shortest, "median": median, "longest": longest}
    return {prefix + name: int(value) for name, value in found.items()}
