"""Texts with labels or scores in tokens: a text, or a pair, as the tokenizer itself puts them together."""

import json
import re
import statistics
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from biasline.bases.tokenizer import Tokenizer
from biasline.errors import BiaslineError

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as RustTokenizer


def text_encoder(tokenizer: Tokenizer, markers: Collection[str] = ()) -> "RustTokenizer":
    """The Rust encoder of a fast Transformers tokenizer, for which special tokens written out in a text are text.

    A copy, since the tokenizer's own has switches that every call of it turns; and without the wrapper, whose offsets,
    masks and dictionaries take as long as the encoding.

    Args:
        tokenizer: a fast Transformers tokenizer.
        markers: further added tokens that are text in a text, though the tokenizer does not call them special.
    """
    from tokenizers import Tokenizer

    state = tokenizer.backend_tokenizer.to_str()
    if any(not token.special and str(token) in markers for token in tokenizer.added_tokens_decoder.values()):
        parsed = json.loads(state)
        for token in parsed["added_tokens"]:
            token["special"] |= token["content"] in markers
        state = json.dumps(parsed)
    encoder = Tokenizer.from_str(state)
    encoder.no_padding()
    encoder.no_truncation()
    encoder.encode_special_tokens = True
    return encoder


class TextEncoder:
    """Turns texts into tokens with one tokenizer, special tokens as the tokenizer puts them.

    A tokenizer that adds none by itself (a causal model's) gets its end-of-sequence token behind each text: the last
    token is what such a model's classification head reads. Threads may share an encoder.

    Args:
        tokenizer: a fast Transformers tokenizer.
        max_length: longest sequence in tokens; longer texts lose their end, the longer one of a pair first.
        token_types: whether the base wants to be told which text of a pair a token is of. A fast tokenizer that was
            loaded from its files alone does not know that; the base's config does.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int, token_types: bool) -> None:
        self.inputs = ("input_ids", "token_type_ids") if token_types else ("input_ids",)
        self.ending: list[int] = []
        if not tokenizer("").input_ids:
            if tokenizer.eos_token_id is None:
                raise BiaslineError(
                    "the base's tokenizer has no special token to read a text's class at",
                    "take a base that names an end of sequence, or save a copy of it that does and pin that",
                )
            self.ending = [tokenizer.eos_token_id]
        pair = tokenizer("a", "b").input_ids
        self._plain_pairs = bool(self.ending) or pair.count(tokenizer.bos_token_id) > 1
        self._encoder = text_encoder(tokenizer)
        self._encoder.enable_truncation(max_length - len(self.ending), direction=tokenizer.truncation_side)

    def texts(self, texts: Sequence[str], pairs: Sequence[str]) -> list[dict[str, list[int]]]:
        """The model's inputs of texts: `input_ids` and, where wanted, `token_type_ids`.

        Args:
            texts: the first texts.
            pairs: the second texts; empty where there is none.
        """
        return self.texts_and_cuts(texts, pairs)[0]

    def texts_and_cuts(
        self, texts: Sequence[str], pairs: Sequence[str]
    ) -> tuple[list[dict[str, list[int]]], list[bool]]:
        """As `texts`, and of each whether it was too long and lost a part."""
        given: list[str | tuple[str, str]]
        if self._plain_pairs:  # no special token between the two: a line break keeps them apart
            given = [f"{one}\n{two}" if two else one for one, two in zip(texts, pairs, strict=True)]
        else:
            given = [(one, two) if two else one for one, two in zip(texts, pairs, strict=True)]
        encoded = self._encoder.encode_batch_fast(given)
        return [self._inputs(found) for found in encoded], [bool(found.overflowing) for found in encoded]

    def _inputs(self, found: "Encoding") -> dict[str, list[int]]:
        ids, types = found.ids + self.ending, found.type_ids
        values = {"input_ids": ids, "token_type_ids": types + types[-1:] * len(self.ending)}
        return {name: values[name] for name in self.inputs}


def label_names(asked: Sequence[str], train: Sequence[str]) -> list[str]:
    """Label names in the order of their numbers: as asked, or those of the training rows (numbers by value).

    Raises:
        BiaslineError: where the training rows have fewer than two labels, or one that was not asked for.
    """
    found = set(train)
    if unknown := sorted(found - set(asked)) if asked else []:
        raise BiaslineError(
            f"source.labels: a training row has the label {unknown[0]!r}; expected one of {', '.join(asked)}",
            "add it there, or mend the data",
        )
    if len(found) < 2:
        raise BiaslineError(
            f"all training rows have the label {train[0]!r}" if found else "there are no training rows",
            "a classification needs two labels at least",
        )
    if asked:
        return list(asked)
    numeric = all(re.fullmatch(r"-?[0-9]+", name) for name in found)
    return sorted(found, key=int) if numeric else sorted(found)


def label_numbers(names: Sequence[str], labels: Sequence[str], rows: Sequence[int], split: str) -> list[int]:
    """The number of each label; `BiaslineError` names the first row whose label training does not know."""
    number = {name: index for index, name in enumerate(names)}
    for row, label in zip(rows, labels, strict=True):
        if label not in number:
            raise BiaslineError(
                f"row {row} ({split} split) has the label {label!r}, which no training row has; known: "
                f"{', '.join(names)}",
                "add training rows of it, or take the row out",
            )
    return [number[label] for label in labels]


def check_sets(names: Sequence[str], train: Sequence[Sequence[str]]) -> None:
    """Whether rows that may have any number of labels can be learned from.

    Args:
        names: of all labels.
        train: those of each training row.

    Raises:
        BiaslineError: where the training rows all have the same, or one that is none of the names.
    """
    if unknown := sorted({name for held in train for name in held} - set(names)):
        raise BiaslineError(
            f"source.labels: a training row has the label {unknown[0]!r}; expected some of {', '.join(names)}",
            "add it there, or mend the data",
        )
    if len({frozenset(held) for held in train}) < 2:
        what = f"all training rows have the same labels: {', '.join(train[0]) or 'none'}" if train else ""
        raise BiaslineError(what or "there are no training rows", "labels are learned where rows differ in them")


def set_flags(names: Sequence[str], sets: Sequence[Sequence[str]], rows: Sequence[int], split: str) -> list[list[int]]:
    """Of each row 1 for each label that it has and 0 for each other, (rows, labels).

    Raises:
        BiaslineError: naming the first row that has a label which training does not know.
    """
    known = set(names)
    for row, held in zip(rows, sets, strict=True):
        if unknown := [name for name in held if name not in known]:
            raise BiaslineError(
                f"row {row} ({split} split) has the label {unknown[0]!r}, which no training row has; known: "
                f"{', '.join(names)}",
                "add training rows of it, or take the row out",
            )
    return [[int(name in held) for name in names] for held in sets]


def score_scale(scores: Sequence[float]) -> dict[str, float]:
    """`mean` and `std` of the training rows' scores: a head learns them as (score - mean) / std, whatever their range.

    Raises:
        BiaslineError: where all are the same.
    """
    std = statistics.pstdev(scores) if scores else 0.0
    if not std > 0:
        what = f"all training rows have the score {scores[0]:g}" if scores else "there are no training rows"
        raise BiaslineError(what, "a regression needs scores that differ")
    return {"mean": statistics.fmean(scores), "std": std}
