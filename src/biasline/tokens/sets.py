"""The tokenize stage: clean splits → memory-mapped token sets and a preview that shows the mask."""

import gc
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from biasline.bases.limits import limits_of
from biasline.bases.pin import Pin, load_tokenizer, verified_folder, wants_token_types
from biasline.bases.tokenizer import Tokenizer
from biasline.data.clean import read_augmented, read_split
from biasline.errors import BiaslineError
from biasline.jsonfile import dump_json
from biasline.layout import SPLITS, TaskPlace, replacing, write_text
from biasline.params import Task
from biasline.progress import Progress, progress
from biasline.tokens.checks import (
    check_base_limits,
    check_token_ids,
    loss_warnings,
    prompt_room,
    template_notes,
    unknown_tokens,
)
from biasline.tokens.mask import Encoded, Encoder
from biasline.tokens.preview import PREVIEWED, preview
from biasline.tokens.saved import IGNORED, SUMMARY
from biasline.tokens.template import Turn, dialogues_of
from biasline.tokens.texts import TextEncoder, label_names, label_numbers, score_scale

_LISTED = 10
# Rows that are Python lists at one time: a million of them would not fit.
_CHUNK, _MOST_THREADS = 1_000, 8
# Ranges of lengths up to the longest that is allowed.
_RANGES = 32


@dataclass(frozen=True)
class _TokenSet:
    """One split in tokens.

    Attributes:
        table: `row`, `input_ids`, `labels` (per token, or one class number or score a row) and further inputs of the
            model.
        rejected: numbers of the rows that were left out.
        cut: of each row in the table, whether a text or question lost a part since it was too long.
        exchanges: of each row in the table, how many of its oldest exchanges it lost.
    """

    table: pa.Table
    rejected: list[int]
    cut: np.ndarray
    exchanges: np.ndarray

    @classmethod
    def joined(cls, parts: "Sequence[_TokenSet]") -> "_TokenSet":
        """Parts of one split, one behind the other."""
        return cls(
            pa.concat_tables([part.table for part in parts]),
            [row for part in parts for row in part.rejected],
            np.concatenate([part.cut for part in parts]),
            np.concatenate([part.exchanges for part in parts]),
        )

    def ids(self) -> np.ndarray:
        """The tokens of all rows, one behind the other."""
        parts = [chunk.flatten().to_numpy() for chunk in self.table["input_ids"].chunks]
        return np.concatenate([np.zeros(0, np.int32), *parts])

    def lengths(self) -> np.ndarray:
        """Tokens of each row."""
        return pc.list_value_length(self.table["input_ids"]).to_numpy()

    def supervised(self) -> np.ndarray:
        """Supervised tokens of each row of answers."""
        counts = [np.zeros(0, np.int64)]
        for labels in self.table["labels"].chunks:
            marked = np.concatenate([[0], np.cumsum(labels.values.to_numpy() != IGNORED)])
            offsets = labels.offsets.to_numpy()
            counts.append(marked[offsets[1:]] - marked[offsets[:-1]])
        return np.concatenate(counts)


