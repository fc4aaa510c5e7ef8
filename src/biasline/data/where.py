"""`source.where`: which records of a file are used at all."""

from collections.abc import Mapping, Sequence

import polars as pl

from biasline.data.raw import Raw
from biasline.errors import BiaslineError, first_line
from biasline.params import Where

_TRUTH = ("true", "false")
_SHOWN_VALUES = 8


def filtered(raw: Raw, where: Where, data: str) -> tuple[Raw, int]:
    """The records that a filter keeps, and how many it leaves out.

    Args:
        raw: all records.
        where: `{column: value, or a list of values}`, all of which must hold, or an SQL expression over the columns.
        data: what errors call the file.

    Raises:
        BiaslineError: for a column that the file does not have, an expression that is none or gives no truth values,
            and where no record is left.
    """
    if not where:
        return raw, 0
    kept = matching(raw, where, data)
    if not kept.any():
        told = ""
        if not isinstance(where, str):
            told = "; there are " + "; ".join(f"{name}: {_values(raw.text(name))}" for name in where)
        raise BiaslineError(
            f"source.where: {shown_where(where)}: none of {len(raw):,} rows is like that{told}", "mend it"
        )
    return raw.kept(kept), int((~kept).sum())


def matching(raw: Raw, where: Where, data: str) -> pl.Series:
    """Whether each record is as a filter, which is not empty, says; arguments as of `filtered`."""
    return _by_expression(raw, where, data) if isinstance(where, str) else _by_values(raw, where, data)


def shown_where(where: Where) -> str:
    """A filter in one line."""
    if isinstance(where, str):
        return where
    return ", ".join(f"{name}: {' or '.join(map(repr, _listed(values)))}" for name, values in where.items())


def _by_values(raw: Raw, where: Mapping[str, str | Sequence[str]], data: str) -> pl.Series:
    _refuse_unknown(where, raw.names, data)
    kept = pl.repeat(True, len(raw), eager=True)
    for name, values in where.items():
        texts = raw.text(name).fill_null("")
        wanted = _listed(values)
        numbers = [number for number in map(_number, wanted) if number is not None]
        matches = texts.is_in(wanted)
        if numbers:
            matches |= texts.str.strip_chars().cast(pl.Float64, strict=False).is_in(numbers).fill_null(False)
        truth = [value for value in wanted if value in _TRUTH]
        matches |= texts.str.strip_chars().str.to_lowercase().is_in(truth)
        kept &= matches
    return kept


def _by_expression(raw: Raw, where: str, data: str) -> pl.Series:
    hint = "an SQL expression was expected, as \"language = 'en' and score >= 4\""
    try:
        expression = pl.sql_expr(where)
        named = expression.meta.root_names()
    except Exception as error:  # whatever the parser raises
        raise BiaslineError(f"source.where: {where!r}: {first_line(error)}", hint) from None
    _refuse_unknown(named, raw.names, data)
    texts = pl.DataFrame([raw.text(name) for name in dict.fromkeys(named)]) if named else pl.DataFrame({"": [""]})
    refused: Exception | None = None
    # Numbers compare by value; where the expression takes a column of numbers for text, it is text.
    for frame in (texts.select(_typed(texts[name]) for name in texts.columns), texts):
        try:
            found = frame.select(expression.alias("kept")).to_series()
        except pl.exceptions.PolarsError as error:
            refused = refused or error
            continue
        if found.dtype != pl.Boolean:
            raise BiaslineError(f"source.where: {where!r} gives {found.dtype}, not true or false", hint)
        if len(found) == 1 != len(raw):
            found = pl.repeat(found[0], len(raw), dtype=pl.Boolean, eager=True)
        return found.fill_null(False)
    assert refused is not None
    raise BiaslineError(f"source.where: {where!r}: {first_line(refused)}", hint)


def _typed(texts: pl.Series) -> pl.Series:
    """A column of numbers as numbers, one of truth values as such, any other as text; empty is null."""
    filled = pl.select(pl.when(texts.str.strip_chars() != "").then(texts)).to_series().alias(texts.name)
    count = filled.null_count()
    if count == len(filled):
        return texts
    if filled.str.to_lowercase().is_in(_TRUTH).sum() == len(filled) - count:
        return filled.str.to_lowercase() == "true"
    for dtype in (pl.Int64, pl.Float64):
        numbers = filled.str.strip_chars().cast(dtype, strict=False)
        if numbers.null_count() == count:
            return numbers
    return texts


def _refuse_unknown(named: Sequence[str] | Mapping[str, object], names: Sequence[str], data: str) -> None:
    if unknown := [name for name in named if name not in names]:
        raise BiaslineError(
            f"{data}: no column {unknown[0]!r} (source.where); it has: {', '.join(names)}",
            "mend source.where in params.yaml",
        )


def _listed(values: str | Sequence[str]) -> list[str]:
    return [values] if isinstance(values, str) else list(values)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _values(texts: pl.Series) -> str:
    counts = texts.fill_null("").value_counts(sort=True)[texts.name].to_list()
    more = len(counts) - _SHOWN_VALUES
    return ", ".join(repr(value[:40]) for value in counts[:_SHOWN_VALUES]) + (
        f", and {more:,} more" if more > 0 else ""
    )
