"""Splitting by content: where a row goes depends on its own text alone, so new rows never move old ones."""

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterable

import polars as pl

from biasline.data.nearness import near_duplicates
from biasline.data.raw import FIXED_SPLIT
from biasline.data.tenants import with_rows_of_each
from biasline.data.turns import HISTORY
from biasline.errors import BiaslineError
from biasline.kinds.columns import Columns
from biasline.layout import SPLITS
from biasline.params import Split

# How a turn of a history ends that has a weight.
_WEIGHT = re.compile(r'(?<!\\)", 0\]')
# How likely a split may be empty at the number of rows that is asked for.
_CHANCE = 0.05


def content_key(*texts: str) -> str:
    """What makes two prompts the same: their texts, with width, case and white space folded.

    The answer has no part in it, so that two answers to one question never stand on both sides of a split.
    """
    folded = unicodedata.normalize("NFKC", "\n".join(texts)).casefold()
    return " ".join(folded.split())


def keys_of(rows: pl.DataFrame, kind: Columns, tenants: str = "") -> list[str]:
    """The content key of each row, see `content_key`.

    Args:
        rows: with the kind's columns.
        kind: says which of them the model is given.
        tenants: a column within whose values alone texts are the same.
    """
    keys = list(map(content_key, *(_given(rows[name].fill_null("")) for name in kind.given)))
    if not tenants:
        return keys
    return [f"{name}\x1f{key}" for name, key in zip(rows[tenants], keys, strict=True)]


