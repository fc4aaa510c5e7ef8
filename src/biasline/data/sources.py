"""Reading a raw data file: the format is told by the content, the columns are brought to one shape.

The result is one frame with `row` (1-based number of the record in the file), the columns of the kind, and every
further column as metadata. Values that are no text are kept as their JSON, so that the contract can refuse them by
row instead of the reader refusing the file.
"""

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from biasline.data.kinds import Kind
from biasline.errors import BiaslineError, shown

# A Boolean companion of each of our columns: whether the file had something else than text there.
NOT_TEXT_SUFFIX = "__not_text"
# Columns that validation and evaluation add.
RESERVED = frozenset(
    {"row", "reasons", "base", "tuned", "base_exact", "tuned_exact", "probability"}
    | {"tokens", "base_nll", "tuned_nll", "base_hits", "tuned_hits"}
)


def read_examples(path: Path, kind: Kind, columns: Mapping[str, str]) -> tuple[pl.DataFrame, dict[str, str]]:
    """Read a JSON array, JSON Lines, CSV, TSV or Parquet file.

    Args:
        path: the file.
        kind: which columns are ours.
        columns: our column → the file's column, where the guess by the kind's aliases would fail.

    Returns:
        The frame (`row`, the kind's columns as text, each with a Boolean companion `<name>__not_text`, then the
        metadata columns as text), and which file column was taken for which of ours.

    Errors: `BiaslineError` for a missing, empty or broken file (with line and column), a file that is not UTF-8 (with
    the byte's place), and for columns that are absent.
    """
    records, names = _read_records(path)
    if not records:
        raise BiaslineError(f"{shown(path)}: no rows in it", "a task needs at least a few hundred examples")
    taken = _take_columns(path, names, kind, columns)
    data: dict[str, Any] = {"row": list(range(1, len(records) + 1))}
    for ours in kind.columns:
        values = [record.get(taken[ours]) if ours in taken else "" for record in records]
        data[ours] = [_as_text(value) for value in values]
        data[ours + NOT_TEXT_SUFFIX] = [value is not None and not isinstance(value, str) for value in values]
    used = set(taken.values())
    for name in names:
        if name not in used:
            data[metadata_name(name, kind)] = [_as_text(record.get(name)) for record in records]
    schema_overrides = {name: pl.String for name in data if not (name == "row" or name.endswith(NOT_TEXT_SUFFIX))}
    try:
        return pl.DataFrame(data, schema_overrides=schema_overrides), taken
    except UnicodeEncodeError as error:
        raise BiaslineError(
            f"{shown(path)}: half a surrogate pair (\\u{ord(error.object[error.start]):04x}) in a text", "mend that row"
        ) from None


def metadata_name(name: str, kind: Kind) -> str:
    """What a further column of a file is called in ours: its own name, unless later stages use that themselves."""
    taken = name in RESERVED or name in kind.columns or name.endswith(NOT_TEXT_SUFFIX)
    return f"meta_{name}" if taken else name


