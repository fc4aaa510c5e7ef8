"""Which rows are to go: named by a file of them, or by a filter; found in raw files and in what servers kept."""

import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from biasline.data.contract import emptied_inputs
from biasline.data.files import raw_files
from biasline.data.folders import is_saved
from biasline.data.raw import read_raw
from biasline.data.records import read_records
from biasline.data.removal import remove_records
from biasline.data.sources import headers_of, read_asked, read_examples
from biasline.data.split import keys_of
from biasline.data.turns import HISTORY
from biasline.data.where import matching
from biasline.errors import BiaslineError, shown
from biasline.kinds.learning import find_learning
from biasline.params import Task, Where

# `text=it's so` is a value, `text='so'` and `text = 'so' and …` are SQL.
_PLAIN = re.compile(r"([\w.-]+)=([^\s'\"].*)?", re.DOTALL)
_PAIR = re.compile(r"\s*([^\s=<>!'\"]+)\s*=\s*([^'\"=]*)")


@dataclass(frozen=True)
class Selected:
    """Rows that are to go.

    Attributes:
        records: raw file → numbers of its records, from 0.
        rows: how many records that is.
        total: all records there are.
        keys: content keys of what is to go; of a fleet with its tenant.
        absent: rows of a list that are in no raw file.
        kept_elsewhere: keys that rows have as well which stay: they are not refused when they come back.
        texts: folded texts of what is to go, to find them in prompts.
    """

    records: dict[Path, set[int]]
    rows: int
    total: int
    keys: frozenset[str]
    kept_elsewhere: frozenset[str] = frozenset()
    absent: int = 0
    texts: tuple[str, ...] = field(default=(), repr=False)

    @property
    def refused(self) -> frozenset[str]:
        """Keys of which no row may come back."""
        return self.keys - self.kept_elsewhere


def parsed_where(texts: Sequence[str]) -> Where:
    """Filters as a command line has them: `customer=acme`, several of which must all hold, or an SQL expression.

    Raises:
        BiaslineError: where both kinds are mixed.
    """
    pairs = [_PLAIN.fullmatch(text) or _PAIR.fullmatch(text) for text in texts]
    if all(pairs):
        return {pair[1]: (pair[2] or "").strip() for pair in pairs if pair}
    if len(texts) == 1:
        return texts[0]
    odd = next(text for text, pair in zip(texts, pairs, strict=True) if pair is None)
    raise BiaslineError(f"--where {odd!r}: column=value was expected", "or one SQL expression alone")


def select(task: Task, data: Path, rows: Path | None, where: Where) -> Selected:
    """The rows that a file or a filter names.

    Args:
        task: whose.
        data: its raw data, absolute.
        rows: a file of rows, by what the model is given of them (and of a fleet, where it has the column, the tenant).
        where: or a filter on the columns of the raw data.

    Raises:
        BiaslineError: for data that are no files, a filter on a column that they lack, and a file without rows.
    """
    if is_saved(data):
        raise BiaslineError(f"{shown(data)}: a data set saved by `datasets`", "save its splits as Parquet in a folder")
    kind, tenants = find_learning(task.kind).columns, task.tenants.column
    source = task.source.model_copy(update={"where": "", "harvested": True})
    frame = read_examples(data, kind, source).frame
    frame = find_learning(task.kind).prepared(frame, task)[0]
    if tenants:
        frame = frame.with_columns(pl.col(tenants).str.strip_chars())
    keys, plain = keys_of(frame, kind, tenants), keys_of(frame, kind)
    raw = read_raw(data, headers_of(kind, source))[0]
    absent, extra = 0, set[str]()
    if rows is not None:
        asked = read_asked(rows, kind, source, tenants)
        named = [str(row.get(tenants) or "").strip() for row in asked]
        wanted = set(zip(_keys(asked, task), named, strict=True))
        owners = list(map(str, frame[tenants])) if tenants else [""] * frame.height
        pairs = list(zip(plain, owners, strict=True))
        chosen = [(key, "") in wanted or (key, owner) in wanted for key, owner in pairs]
        numbers = set(frame["row"].filter(pl.Series(chosen, dtype=pl.Boolean)).to_list())
        texts = sorted({key for key, _ in wanted})
        absent = len(wanted - set(pairs) - {(key, "") for key in plain})
        # A row that a server was asked need not be among the data.
        extra = {f"{owner}\x1f{key}" if tenants else key for key, owner in wanted if owner or not tenants}
    else:
        try:
            numbers = set(raw.frame["row"].filter(matching(raw, where, shown(data))).to_list())
        except BiaslineError as error:
            told = str(error).partition(" → ")[0].replace("source.where", "--where")
            raise BiaslineError(told, "name columns of the raw data") from None
        chosen = frame["row"].is_in(list(numbers)).to_list()
        texts = sorted({key for key, one in zip(plain, chosen, strict=True) if one})
    going = {key for key, one in zip(keys, chosen, strict=True) if one} | extra
    staying = {key for key, one in zip(keys, chosen, strict=True) if not one}
    records, kept = _by_file(data, raw.frame, numbers), frozenset(going & staying)
    return Selected(records, len(numbers), len(raw), frozenset(going), kept, absent, tuple(texts))


