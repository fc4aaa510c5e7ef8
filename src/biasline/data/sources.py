"""Records of any file brought to one shape.

The result is one frame with `row` (1-based number of the record in the file), the columns of the kind, and every
further column as metadata. Values that are no text are kept as their JSON, so that the contract can refuse them by
row instead of the reader refusing the file.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from biasline.data import shapes
from biasline.data.dialogues import PROBLEM, with_history, with_joined_prompts
from biasline.data.guesses import doubts, guessed_columns, left_aside, way_out
from biasline.data.headers import Headers
from biasline.data.preference import judged, of_pairs, verdict_columns
from biasline.data.raw import FIXED_SPLIT, NOT_TEXT_SUFFIX, Raw, read_raw
from biasline.data.raw import RAW as _RAW
from biasline.data.turns import DIALOGUE, DIALOGUES, HISTORY, MESSAGES, SYSTEM, SYSTEMS
from biasline.data.where import filtered
from biasline.errors import BiaslineError, shown
from biasline.glue import GLUE
from biasline.kinds.columns import Columns
from biasline.params import Source

# Columns that validation and evaluation add.
RESERVED = frozenset(
    {
        "row",
        "reasons",
        "file",
        FIXED_SPLIT,
        PROBLEM,
        "base",
        "tuned",
        "base_exact",
        "tuned_exact",
        "probe",
        "probe_exact",
        "probe_error",
        "base_error",
        "tuned_error",
    }
    | {"probability", "parent", "method", "length", "tokens", "base_nll", "tuned_nll", "base_hits", "tuned_hits"}
)

# Columns of ours that a file may lack, and whose guess an empty name in `source.columns` denies.
_OPTIONAL = ("input", "text_pair", HISTORY, SYSTEM)


@dataclass(frozen=True)
class Examples:
    """What a task's data hold, in one shape.

    Attributes:
        frame: `row` (1-based number of the record), the kind's columns as text, each with a Boolean companion
            `<name>__not_text` (and `PROBLEM`, where there are dialogues), then the metadata columns as text; at last
            `file`, where there are several, and `FIXED_SPLIT`.
        taken: our column → the file's column.
        notes: what was guessed and should be said.
        left_out: parameter → how many records it left out.
    """

    frame: pl.DataFrame
    taken: dict[str, str]
    notes: tuple[str, ...]
    left_out: dict[str, int] = field(default_factory=dict)


def read_examples(data: Path, kind: Columns, source: Source, limit: int | None = None) -> Examples:
    """Read a file or a folder of files (see `files.raw_files`) into one frame.

    Args:
        data: the file or folder.
        kind: which columns are ours.
        source: names of columns, and whether there is a header, where the guess would fail; which records are used.
        limit: read so many records at most.

    Raises:
        BiaslineError: for data that are missing, empty or broken (with the place), and for columns that are absent.
    """
    preset = GLUE.get(source.preset)
    if preset is not None:
        kind = replace(kind, aliases=preset.columns)
    headers = headers_of(kind, source)
    raw, added, told = read_raw(data, headers, _paths(source), limit, source.harvested)
    notes, left_out = [*told, *headers.notes], {}
    verdicts = verdict_columns(raw) if kind.answered and kind.context else []
    if kind.answered:
        raw, left_out["source.where"] = filtered(raw, source.where, shown(data))
        raw = raw.without([name for name in added if name not in source.columns.values()])
        raw, source, rejected = of_pairs(shown(data), raw, kind, source)
        notes += [f"source.prefer: {rejected:,} rejected answers are left out"] if rejected else []
    if kind.context and not {*kind.required, MESSAGES} & source.columns.keys():
        raw, turns = with_joined_prompts(raw, kind.answered)
        source = source.model_copy(update={"columns": source.columns | {MESSAGES: turns}}) if turns else source
    if kind.answered and kind.gathering is not None:
        raw, further = kind.gathering(shown(data), raw, source)
        notes += further
    taken, guessed = _take_columns(data, raw, kind, source)
    notes += guessed
    if kind.answered and kind.context:
        raw, left_out["source.prefer"], further = judged(shown(data), raw, verdicts, taken, source, bool(rejected))
        notes += further
    raw = _in_texts(data, raw, kind, taken, source)
    names, frame = raw.names, raw.frame
    if kind.context:
        frame, further = with_history(raw, taken, kind.answered)
        notes += further

    columns = [pl.col("row")]
    for ours in kind.columns:
        if ours == HISTORY or DIALOGUE in taken:
            flag = pl.col(HISTORY + NOT_TEXT_SUFFIX) if ours == HISTORY else pl.lit(False).alias(ours + NOT_TEXT_SUFFIX)
            columns += [pl.col(ours), flag]
            continue
        theirs = taken.get(ours)
        text = pl.col(_RAW + theirs) if theirs else pl.lit("", pl.String)
        flag = pl.col(_RAW + theirs + NOT_TEXT_SUFFIX).fill_null(False) if theirs else pl.lit(False)
        columns += [text.alias(ours), flag.alias(ours + NOT_TEXT_SUFFIX)]
    columns += [pl.col(PROBLEM)] if kind.context else []
    # What the system says stays metadata too: rows may be sliced or grouped by it.
    further = [name for name in names if name not in taken.values() or name == taken.get(SYSTEM)]
    called = {name: metadata_name(name, kind) for name in further}
    for name in further:  # `row` becomes `meta_row`, and there may be one already
        while called[name] != name and called[name] in names:
            called[name] += "_"
    columns += [pl.col(_RAW + name).alias(called[name]) for name in further]
    columns += [pl.col(name) for name in ("file", FIXED_SPLIT) if name in frame.columns]
    frame = frame.select(columns)
    if preset is not None and preset.labels and kind.answered:
        numbers = {str(number): name for number, name in enumerate(preset.labels)}
        frame = frame.with_columns(pl.col("label").str.strip_chars().replace(numbers))
    left_out = {name: count for name, count in left_out.items() if count}
    notes += [f"{name} leaves out {count:,} of the data's records" for name, count in left_out.items()]
    return Examples(frame, taken, tuple(notes), left_out)


def headers_of(kind: Columns, source: Source) -> Headers:
    """What judges whether the first line of a delimited file names its columns."""
    preset = GLUE.get(source.preset)
    kind = kind if preset is None else replace(kind, aliases=preset.columns)
    return Headers(kind, source.model_copy(update={"columns": _named(source)}))


def _named(source: Source) -> dict[str, str]:
    """Names that a header may have: those in `source.columns`, and where their paths begin."""
    roots = {f"{ours} (root)": theirs.partition(".")[0] for ours, theirs in source.columns.items() if "." in theirs}
    return {ours: theirs for ours, theirs in (source.columns | roots).items() if theirs}


def _paths(source: Source) -> list[str]:
    """Names in `source` that may be paths into nested values."""
    filtering = source.where if isinstance(source.where, dict) else ()
    return [name for name in dict.fromkeys((*source.columns.values(), *filtering)) if "." in name]


def _in_texts(data: Path, raw: Raw, kind: Columns, taken: dict[str, str], source: Source) -> Raw:
    """The columns as texts; `BiaslineError` where one is lists or objects through and through and should not be."""
    for ours in kind.required if DIALOGUE not in taken and kind.looks != "structure" else ():
        shape = shapes.not_text(raw, taken[ours], ours, kind, taken)
        if shape is not None:
            raise BiaslineError(f"{shown(data)}: {shape.told}", shape.hint)
    return kind.reading(shown(data), raw, taken, source) if kind.reading is not None else raw


def read_asked(path: Path, kind: Columns, source: Source, tenants: str = "") -> list[dict[str, Any]]:
    """Rows that a model is to be asked: of a `.txt` each line, else the columns of the kind but for the answer.

    A dialogue that ends with the user is asked for what comes next; empty lines of a CSV are none of its rows. Lists
    and numbers in the place of a text stay what they are: whoever answers knows whether it takes them.

    Args:
        path: of the file.
        kind: says which columns are the prompt.
        source: how the file is read.
        tenants: a column that rows keep, where the file has it.

    Raises:
        BiaslineError: as `read_examples`; naming the first row without its text.
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
        asked = source.model_copy(update={"columns": columns, "where": "", "prefer": "", "answers": ""})
        aliases = {ours: names for ours, names in kind.aliases.items() if ours != kind.answer}
        frame = read_examples(path, replace(kind, aliases=aliases, answered=False), asked).frame
        kept = [tenants] if tenants in frame.columns else []
        rows = frame.select(pl.col(*kind.given, *kept).fill_null("")).to_dicts()
        for name in kind.prompt:
            for row, not_text in zip(rows, frame[name + NOT_TEXT_SUFFIX], strict=True):
                if not_text and row[name]:
                    row[name] = json.loads(row[name])
    for number, row in enumerate(rows, 1):
        if isinstance(row[first], str) and not row[first].strip():
            raise BiaslineError(f"{shown(path)}: row {number} has no {first}", "answers stand beside rows: take it out")
    return rows


