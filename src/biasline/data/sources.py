"""Records of any file brought to one shape.

The result is one frame with `row` (1-based number of the record in the file), the columns of the kind, and every
further column as metadata. Values that are no text are kept as their JSON, so that the contract can refuse them by
row instead of the reader refusing the file.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl

from biasline.data.files import Record, raw_files
from biasline.data.guesses import doubts, guessed_columns, way_out
from biasline.data.headers import Headers
from biasline.data.kinds import DIALOGUES, ROLES, Kind, turn_of
from biasline.errors import BiaslineError, shown
from biasline.glue import GLUE
from biasline.params import Source

# A Boolean companion of each of our columns: whether the file had something else than text there.
NOT_TEXT_SUFFIX = "__not_text"
# Where the names of files fix the split of their rows: `train`, `valid`, `test`, or null.
FIXED_SPLIT = "fixed_split"
# Columns that validation and evaluation add.
RESERVED = frozenset(
    {"row", "reasons", "file", FIXED_SPLIT, "base", "tuned", "base_exact", "tuned_exact", "base_error", "tuned_error"}
    | {"probability", "parent", "method", "length", "tokens", "base_nll", "tuned_nll", "base_hits", "tuned_hits"}
)


# Rows that are Python objects at one time: a million of them would not fit.
_CHUNK = 20_000
_RAW = "raw."
# What a column of whole dialogues is taken for, and what it is called in `source.columns`.
DIALOGUE, MESSAGES = "dialogue", "messages"
# What was said before an instruction: rounds of [question, answer], or turns of {role, content}.
HISTORY = "history"


@dataclass(frozen=True)
class Examples:
    """What a task's data hold, in one shape.

    Attributes:
        frame: `row` (1-based number of the record), the kind's columns as text, each with a Boolean companion
            `<name>__not_text`, then the metadata columns as text; at last `file`, where there are several, and
            `FIXED_SPLIT`.
        taken: our column → the file's column.
        notes: what was guessed and should be said.
    """

    frame: pl.DataFrame
    taken: dict[str, str]
    notes: tuple[str, ...]


def read_examples(data: Path, kind: Kind, source: Source) -> Examples:
    """Read a file or a folder of files (see `files.raw_files`) into one frame.

    Args:
        data: the file or folder.
        kind: which columns are ours.
        source: names of columns, and whether there is a header, where the guess would fail.

    Errors: `BiaslineError` for data that are missing, empty or broken (with the place), and for columns that are
    absent.
    """
    preset = GLUE.get(source.preset)
    if preset is not None:
        kind = replace(kind, aliases=preset.columns)
    headers = Headers(kind, source)
    chunks: list[pl.DataFrame] = []
    found = raw_files(data)
    row = 0
    for file in found.files:
        for records in _batched(file.records(headers)):
            chunk = _chunk(file.path, records)
            extra = [pl.int_range(row + 1, row + chunk.height + 1, dtype=pl.Int64).alias("row")]
            extra += [pl.lit(file.name).alias("file")] if len(found.files) > 1 else []
            extra += [pl.lit(file.split, pl.String).alias(FIXED_SPLIT)]
            chunks.append(chunk.select(pl.all().name.prefix(_RAW)).with_columns(extra))
            row += chunk.height
    if not row:
        raise BiaslineError(f"{shown(data)}: no rows in it", "a task needs at least a few hundred examples")
    raw = pl.concat(chunks, how="diagonal", rechunk=True)
    del chunks
    names = [name.removeprefix(_RAW) for name in raw.columns if name.startswith(_RAW)]
    names = [name for name in names if not name.endswith(NOT_TEXT_SUFFIX)]
    taken, notes = _take_columns(data, raw, names, kind, source)
    if DIALOGUE in taken:
        raw = _unrolled(raw, taken[DIALOGUE], kind.answered)
    elif HISTORY in taken:
        said = [_before(text) for text in raw[_RAW + taken[HISTORY]].to_list()]
        raw = raw.with_columns(
            pl.Series(_RAW + taken[HISTORY], said, dtype=pl.String),
            pl.lit(False).alias(_RAW + taken[HISTORY] + NOT_TEXT_SUFFIX),
        )

    columns = [pl.col("row")]
    for ours in kind.columns:
        if DIALOGUE in taken:
            columns += [pl.col(ours), pl.lit(False).alias(ours + NOT_TEXT_SUFFIX)]
            continue
        theirs = taken.get(ours)
        text = pl.col(_RAW + theirs) if theirs else pl.lit("", pl.String)
        flag = pl.col(_RAW + theirs + NOT_TEXT_SUFFIX).fill_null(False) if theirs else pl.lit(False)
        columns += [text.alias(ours), flag.alias(ours + NOT_TEXT_SUFFIX)]
    further = [name for name in names if name not in taken.values()]
    called = {name: metadata_name(name, kind) for name in further}
    for name in further:  # `row` becomes `meta_row`, and there may be one already
        while called[name] != name and called[name] in names:
            called[name] += "_"
    columns += [pl.col(_RAW + name).alias(called[name]) for name in further]
    columns += [pl.col(name) for name in ("file", FIXED_SPLIT) if name in raw.columns]
    frame = raw.select(columns)
    if preset is not None and preset.labels and kind.answered:
        numbers = {str(number): name for number, name in enumerate(preset.labels)}
        frame = frame.with_columns(pl.col("label").str.strip_chars().replace(numbers))
    return Examples(frame, taken, (*found.notes, *headers.notes, *notes))


def read_asked(path: Path, kind: Kind, source: Source) -> list[dict[str, str]]:
    """Rows that a model is to be asked: of a `.txt` each line, else the columns of the kind but for the answer.

    A dialogue that ends with the user is asked for what comes next; empty lines of a CSV are none of its rows.

    Errors: as `read_examples`; `BiaslineError` naming the first row without its text.
    """
    first = kind.prompt[0]
    if not path.is_file():
        raise BiaslineError(f"{shown(path)}: no such file", "name a file of rows, or ask a text")
    if path.suffix == ".txt":
        try:
            lines = path.read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise BiaslineError(f"{shown(path)}: cannot be read: {error}", "a UTF-8 text file was expected") from None
        rows = [{first: line} for line in lines]
    else:
        columns = {ours: theirs for ours, theirs in source.columns.items() if ours != kind.answer}
        asked = source.model_copy(update={"columns": columns})
        frame = read_examples(path, replace(kind, answered=False), asked).frame
        rows = frame.select(pl.col(kind.given).fill_null("")).to_dicts()
    for number, row in enumerate(rows, 1):
        if not row[first].strip():
            raise BiaslineError(f"{shown(path)}: row {number} has no {first}", "answers stand beside rows: take it out")
    return rows


def _batched(records: Iterator[Record]) -> Iterator[list[Record]]:
    while batch := list(islice(records, _CHUNK)):
        yield batch


def _chunk(path: Path, records: Sequence[Record]) -> pl.DataFrame:
    """Records as text columns, each with its companion."""
    names = dict.fromkeys(name for record in records for name in record)
    if clash := [name for name in names if name.endswith(NOT_TEXT_SUFFIX)]:
        raise BiaslineError(
            f"{shown(path)}: a column is called {clash[0]!r}", f"names ending in {NOT_TEXT_SUFFIX} are ours"
        )
    data: dict[str, list[Any]] = {}
    for name in names:
        values = [record.get(name) for record in records]
        data[name] = [_as_text(value) for value in values]
        data[name + NOT_TEXT_SUFFIX] = [value is not None and not isinstance(value, str) for value in values]
    schema = {name: pl.Boolean if name.endswith(NOT_TEXT_SUFFIX) else pl.String for name in data}
    try:
        return pl.DataFrame(data, schema=schema)
    except UnicodeEncodeError as error:
        raise BiaslineError(
            f"{shown(path)}: half a surrogate pair (\\u{ord(error.object[error.start]):04x}) in a text", "mend that row"
        ) from None


def metadata_name(name: str, kind: Kind) -> str:
    """What a further column of a file is called in ours: its own name, unless later stages use that themselves."""
    taken = name in RESERVED or name in kind.columns or name.endswith(NOT_TEXT_SUFFIX)
    return f"meta_{name}" if taken else name


def _take_columns(
    data: Path, raw: pl.DataFrame, names: list[str], kind: Kind, source: Source
) -> tuple[dict[str, str], list[str]]:
    """Which file column is which of ours, and what was guessed."""
    known = (*kind.aliases, *((MESSAGES, HISTORY) if kind.context else ()))
    for ours, theirs in source.columns.items():
        if ours not in known:
            raise BiaslineError(
                f"source.columns: {ours!r} is none of our columns; expected {', '.join(known)}",
                "write it as `our column: the file's column`",
            )
        if theirs not in names:
            raise BiaslineError(
                f"{shown(data)}: no column {theirs!r} (source.columns.{ours}); it has: {', '.join(names)}",
                "mend source.columns in params.yaml",
            )
    taken = dict(source.columns)
    if MESSAGES in taken:
        return {DIALOGUE: taken[MESSAGES]}, []
    rolls = [name for name in names if name.strip().lower() in DIALOGUES]
    if kind.context and rolls and not taken and not {"instruction", "output"} & {name.lower() for name in names}:
        return {DIALOGUE: rolls[0]}, []
    lowered = {name.strip().lower(): name for name in reversed(names)}
    for ours, aliases in kind.aliases.items():
        if ours not in taken:
            free = (lowered[alias] for alias in aliases if alias in lowered and lowered[alias] not in taken.values())
            found = next(free, None)
            if found is not None:
                taken[ours] = found
    if kind.context and HISTORY in lowered and HISTORY not in taken:
        said = raw[_RAW + lowered[HISTORY]].drop_nulls()
        if said.filter(said != "").str.starts_with("[").all():  # else it is a text that is only called so
            taken[HISTORY] = lowered[HISTORY]
    notes, contents = [], {name: raw[_RAW + name] for name in names}
    if not taken and kind.answered and kind.answer == "label" and all(name.isdecimal() for name in names):
        taken, notes = guessed_columns(data, contents)
    for ours in kind.required:
        if ours not in taken:
            raise BiaslineError(
                f"{shown(data)}: no column for {ours!r}; it has: {', '.join(names)}",
                way_out(contents, kind, taken, ours),
            )
    return taken, notes if source.preset else [*notes, *doubts(contents, taken)]


def _unrolled(raw: pl.DataFrame, name: str, answered: bool) -> pl.DataFrame:
    """Dialogues as what the user says last, what the assistant answers, and what was said before; null if broken."""
    rows = [_parted(text, answered) for text in raw[_RAW + name].to_list()]
    schema = {ours: pl.String for ours in ("instruction", "input", "output", "history")}
    return raw.with_columns(pl.DataFrame(rows, schema=schema, orient="row").get_columns())


def _parted(text: str | None, answered: bool) -> tuple[str | None, str, str | None, str | None]:
    try:
        turns = [turn_of(item) for item in json.loads(text or "")]
    except (ValueError, TypeError, KeyError, AttributeError):
        return text, "", None, None
    if not answered and turns and turns[-1][0] == "user":  # it is to be answered now
        turns.append(("assistant", ""))
    while turns and turns[-1][0] != "assistant":  # a question without an answer teaches nothing
        turns.pop()
    spoken = turns[1:] if turns and turns[0][0] == "system" else turns
    expected = ["user", "assistant"] * (len(spoken) // 2)
    if not spoken or [role for role, _ in spoken] != expected:
        return text, "", None, None
    *before, (_, question), (_, answer) = turns
    return question, "", answer, json.dumps(before, ensure_ascii=False) if before else ""


def _before(text: str | None) -> str | None:
    """What was said before, as we keep it; empty where nothing was, null where it is no dialogue."""
    if not text:
        return ""
    try:
        items = json.loads(text)
        pairs = all(isinstance(item, list) and len(item) == 2 for item in items)
        rounds = pairs and not all(str(item[0]).lower() in ROLES for item in items)
        turns = (
            [turn for asked, said in items for turn in (("user", asked), ("assistant", said))]
            if rounds
            else [turn_of(item) for item in items]
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    spoken = turns[1:] if turns and turns[0][0] == "system" else turns
    in_turn = [role for role, _ in spoken] == ["user", "assistant"] * (len(spoken) // 2)
    if not in_turn or not all(isinstance(said, str) for _, said in turns):
        return None
    return json.dumps(turns, ensure_ascii=False) if turns else ""


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