# Some rows of a split → their token set.
_Encode = Callable[[str, pl.DataFrame], _TokenSet]


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
    notes: list[str] = []
    target: dict[str, Any]
    if task.kind == "classification":
        texts = TextEncoder(tokenizer, task.tokens.max_length, wants_token_types(folder))
        labels = label_names(task.source.labels, frames["train"]["label"].to_list())
        target, encode = {"labels": labels}, _of_labels(texts, labels)
    elif task.kind == "regression":
        texts = TextEncoder(tokenizer, task.tokens.max_length, wants_token_types(folder))
        target = {"score": score_scale(frames["train"]["score"].cast(pl.Float64).to_list())}
        encode = _of_scores(texts)
    else:
        target = {"template": task.tokens.template_name}
        encoder = Encoder.from_params(tokenizer, task.tokens)
        encode = _of_answers(encoder)
        notes += template_notes(encoder)
    with progress("tokenize", rows) as shown:
        sets = dict(_encoded(frames, encode, shown))
    if not _has_texts(task):
        # All of them will be asked, those whose answer is too long to train on too.
        room = prompt_room(task.tokens.max_length, task.evaluate.max_new_tokens, limits.positions)
        encoder.prompts(dialogues_of(frames["test"], answered=False), room, frames["test"]["row"].to_list())
    for name, found in sets.items():
        if found.rejected and not found.table.num_rows:
            raise BiaslineError(
                f"tokens.max_length {task.tokens.max_length}: no response of the {name} split fits",
                "raise it, or set tokens.long_response: truncate",
            )
        check_token_ids(name, found.ids(), limits, tokenizer, pin.name)

    summary = _summary(pin, task, target, sets, tokenizer)
    notes += [f"warning: {warning}" for warning in loss_warnings(task, summary["splits"])]
    train = sets["train"]
    supervised = None if _has_texts(task) else train.supervised()
    shown = train.table.slice(0, PREVIEWED).to_pylist()
    beside = _beside_parents(augmented, frames["train"])
    page = preview(tokenizer, summary, notes, shown, train.lengths(), supervised, beside)
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
    return f"{counts}{_losses(sets.values())}; {_in_short(target, summary)}; see {place.preview}"


def _losses(sets: Collection[_TokenSet]) -> str:
    """What rows lost, as a part of a sentence."""
    lost = {
        "{:,} rows left out (response over max_length)": sum(len(found.rejected) for found in sets),
        "{:,} rows cut to max_length": sum(int(found.cut.sum()) for found in sets),
        "{:,} dialogues without their oldest exchanges": sum(int((found.exchanges > 0).sum()) for found in sets),
    }
    return "".join(f", {what.format(count)}" for what, count in lost.items() if count)


