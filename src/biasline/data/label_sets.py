"""Several labels a row: as a list, as text with a separator, or as a column of 0 and 1 for each label.

All become the JSON of a list of names, in one order and without repeats.
"""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from biasline.data.name_lists import canonical, one_by_one, parsed
from biasline.data.raw import Raw
from biasline.errors import BiaslineError, first_few

if TYPE_CHECKING:
    from biasline.data.rules import Rule, Terms

# A list in which a file names no label at all. That may be an answer that is missing; "[]" is one that a column for
# each label gives, which says of each that it does not hold. Both are empty lists to whoever reads them as JSON.
UNNAMED = "[ ]"
_LIST = r'^\[(?: |"(?:[^"\\]|\\.)+"(?:, "(?:[^"\\]|\\.)+")*)?\]$'
_TRUTH = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}
_LISTED, _SHOWN = 12, 60


def read_sets(where: str, raw: Raw, name: str, separator: str, order: Sequence[str]) -> Raw:
    """A column as canonical lists; what is none, and names no label, stays as it is, for the contract to refuse.

    Args:
        where: the data, for messages.
        raw: the records.
        name: of the column: lists of names, texts with a separator, one name, or objects of name → whether it holds.
        separator: between the names in a text.
        order: of the names.

    Raises:
        BiaslineError: where most cells are something else.
    """
    cells, not_text = raw.text(name), raw.not_text(name)
    known: dict[tuple[str, bool], str] = {}
    found: list[str | None] = []
    for cell, flag in zip(cells, not_text, strict=True):
        if cell is not None and (cell, flag) not in known:
            known[cell, flag] = _read(cell, flag, separator, order)
        found.append(None if cell is None else known[cell, flag])
    texts = pl.Series(name, found, dtype=pl.String)
    broken = texts.is_not_null() & ~texts.str.contains(_LIST).fill_null(True)
    if 2 * broken.sum() > len(texts) - texts.null_count():
        example = texts.filter(broken)[0]
        shown = example if len(example) <= _SHOWN else f"{example[: _SHOWN - 1]}…"
        raise BiaslineError(
            f"{where}: column {name!r} (labels) names no labels in {broken.sum():,} of {len(texts):,} rows, the first "
            f"of them is {raw.frame['row'].filter(broken)[0]}: {shown}",
            f"labels are a list of names, or a text with {separator!r} between them (source.separator); out of a list "
            f"of objects a path takes them: source: {{columns: {{labels: {name}.*.name}}}}",
        )
    return raw.replaced(name, texts)


def gathered(where: str, raw: Raw, names: Sequence[str], aliases: Sequence[str]) -> tuple[Raw, list[str]]:
    """A column `labels` out of columns of 0 and 1, one for each label, where there is no such column.

    Args:
        where: the data, for messages.
        raw: the records.
        names: of all labels, as parameters have them; columns of these names are gathered.
        aliases: what a column of labels may be called.

    Returns:
        the records, and notes on what was done.

    Raises:
        BiaslineError: where some of the names are columns and others are not; where no column has labels and several
            hold nothing but 0 and 1.
    """
    if raw.looked_up(aliases[0]) is not None:
        return raw, []
    there = [name for name in names if name in raw.names]
    absent = [name for name in names if name not in raw.names]
    if there and not absent:
        objects = raw.frame.select(raw.text(name) for name in there).rows()
        texts = [json.dumps(dict(zip(there, row, strict=True)), ensure_ascii=False) for row in objects]
        return raw.without(there).replaced(aliases[0], texts, True), [
            f"labels are gathered from {len(there)} columns: {_listed(there)}"
        ]
    if raw.looked_up(*aliases) is not None:
        return raw, []
    if there:
        raise BiaslineError(
            f"{where}: source.labels: no column {absent[0]!r} beside {_listed(there)}; it has: {', '.join(raw.names)}",
            "name each label's column as the file does, or the one that has all labels: source: {columns: {labels: …}}",
        )
    truths = [name for name in raw.names if _is_truth(raw.text(name))]
    if len(truths) > 1:
        listed = ", ".join(json.dumps(name, ensure_ascii=False) for name in truths)
        raise BiaslineError(
            f"{where}: no column for 'labels'; it has: {', '.join(raw.names)}",
            f"{len(truths)} columns hold 0 and 1 alone; where each says whether a text has that label, write in "
            f"params.yaml: source: {{labels: [{listed}]}}",
        )
    return raw, []


def set_rules() -> "tuple[Rule, ...]":
    """Rules on lists of labels."""
    from biasline.data.rules import Rule, agreed

    def is_list(_: "Terms") -> pl.Expr:
        return pl.col("labels").str.contains(_LIST).fill_null(False)

    def is_known(terms: "Terms") -> pl.Expr:
        if not terms.labels:
            return pl.lit(True)
        lists = pl.when(is_list(terms)).then("labels").otherwise(pl.lit("[]")).str.json_decode(pl.List(pl.String))
        return lists.list.eval(pl.element().is_in(terms.labels)).list.all()

    about = ("labels",)
    return (
        Rule(
            "broken_labels",
            "labels are missing or no names, or their columns neither 0 nor 1",
            is_list,
            about,
            structural=True,
        ),
        Rule("empty_labels", "no labels", lambda _: pl.col("labels").ne_missing(UNNAMED), about),
        Rule("unknown_label", "a label is none of source.labels", is_known, about),
        Rule(
            "conflicting_duplicate",
            "the same text has other labels elsewhere (all labels of a text belong into one row)",
            agreed("labels", lambda terms: is_list(terms) & is_known(terms)),
            about,
        ),
    )


def refuse_unlearnable(train: pl.DataFrame, names: Sequence[str]) -> None:
    """Labels that parameters name and no training row has.

    Raises:
        BiaslineError: naming them.
    """
    found = set(one_by_one(train)["label"])
    if not found:
        raise BiaslineError("no training row has a label", "add rows that have some")
    if unlearned := [name for name in names if name not in found]:
        raise BiaslineError(
            f"source.labels: no training row has {'the label' if len(unlearned) == 1 else 'these labels'} "
            f"{_listed(unlearned)}, so nothing could be learned of it and no threshold be chosen",
            "take it out there, or add rows that have it (ten at least)",
        )


def _read(cell: str, not_text: bool, separator: str, order: Sequence[str]) -> str:
    """A cell as a canonical list; itself where it is nothing of the kind."""
    value: Any = cell
    if not_text or cell.lstrip()[:1] in ("[", "{"):
        value = parsed(cell)
    if isinstance(value, Mapping):
        truths = {str(name).strip(): _truth(item) for name, item in value.items()}
        if not truths or None in truths.values() or "" in truths:
            return cell
        return canonical((name for name, holds in truths.items() if holds), order)
    if isinstance(value, str):
        items: Sequence[Any] = [part for part in value.split(separator) if part.strip()]
    else:
        items = value if isinstance(value, list) else [value]
    names = [_name(item) for item in items]
    if None in names or "" in names:
        return cell
    return canonical((name for name in names if name), order) if names else UNNAMED


def _name(value: Any) -> str | None:
    """A label; numbers and truth values are some too, by value. None for anything else."""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int | float) and abs(value) < float("inf") else None


def _truth(value: Any) -> bool | None:
    return _TRUTH.get(str(value).strip().lower())


def _is_truth(column: pl.Series) -> bool:
    values = column.drop_nulls().str.strip_chars().str.to_lowercase().unique()
    return 0 < len(values) <= len(_TRUTH) and all(value in _TRUTH for value in values)


def _listed(names: Sequence[str]) -> str:
    return first_few(map(repr, names), _LISTED)
