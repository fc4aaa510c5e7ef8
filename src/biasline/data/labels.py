"""Labels: numbers by value, and what should be said about them."""

import re
import unicodedata
from collections.abc import Mapping

import polars as pl

from biasline.errors import BiaslineError

# How many times more rows of one label than of another are worth a warning.
_UNBALANCED, _LISTED = 20, 10
# Texts that programs write where there is nothing.
_MISSING = ("nan", "null", "<na>", "n/a", "#n/a")
_INVISIBLE = re.compile(r"[\u00ad\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff]")


def by_value(labels: pl.Series, not_text: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Labels that a file has as numbers or truth values as text, numbers by value: 1 and 1.0 are "1".

    Args:
        labels: as the reader has them, as JSON where a file had no text.
        not_text: whether it had none.

    Returns:
        the labels, and which are no label at all: lists, objects, infinite numbers.
    """
    numbers = pl.select(pl.when(not_text).then(labels)).to_series()
    whole = numbers.str.extract(r"^(-?[0-9]+)\.0$").replace("-0", "0")
    plain = numbers.str.contains(r"^(?:-?[0-9.]+(?:[eE][+-]?[0-9]+)?|true|false)$")
    large = numbers.str.contains(r"^-?[0-9.]+[eE]").fill_null(False) & plain.fill_null(False)
    if large.any():  # 1e20
        exact = [
            str(int(float(text))) if found and float(text).is_integer() else None
            for text, found in zip(numbers, large, strict=True)
        ]
        whole = pl.select(pl.coalesce(pl.Series(exact, dtype=pl.String), whole)).to_series()
    texts = pl.select(pl.coalesce(whole, labels)).to_series().alias(labels.name)
    return texts, not_text & ~plain.fill_null(False)


def form_notes(labels: pl.Series, read: pl.Series) -> list[str]:
    """Notes on labels that differ in form alone or look like a missing value.

    Form is case, how characters are composed, characters that cannot be seen, space, and how a number or truth value is
    written (1, 1.0, true).

    Args:
        labels: of the good rows.
        read: the same before space around them was taken off.
    """
    counts = dict(labels.value_counts(sort=True).rows())
    groups: dict[str, list[str]] = {}
    for label in counts:
        groups.setdefault(_folded(label), []).append(label)
    alike = [group for group in groups.values() if len(group) > 1]
    notes = []
    if alike:
        listed = "; ".join(
            " and ".join(f"{_spelled(label)} ({counts[label]:,} rows)" for label in group) for group in alike[:_LISTED]
        )
        more = f"; and {len(alike) - _LISTED:,} more" if len(alike) > _LISTED else ""
        notes.append(f"labels that differ in form alone are classes of their own: {listed}{more}; mend the data if not")
    missing = [label for label in counts if label.casefold() in _MISSING]
    if missing:
        listed = ", ".join(f"{label!r} ({counts[label]:,} rows)" for label in missing)
        notes.append(f"labels that look like a missing value are classes: {listed}; source.where takes them out")
    spaced = read.unique().drop_nulls().to_list()
    twice = sorted({label.strip() for label in spaced if label != label.strip()} & set(spaced))
    if twice:
        listed = ", ".join(map(repr, twice[:_LISTED]))
        notes.append(f"labels stand with and without space around, which counts for nothing: {listed}")
    return notes


def refuse_unlearned(splits: Mapping[str, pl.DataFrame], way_out: str = "") -> None:
    """Held-out rows whose label no training row has.

    Args:
        splits: `row` and `label` of each split's rows.
        way_out: what to do about it; by default also to name all labels, which lets them be.

    Raises:
        BiaslineError: naming all such labels, each with its rows; rows are not moved for it, or a test set would not
            stay the test set.
    """
    known = splits["train"]["label"].unique()
    told, names = [], []
    for split in ("valid", "test"):
        rows = splits[split].filter(~pl.col("label").is_in(known.implode()))
        for (label,), part in rows.group_by("label", maintain_order=True):
            names.append(str(label))
            told.append(
                f"{label!r} ({split} split: {part.height:,} row{'s' * (part.height > 1)}, row {part['row'][0]})"
            )
    if told:
        every = sorted({*known.to_list(), *names})
        listed = (
            ", ".join(every) if len(every) <= 3 * _LISTED else f"{', '.join(every[:3])}, … all {len(every)} of them"
        )
        raise BiaslineError(
            f"no training row has {'the label' if len(told) == 1 else 'these labels'}: {', '.join(told)}",
            way_out
            or "add rows of each (ten at least), take them out by source.where, or name all labels, so that these "
            f"count as never learned: source.labels: [{listed}]",
        )


def unjudged_notes(splits: Mapping[str, pl.DataFrame]) -> list[str]:
    """Labels that training has and a held-out split has not."""
    labels = splits["train"]["label"].unique(maintain_order=True).to_list()
    told = []
    for name in ("valid", "test"):
        missing = [label for label in labels if label not in set(splits[name]["label"])]
        if missing and splits[name].height:
            listed = ", ".join(map(repr, missing[:_LISTED])) + (", …" if len(missing) > _LISTED else "")
            told.append(f"no {name} row has the label {listed}: no number of that split says anything about it")
    return told


def imbalance_notes(labels: pl.Series) -> list[str]:
    """A warning where one label is much rarer than another."""
    counts = labels.value_counts(sort=True).rows()
    (most, many), (least, few) = counts[0], counts[-1]
    if few * _UNBALANCED > many:
        return []
    return [f"unbalanced labels: {most!r} has {many:,} training rows, {least!r} {few:,}; look at the macro F1"]


def _folded(label: str) -> str:
    """What a label is but for its form."""
    bare = _INVISIBLE.sub("", unicodedata.normalize("NFKC", label)).casefold()
    bare = " ".join(bare.split())
    bare = {"true": "1", "false": "0"}.get(bare, bare)
    try:
        number = float(bare)
    except ValueError:
        return bare
    return f"{number:g}" if number.is_integer() and abs(number) < 1e15 else bare


def _spelled(label: str) -> str:
    """A label with what cannot be seen written out."""
    seen = "".join(
        char
        if char.isprintable() and not unicodedata.combining(char) and not _INVISIBLE.match(char)
        else ascii(char)[1:-1]
        for char in label
    )
    return f"'{seen}'"
