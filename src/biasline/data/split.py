"""Splitting by content: where a row goes depends on its own text alone, so new rows never move old ones."""

import hashlib
import unicodedata

import polars as pl

from biasline.data.kinds import Kind
from biasline.errors import BiaslineError
from biasline.layout import SPLITS, TaskPlace
from biasline.params import Split


def content_key(*texts: str) -> str:
    """What makes two prompts the same: their texts, with width, case and white space folded.

    The answer has no part in it, so that two answers to one question never stand on both sides of a split.
    """
    folded = unicodedata.normalize("NFKC", "\n".join(texts)).casefold()
    return " ".join(folded.split())


def split_of(key: str, split: Split) -> str:
    """`train`, `valid` or `test` for a content key: a hash dealt over the unit interval."""
    digest = hashlib.sha256(f"{split.seed}\x1f{key}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < split.test:
        return "test"
    return "valid" if position < split.test + split.valid else "train"


def split_examples(good: pl.DataFrame, kind: Kind, split: Split) -> dict[str, pl.DataFrame]:
    """Deal good rows to the three splits, keeping their order.

    Errors: `BiaslineError` where the training split, or a split that params give a share, would be empty.
    """
    keys = map(content_key, *(good[name].to_list() for name in kind.prompt))
    placed = pl.Series([split_of(key, split) for key in keys], dtype=pl.String)
    parts = {name: good.filter(placed == name) for name in SPLITS}
    shares = {"train": 1.0, "valid": split.valid, "test": split.test}
    for name, part in parts.items():
        if part.is_empty() and shares[name] > 0:
            raise BiaslineError(
                f"the {name} split is empty: {good.height} good rows are too few for split.{name} {shares[name]:g}",
                "add rows or raise the share",
            )
    return parts


def read_split(place: TaskPlace, name: str) -> pl.DataFrame:
    """A clean split as validate wrote it."""
    if not place.split(name).is_file():
        raise BiaslineError(f"{place.split(name)}: not there", f"dvc repro validate@{place.task}")
    return pl.read_parquet(place.split(name))