def metadata_name(name: str, kind: Columns) -> str:
    """What a further column of a file is called in ours: its own name, unless later stages use that themselves."""
    taken = name in RESERVED or name in kind.columns or name.endswith(NOT_TEXT_SUFFIX)
    return f"meta_{name}" if taken else name


def _take_columns(data: Path, raw: Raw, kind: Columns, source: Source) -> tuple[dict[str, str], list[str]]:
    """Which file column is which of ours, and what was guessed."""
    names = raw.names
    known = (*kind.aliases, *((MESSAGES, HISTORY, SYSTEM) if kind.context else ()))
    for ours, theirs in source.columns.items():
        if ours not in known:
            raise BiaslineError(
                f"source.columns: {ours!r} is none of our columns; expected {', '.join(known)}",
                "write it as `our column: the file's column`",
            )
        if theirs not in names and (theirs or ours not in _OPTIONAL):
            inside = shapes.nested_names(raw) if "." in theirs else []
            raise BiaslineError(
                f"{shown(data)}: no column {theirs!r} (source.columns.{ours}); it has: {', '.join([*names, *inside])}",
                "mend source.columns in params.yaml",
            )
    taken = {ours: theirs for ours, theirs in source.columns.items() if theirs}
    system = {}
    if kind.context and SYSTEM not in source.columns:
        found = raw.looked_up(*SYSTEMS)
        system = {SYSTEM: found} if found is not None and found not in taken.values() else {}
    elif SYSTEM in taken:
        system = {SYSTEM: taken.pop(SYSTEM)}
    if MESSAGES in taken:
        return {DIALOGUE: taken[MESSAGES], **system}, []
    rolls = [name for name in names if name.strip().lower() in DIALOGUES]
    if kind.context and rolls and not taken and not {"instruction", "output"} & {name.lower() for name in names}:
        return {DIALOGUE: rolls[0], **system}, []
    lowered = {name.strip().lower(): name for name in reversed(names)}
    for ours, aliases in kind.aliases.items():
        if ours not in source.columns:
            free = (lowered[alias] for alias in aliases if alias in lowered and lowered[alias] not in taken.values())
            found = next(free, None)
            if found is not None:
                taken[ours] = found
    if kind.context and HISTORY in lowered and HISTORY not in source.columns:
        said = raw.text(lowered[HISTORY]).drop_nulls()
        if said.filter(said != "").str.starts_with("[").all():  # else it is a text that is only called so
            taken[HISTORY] = lowered[HISTORY]
    notes: list[str] = []
    contents = {name: raw.text(name) for name in names}
    if not taken and kind.answered and kind.looks == "label" and all(name.isdecimal() for name in names):
        taken, notes = guessed_columns(data, contents)
    for ours in kind.required:
        if ours not in taken:
            shape = shapes.shape_of(raw, kind, taken)
            hint = shape.hint or way_out(contents, kind, taken, ours) + shape.paths
            raise BiaslineError(f"{shown(data)}: no column for {ours!r}; it has: {', '.join(names)}{shape}", hint)
    if kind.context:
        notes += left_aside(contents, kind, taken, source.columns)
    return {**taken, **system}, notes if source.preset else [*notes, *doubts(contents, kind, taken, source.columns)]
