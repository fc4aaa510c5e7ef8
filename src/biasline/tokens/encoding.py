"""What rows become: token sets, and how a kind of task says that they are made and shown."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from biasline.tokens.saved import IGNORED
from biasline.tokens.texts import TextEncoder


@dataclass(frozen=True)
class TokenSet:
    """Rows of one split in tokens.

    Attributes:
        table: `row`, `input_ids`, `labels` (per token, or the target of a row) and further inputs of the model.
        rejected: numbers of the rows that were left out.
        cut: of each row in the table, whether a text or question lost a part since it was too long.
        exchanges: of each row in the table, how many of its oldest exchanges it lost.
        counts: what else is counted of each row in the table, by what it is, (rows,) each.
    """

    table: pa.Table
    rejected: list[int]
    cut: np.ndarray
    exchanges: np.ndarray
    counts: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def joined(cls, parts: "Sequence[TokenSet]") -> "TokenSet":
        """Parts of one split, one behind the other."""
        return cls(
            pa.concat_tables([part.table for part in parts]),
            [row for part in parts for row in part.rejected],
            np.concatenate([part.cut for part in parts]),
            np.concatenate([part.exchanges for part in parts]),
            {name: np.concatenate([part.counts[name] for part in parts]) for name in parts[0].counts},
        )

    def ids(self) -> np.ndarray:
        """The tokens of all rows, one behind the other."""
        parts = [chunk.flatten().to_numpy() for chunk in self.table["input_ids"].chunks]
        return np.concatenate([np.zeros(0, np.int32), *parts])

    def lengths(self) -> np.ndarray:
        """Tokens of each row."""
        return pc.list_value_length(self.table["input_ids"]).to_numpy()

    def supervised(self) -> np.ndarray:
        """Supervised tokens of each row, where labels are per token."""
        counts = [np.zeros(0, np.int64)]
        for labels in self.table["labels"].chunks:
            marked = np.concatenate([[0], np.cumsum(labels.values.to_numpy() != IGNORED)])
            offsets = labels.offsets.to_numpy()
            counts.append(marked[offsets[1:]] - marked[offsets[:-1]])
        return np.concatenate(counts)


# Some rows of a split → their token set.
Encode = Callable[[str, pl.DataFrame], TokenSet]


def _nothing(_: Mapping[str, pl.DataFrame]) -> None:
    """Whatever the rows are, they can be asked."""


@dataclass(frozen=True)
class Encoding:
    """How the rows of a task become tokens, and how they are shown.

    Attributes:
        target: what answers are in numbers: `labels`, `score` or `template`; part of the summary.
        encode: makes tokens of rows.
        made: what answers are, in a few words, for the preview.
        show: a row of a token set as text, its target marked.
        marked: how `show` marks the target, as a sentence without its end.
        target_word: what a row's one target is called; empty where labels are per token.
        notes: what the user should know of how tokens are made.
        check: refuses rows that nobody could be asked, by split.
    """

    target: Mapping[str, Any]
    encode: Encode
    made: str
    show: Callable[[Mapping[str, Any]], str]
    marked: str
    target_word: str = ""
    notes: Sequence[str] = ()
    check: Callable[[Mapping[str, pl.DataFrame]], None] = _nothing

    @property
    def per_token(self) -> bool:
        """Whether tokens have labels, not rows."""
        return not self.target_word


def encode_texts(encoder: TextEncoder, frame: pl.DataFrame, targets: pa.Array) -> TokenSet:
    """The rows of texts, or pairs of them, with one target each.

    Args:
        encoder: makes tokens of texts.
        frame: rows with `text` and `text_pair`.
        targets: of the rows, (rows,), or lists of the same length each.
    """
    inputs, cut = encoder.texts_and_cuts(frame["text"].to_list(), frame["text_pair"].to_list())
    columns = {
        "row": pa.array(frame["row"].to_list(), pa.int32()),
        **{name: pa.array([row[name] for row in inputs], pa.list_(pa.int32())) for name in encoder.inputs},
        "labels": targets,
    }
    return TokenSet(pa.table(columns), [], np.array(cut, bool), np.zeros(len(cut), np.int64))