def _by_file(data: Path, frame: pl.DataFrame, numbers: set[int]) -> dict[Path, set[int]]:
    """Numbers of records, from 1 over all files, as numbers within each file, from 0."""
    named = frame["file"] if "file" in frame.columns else pl.repeat("", frame.height, eager=True)
    first: dict[str, int] = {}
    found: dict[Path, set[int]] = {}
    only = next(iter(raw_files(data).files)).path
    for row, name in zip(frame["row"], named, strict=True):
        first.setdefault(name, row)
        if row in numbers:
            found.setdefault(data / name if name else only, set()).add(row - first[name])
    return found


def _keys(rows: Iterable[dict[str, Any]], task: Task) -> list[str]:
    """Content keys of rows as they are asked, without tenants."""
    kind = find_learning(task.kind).columns
    texts = {name: [_text(name, row.get(name)) for row in rows] for name in kind.given}
    frame = pl.DataFrame(texts, schema=dict.fromkeys(kind.given, pl.String))
    if "input" in frame.columns:
        frame = emptied_inputs(frame)[0]
    return keys_of(frame, kind)


def _text(name: str, value: Any) -> str:
    if value in (None, "", []):
        return ""
    if name == HISTORY and not isinstance(value, str):  # as the data have it: pairs of role and content
        turns = [[one["role"], one["content"]] if isinstance(one, dict) else one for one in value]
        return json.dumps(turns, ensure_ascii=False)
    if isinstance(value, list):
        return " ".join(map(str, value))
    return str(value)


def take_out(task: Task, data: Path, path: Path, numbers: set[int], *, dry_run: bool = False) -> None:
    """Take records out of a raw file, whole or not at all; one of several files that has no others is deleted.

    Args:
        task: whose.
        data: all of its raw data.
        path: of the file.
        numbers: of its records, from 0.
        dry_run: only see whether it can be done.

    Raises:
        BiaslineError: where the file's format cannot be written.
    """
    headers = headers_of(find_learning(task.kind).columns, task.source)
    has_others = data.is_dir() and len(raw_files(data).files) > 1
    if has_others and len(numbers) == sum(1 for _ in read_records(path, headers)):
        if not dry_run:
            path.unlink()
    else:
        remove_records(path, numbers, headers, dry_run=dry_run)


def any_left(task: Task, data: Path, keys: Collection[str]) -> bool:
    """Whether a row of the raw data has one of some content keys."""
    kind, tenants = find_learning(task.kind).columns, task.tenants.column
    source = task.source.model_copy(update={"where": "", "harvested": True})
    frame = find_learning(task.kind).prepared(read_examples(data, kind, source).frame, task)[0]
    if tenants:
        frame = frame.with_columns(pl.col(tenants).str.strip_chars())
    return not set(keys_of(frame, kind, tenants)).isdisjoint(keys)


def asked_keys(asked: Sequence[str | None], tenants: Sequence[str], task: Task) -> list[str]:
    """Content keys of what a server kept as asked, of a fleet with the tenant; the folded prompt where it is a text."""
    rows: list[dict[str, Any]] = []
    first = find_learning(task.kind).columns.given[0]
    for text in asked:
        try:
            row = json.loads(text or "")
        except ValueError:
            row = None
        rows.append(row if isinstance(row, dict) else {first: text or ""})
    keys = _keys(rows, task)
    if not task.tenants.column:
        return keys
    return [f"{owner}\x1f{key}" for owner, key in zip(tenants, keys, strict=True)]
