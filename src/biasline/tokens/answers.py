"""Dialogues in tokens, their answers supervised: the token sets of a language model."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from biasline.bases.tokenizer import Tokenizer
from biasline.errors import BiaslineError
from biasline.tokens.encoding import Encode, TokenSet
from biasline.tokens.mask import Encoded, Encoder
from biasline.tokens.saved import IGNORED
from biasline.tokens.template import Turn, dialogues_of

_LISTED = 10


def encode_answers(encoder: Encoder) -> Encode:
    """Makes token sets of dialogues whose answers are supervised."""

    def encode(_: str, frame: pl.DataFrame) -> TokenSet:
        rows = frame["row"].to_numpy()
        encoded = _examples(encoder, dialogues_of(frame, answered=True), rows)
        offsets = pa.array(np.concatenate([[0], np.cumsum(encoded.lengths)]), pa.int32())
        columns = {
            "row": pa.array(rows[encoded.kept], pa.int32()),
            "input_ids": pa.ListArray.from_arrays(offsets, pa.array(encoded.input_ids)),
            "labels": pa.ListArray.from_arrays(offsets, pa.array(encoded.labels)),
        }
        kept = encoded.kept
        return TokenSet(pa.table(columns), rows[~kept].tolist(), encoded.shortened[kept], encoded.exchanges[kept])

    return encode


def answer_columns(encoder: Encoder, frame: pl.DataFrame) -> dict[str, list[Any]]:
    """`row`, `input_ids` and `labels` of the rows of a clean split that a template and a length leave."""
    return encode_answers(encoder)("", frame).table.to_pydict()


def show_supervised(tokenizer: Tokenizer, input_ids: list[int], labels: list[int]) -> str:
    """The decoded example with every supervised run of tokens between ⟦ and ⟧."""
    parts: list[tuple[bool, list[int]]] = []
    for token, label in zip(input_ids, labels, strict=True):
        supervised = label != IGNORED
        if not parts or parts[-1][0] != supervised:
            parts.append((supervised, []))
        parts[-1][1].append(token)
    decoded = [(supervised, tokenizer.decode(tokens)) for supervised, tokens in parts]
    return "".join(f"⟦{text}⟧" if supervised else text for supervised, text in decoded)


def _examples(encoder: Encoder, dialogues: Sequence[Sequence[Turn]], rows: np.ndarray) -> Encoded:
    """The examples of dialogues; an error of the template names the rows that it refuses."""
    try:
        return encoder.examples(dialogues)
    except BiaslineError:
        refused: dict[str, list[int]] = {}
        for row, turns in zip(rows, dialogues, strict=True):
            try:
                encoder.template.cut(turns)
            except BiaslineError as error:
                refused.setdefault(str(error), []).append(int(row))
        if not refused:
            raise
    reason, numbers = max(refused.items(), key=lambda item: len(item[1]))
    listed = ", ".join(map(str, numbers[:_LISTED])) + (", …" if len(numbers) > _LISTED else "")
    raise BiaslineError(
        f"{len(numbers)} of {len(rows)} rows (row {listed}): {reason}",
        "leave them out (source.where), or take a template that knows such turns",
    )
