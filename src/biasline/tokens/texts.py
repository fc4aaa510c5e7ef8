"""Texts with labels in tokens: a text, or a pair, as the tokenizer itself puts them together."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from biasline.errors import BiaslineError


@dataclass(frozen=True)
class EncodedText:
    """One text (or pair) in tokens; `token_type_ids` say which of a pair a token is of, where the base wants that."""

    input_ids: list[int]
    token_type_ids: list[int]

    def inputs(self, tokenizer: Any) -> dict[str, list[int]]:
        """What the base's model takes."""
        if "token_type_ids" in tokenizer.model_input_names:
            return {"input_ids": self.input_ids, "token_type_ids": self.token_type_ids}
        return {"input_ids": self.input_ids}


class TextEncoder:
    """Turns texts into tokens with one tokenizer, special tokens as the tokenizer puts them.

    A tokenizer that adds none by itself (a causal model's) gets its end-of-sequence token behind each text: the last
    token is what such a model's classification head reads.

    Args:
        tokenizer: a fast Transformers tokenizer.
        max_length: longest sequence in tokens; longer texts lose their end, the longer one of a pair first.
    """

    def __init__(self, tokenizer: Any, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.ending = [] if tokenizer("").input_ids else [tokenizer.eos_token_id]
        if self.ending == [None]:
            raise BiaslineError("the base's tokenizer has no special token to read a text's class at", "set eos_token")

    def texts(self, texts: Sequence[str], pairs: Sequence[str]) -> list[EncodedText]:
        """Token ids of texts; `pairs` holds the second texts, all empty where there are none."""
        if not texts:
            return []
        found = self.tokenizer(
            list(texts),
            list(pairs) if any(pairs) else None,
            truncation=True,
            max_length=self.max_length - len(self.ending),
            split_special_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=True,
        )
        return [
            EncodedText(ids + self.ending, [*types, *types[-1:]] if self.ending else types)
            for ids, types in zip(found.input_ids, found.token_type_ids, strict=True)
        ]


def label_names(asked: Sequence[str], train: Sequence[str]) -> list[str]:
    """Label names in the order of their numbers: as asked, or those of the training rows (numbers by value).

    Errors: `BiaslineError` where the training rows have fewer than two labels, or one that was not asked for.
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
    numeric = all(name.lstrip("-").isdigit() for name in found)
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