def place_of(key: str, seed: int) -> float:
    """Where a content key lies in the unit interval: a hash."""
    digest = hashlib.sha256(f"{seed}\x1f{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_at(place: float, valid: float, test: float) -> str:
    """`train`, `valid` or `test` for a place in the unit interval.

    Each label gets its share of each split but for chance: the hash knows nothing of labels.
    """
    if place < test:
        return "test"
    return "valid" if place < test + valid else "train"


def split_examples(good: pl.DataFrame, kind: Columns, split: Split, tenants: str = "") -> dict[str, pl.DataFrame]:
    """Deal good rows to the three splits, keeping their order.

    Where names of files fix splits (`FIXED_SPLIT`), they are respected; what they leave open, such as a validation set
    out of the training file, is dealt by hash.

    Args:
        good: the rows.
        kind: says which columns are the prompt.
        split: the shares.
        tenants: a column within whose values each split has a row at least, see `with_rows_of_each`.

    Raises:
        BiaslineError: where `split.group` is no column.
    """
    keys = keys_of(good, kind)
    if split.group:
        if split.group not in good.columns:
            known = ", ".join(name for name in good.columns if name not in ("row", FIXED_SPLIT))
            raise BiaslineError(f"split.group: no column {split.group!r}; there are: {known}", "name one of these")
        # A row of no group is a group of its own.
        keys = [f"group {group}" if group else own for group, own in zip(good[split.group], keys, strict=True)]
    elif tenants:
        keys = keys_of(good, kind, tenants)
    fixed = good[FIXED_SPLIT].to_list()
    has = set(fixed)
    valid, test = (0.0 if name in has else share for name, share in (("valid", split.valid), ("test", split.test)))
    # Rows of a training file are dealt further only to splits that no file has.
    places = [place_of(key, split.seed) for key in keys]
    placed = [
        name if name in ("valid", "test") else split_at(place, valid, test)
        for name, place in zip(fixed, places, strict=True)
    ]
    if tenants and not split.group:  # a group stays together, whoever's rows it has
        open_ = split.model_copy(update={"valid": valid, "test": test})
        placed = with_rows_of_each(placed, good[tenants].to_list(), keys, places, open_)
    rest = good.drop(FIXED_SPLIT)
    return {name: rest.filter(pl.Series(placed, dtype=pl.String) == name) for name in SPLITS}


def _given(texts: pl.Series) -> list[str]:
    """What the model is given in one column; whether an earlier answer is learned is no part of it."""
    return [_WEIGHT.sub('"]', text) for text in texts] if texts.name == HISTORY else texts.to_list()


def refuse_empty(parts: dict[str, pl.DataFrame], split: Split) -> None:
    """Whether each split that is to have rows has one.

    Raises:
        BiaslineError: where the training split, or one that params give a share, has no rows; with how many are needed.
    """
    shares = {"train": 1.0, "valid": split.valid, "test": split.test}
    rows = sum(part.height for part in parts.values())
    name = next((name for name, part in parts.items() if part.is_empty() and shares[name] > 0), None)
    if name is None:
        return
    least = min(share for share in (split.valid, split.test) if share > 0)
    needed = math.ceil(math.log(_CHANCE) / math.log(1 - least))
    without = {"valid": "; split.valid: 0 does without validation rows", "train": ""}
    without["test"] = "; a test there must be, validation rows need not (split.valid: 0)" if split.valid else ""
    if rows < needed:
        few = "1 good row is" if rows == 1 else f"{rows} good rows are"
        raise BiaslineError(
            f"the {name} split is empty: {few} too few for split.valid {split.valid:g} and split.test {split.test:g}",
            f"about {needed} rows give each split one, some hundreds give numbers that mean anything: add rows"
            f"{without[name]}",
        )
    why = f"the groups of {split.group!r} leave it none" if split.group else "the others leave it none"
    raise BiaslineError(
        f"the {name} split is empty: of {rows:,} good rows {why}",
        f"look at what quality.off and given files leave, add rows, or change the shares{without[name]}",
    )


def without_near_duplicates(
    parts: dict[str, pl.DataFrame], kind: Columns, threshold: float, within: bool, across: bool, tenants: str = ""
) -> tuple[dict[str, pl.DataFrame], dict[str, pl.DataFrame]]:
    """Splits without rows that nearly repeat others.

    Args:
        parts: the splits.
        kind: says which columns are the prompt.
        threshold: see `near_duplicates`.
        within: take out rows that are nearly an earlier row of their split: a prompt with its output, or a text.
        across: take out training rows whose prompt is nearly that of a validation or test row, and validation rows
            whose prompt is nearly that of a test row: what is tested was then never shown, not even in other words.
        tenants: a column within whose values rows are compared, and with no others.

    Returns:
        the splits, and what was taken out: `near_duplicate`, `leak` → rows.
    """
    taken: dict[str, list[pl.DataFrame]] = {}

    def take(name: str, reason: str, places: Iterable[int]) -> None:
        mask = pl.int_range(parts[name].height, eager=True).is_in(list(places))
        if mask.any():
            taken.setdefault(reason, []).append(parts[name].filter(mask))
            parts[name] = parts[name].filter(~mask)

    parts = dict(parts)
    if across:
        order = ("test", "valid", "train")
        asked = [prompts(parts[name], kind) for name in order]
        numbers = [pl.repeat(number, len(part), dtype=pl.Int64, eager=True) for number, part in enumerate(asked)]
        owners = pl.concat([parts[name][tenants] for name in order]) if tenants else None
        leaks = near_duplicates(pl.concat(asked), threshold, pl.concat(numbers), owners)
        start = 0
        for name, part in zip(order, asked, strict=True):
            take(name, "leak", [place - start for place in leaks if start <= place < start + len(part)])
            start += len(part)
    if within:
        compared = kind.columns if kind.looks == "text" else kind.given
        for name in SPLITS:
            owners = parts[name][tenants] if tenants else None
            take(name, "near_duplicate", near_duplicates(_joined(parts[name], compared), threshold, groups=owners))
    return parts, {reason: pl.concat(frames) for reason, frames in taken.items()}


def prompts(frame: pl.DataFrame, kind: Columns) -> pl.Series:
    """All that the model is given of each row, as one text."""
    return _joined(frame, kind.given)


def _joined(frame: pl.DataFrame, columns: tuple[str, ...]) -> pl.Series:
    return frame.select(pl.concat_str(columns, separator="\n")).to_series()