def _read_records(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The file's records and the union of their keys, in order of appearance."""
    if path.is_dir():
        raise BiaslineError(f"{shown(path)}: a folder; a single file is expected")
    if not path.is_file():
        raise BiaslineError(f"{shown(path)}: no such file", "mend `data` in params.yaml or put the file there")
    raw = path.read_bytes()
    if raw.startswith(b"PAR1"):
        try:
            frame = pl.read_parquet(io.BytesIO(raw))
        except pl.exceptions.PolarsError as error:
            raise BiaslineError(
                f"{shown(path)}: damaged Parquet: {str(error).splitlines()[0]}", "export it again"
            ) from None
        return frame.to_dicts(), frame.columns
    text = _decode(path, raw)
    start = text.lstrip()[:1]
    if start == "[":
        return _with_names(_json_array(path, text))
    if start == "{":
        return _with_names(_json_lines(path, text))
    if not start:
        raise BiaslineError(f"{shown(path)}: empty", "put the data there")
    return _delimited(path, text)


def _decode(path: Path, raw: bytes) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise BiaslineError(
            f"{shown(path)}: not UTF-8: byte 0x{raw[error.start]:02x} at position {error.start} (line {line})",
            f"convert it, as with `iconv -f gb18030 -t utf-8 {path.name}`",
        ) from None


def _json_array(path: Path, text: str) -> list[dict[str, Any]]:
    try:
        rows = _load_json(path, text)
    except json.JSONDecodeError as error:
        raise BiaslineError(
            f"{shown(path)}: broken JSON at line {error.lineno}, column {error.colno}: {error.msg}",
            "mend or re-export the file; no row of it was used",
        ) from None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise BiaslineError(f"{shown(path)}: item {number} is {json.dumps(row)[:40]}; an object was expected")
    return rows


def _load_json(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        raise
    except (ValueError, RecursionError) as error:
        raise BiaslineError(f"{shown(path)}: JSON that cannot be read: {error}", "mend or re-export the file") from None


def _json_lines(path: Path, text: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    # Not splitlines(): it also breaks at U+2028 and form feeds, which JSON strings may hold.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = _load_json(path, line)
        except json.JSONDecodeError as error:
            raise BiaslineError(
                f"{shown(path)}: broken JSON at line {number}, column {error.colno}: {error.msg}",
                "mend that line; no row of the file was used",
            ) from None
        if not isinstance(row, dict):
            raise BiaslineError(f"{shown(path)}: line {number} is {line[:40]!r}; an object was expected")
        rows.append(row)
    return rows


def _delimited(path: Path, text: str) -> tuple[list[dict[str, Any]], list[str]]:
    header = text.split("\n", 1)[0]
    delimiter = "\t" if "\t" in header else ","
    csv.field_size_limit(1 << 28)
    # Tab-separated files as the field ships them (GLUE) do not quote: a lone quote mark is text there.
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    try:
        names = next(reader)
        rows = [values for values in reader if values]
    except csv.Error as error:
        raise BiaslineError(f"{shown(path)}: line {reader.line_num}: {error}", "mend that line") from None
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BiaslineError(f"{shown(path)}: column {twice!r} stands twice in the header", "rename one of them")
    for number, values in enumerate(rows, 1):
        if len(values) != len(names):
            raise BiaslineError(
                f"{shown(path)}: row {number} has {len(values)} fields, the header has {len(names)}",
                "quote the delimiter inside a field, or mend the row",
            )
    return [dict(zip(names, values, strict=True)) for values in rows], names


def _with_names(records: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[str]]:
    names: dict[str, None] = {}
    for record in records:
        names.update(dict.fromkeys(record))
    return records, list(names)


def _take_columns(path: Path, names: list[str], kind: Kind, columns: Mapping[str, str]) -> dict[str, str]:
    for ours, theirs in columns.items():
        if ours not in kind.aliases:
            raise BiaslineError(
                f"source.columns: {ours!r} is none of our columns; expected {', '.join(kind.aliases)}",
                "write it as `our column: the file's column`",
            )
        if theirs not in names:
            raise BiaslineError(
                f"{shown(path)}: no column {theirs!r} (source.columns.{ours}); it has: {', '.join(names)}",
                "mend source.columns in params.yaml",
            )
    taken = dict(columns)
    lowered = {name.lower(): name for name in reversed(names)}
    for ours, aliases in kind.aliases.items():
        if ours not in taken:
            found = next((lowered[alias] for alias in aliases if alias in lowered), None)
            if found is not None and found not in taken.values():
                taken[ours] = found
    for ours in kind.required:
        if ours not in taken:
            raise BiaslineError(
                f"{shown(path)}: no column for {ours!r}; it has: {', '.join(names)}",
                f"name it in params.yaml: source: {{columns: {{{ours}: …}}}}",
            )
    return taken


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)