def _in_short(target: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """What rows are to give."""
    if "labels" in target:
        return f"{len(target['labels'])} labels: {', '.join(target['labels'])}"
    if "score" in target:
        return f"scores of mean {target['score']['mean']:.4g} and standard deviation {target['score']['std']:.4g}"
    train = summary["splits"]["train"]
    return f"{train['supervised_tokens'] / train['tokens']:.0%} of the training tokens are supervised"


def answer_columns(encoder: Encoder, frame: pl.DataFrame) -> dict[str, list[Any]]:
    """`row`, `input_ids` and `labels` of the rows of a clean split that a template and a length leave."""
    return _of_answers(encoder)("", frame).table.to_pydict()


def _beside_parents(augmented: pl.DataFrame, train: pl.DataFrame) -> list[dict[str, Any]]:
    """Some augmented rows: `row`, `parent`, `method`, and what was changed as `old` and `new`."""
    found = []
    for row in augmented.head(PREVIEWED).iter_rows(named=True):
        parent = train.row(by_predicate=pl.col("row") == row["parent"], named=True)
        changed = [name for name in train.columns if name != "row" and row[name] != parent[name]]
        old, new = ("\n".join(source[name] for name in changed) for source in (parent, row))
        found.append({name: row[name] for name in ("row", "parent", "method")} | {"old": old, "new": new})
    return found


def _encoded(frames: Mapping[str, pl.DataFrame], encode: _Encode, shown: Progress) -> Iterator[tuple[str, _TokenSet]]:
    done = 0
    with _own_threads() as pool:
        for name, frame in frames.items():
            chunks = list(frame.iter_slices(_CHUNK)) or [frame]
            parts = []
            for part in pool.map(encode, [name] * len(chunks), chunks):
                parts.append(part)
                done += part.table.num_rows + len(part.rejected)
                shown.at(done)
            yield name, _TokenSet.joined(parts)


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


def _of_answers(encoder: Encoder) -> _Encode:
    def encode(_: str, frame: pl.DataFrame) -> _TokenSet:
        rows = frame["row"].to_numpy()
        encoded = _examples(encoder, dialogues_of(frame, answered=True), rows)
        offsets = pa.array(np.concatenate([[0], np.cumsum(encoded.lengths)]), pa.int32())
        columns = {
            "row": pa.array(rows[encoded.kept], pa.int32()),
            "input_ids": pa.ListArray.from_arrays(offsets, pa.array(encoded.input_ids)),
            "labels": pa.ListArray.from_arrays(offsets, pa.array(encoded.labels)),
        }
        kept = encoded.kept
        return _TokenSet(pa.table(columns), rows[~kept].tolist(), encoded.shortened[kept], encoded.exchanges[kept])

    return encode


def _examples(encoder: Encoder, dialogues: Sequence[Sequence[Turn]], rows: np.ndarray) -> Encoded:
    """The examples of dialogues; an error of the template names the rows that it refuses."""
    try:
        return encoder.examples(dialogues)
    except BiaslineError:
        refused: dict[str, list[int]] = {}
        for row, turns in zip(rows, dialogues, strict=True):
            try:
                encoder.template.cut(turns)
            except BiaslineError as error:
                refused.setdefault(str(error), []).append(int(row))
        if not refused:
            raise
    reason, numbers = max(refused.items(), key=lambda item: len(item[1]))
    listed = ", ".join(map(str, numbers[:_LISTED])) + (", …" if len(numbers) > _LISTED else "")
    raise BiaslineError(
        f"{len(numbers)} of {len(rows)} rows (row {listed}): {reason}",
        "leave them out (source.where), or take a template that knows such turns",
    )


def _has_texts(task: Task) -> bool:
    """Whether rows are texts with a label or a score, not answers in tokens."""
    return task.kind != "instruction"


def _of_labels(encoder: TextEncoder, labels: list[str]) -> _Encode:
    def encode(split: str, frame: pl.DataFrame) -> _TokenSet:
        numbers = label_numbers(labels, frame["label"].to_list(), frame["row"].to_list(), split)
        return _of_texts(encoder, frame, pa.array(numbers, pa.int32()))

    return encode


def _of_scores(encoder: TextEncoder) -> _Encode:
    def encode(_: str, frame: pl.DataFrame) -> _TokenSet:
        return _of_texts(encoder, frame, frame["score"].cast(pl.Float32).to_arrow())

    return encode


def _of_texts(encoder: TextEncoder, frame: pl.DataFrame, targets: pa.Array) -> _TokenSet:
    inputs, cut = encoder.texts_and_cuts(frame["text"].to_list(), frame["text_pair"].to_list())
    columns = {
        "row": pa.array(frame["row"].to_list(), pa.int32()),
        **{name: pa.array([row[name] for row in inputs], pa.list_(pa.int32())) for name in encoder.inputs},
        "labels": targets,
    }
    return _TokenSet(pa.table(columns), [], np.array(cut, bool), np.zeros(len(cut), np.int64))


def _save(folder: Path, table: pa.Table) -> None:
    import datasets

    datasets.disable_progress_bars()
    datasets.Dataset(datasets.table.InMemoryTable(table)).save_to_disk(str(folder))


def _summary(
    pin: Pin, task: Task, target: Mapping[str, Any], sets: Mapping[str, _TokenSet], tokenizer: Tokenizer
) -> dict[str, Any]:
    splits = {}
    for name, found in sets.items():
        lost, rows = np.unique(found.exchanges[found.exchanges > 0], return_counts=True)
        splits[name] = {
            "rows": found.table.num_rows,
            "rejected_rows": found.rejected,
            "cut_rows": int(found.cut.sum()),
            **(
                {}
                if _has_texts(task)
                else {"rows_by_lost_exchanges": dict(zip(map(str, lost), rows.tolist(), strict=True))}
            ),
            "unknown_tokens": unknown_tokens(tokenizer, found.ids()),
            **_sizes("", found.lengths()),
            **({} if _has_texts(task) else _sizes("supervised_", found.supervised())),
        }
    summary = {"base": pin.name, "tokenizer_sha256": pin.tokenizer_sha256, "max_length": task.tokens.max_length}
    # A choice of rows is part of what a model was made from, even where it happens to leave none out.
    where = {"where": task.source.where} if task.source.where else {}
    return {**summary, **where, **target, "splits": splits}


def _length_table(sets: Mapping[str, _TokenSet], longest: int) -> pl.DataFrame:
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
