"""Texts with labels in tokens: a text, or a pair, as the tokenizer itself puts them together."""

from collections.abc import Sequence
from typing import Any

from biasline.errors import BiaslineError


class TextEncoder:
    """Turns texts into tokens with one tokenizer, special tokens as the tokenizer puts them.

    A tokenizer that adds none by itself (a causal model's) gets its end-of-sequence token behind each text: the last
    token is what such a model's classification head reads.

    Args:
        tokenizer: a fast Transformers tokenizer.
        max_length: longest sequence in tokens; longer texts lose their end, the longer one of a pair first.
        token_types: whether the base wants to be told which text of a pair a token is of. A fast tokenizer that was
            loaded from its files alone does not know that; the base's config does.
    """

    def __init__(self, tokenizer: Any, max_length: int, token_types: bool) -> None:
        self.tokenizer = tokenizer
        self.token_types = token_types
        self.inputs = ("input_ids", "token_type_ids") if token_types else ("input_ids",)
        self.max_length = max_length
        self.ending = [] if tokenizer("").input_ids else [tokenizer.eos_token_id]
        if self.ending == [None]:
            raise BiaslineError("the base's tokenizer has no special token to read a text's class at", "set eos_token")

    def texts(self, texts: Sequence[str], pairs: Sequence[str]) -> list[dict[str, list[int]]]:
        """The model's inputs of texts: `input_ids` and, where wanted, `token_type_ids`.

        Args:
            pairs: the second texts; empty where there is none.
        """
        rows: list[dict[str, list[int]]] = [{} for _ in texts]
        # Apart, so that what a row becomes does not depend on the rows beside it.
        for paired in (False, True):
            chosen = [index for index, pair in enumerate(pairs) if bool(pair) == paired]
            firsts, seconds = [texts[index] for index in chosen], [pairs[index] for index in chosen]
            if paired and self.ending:  # no special token of its own: a line break keeps the two apart
                firsts, seconds = [f"{one}\n{two}" for one, two in zip(firsts, seconds, strict=True)], []
            for index, row in zip(chosen, self._inputs(firsts, seconds if paired else []), strict=True):
                rows[index] = row
        return rows

    def _inputs(self, texts: list[str], pairs: list[str]) -> list[dict[str, list[int]]]:
        if not texts:
            return []
        found = self.tokenizer(
            texts,
            pairs or None,
            truncation=True,
            max_length=self.max_length - len(self.ending),
            split_special_tokens=True,
            return_attention_mask=False,
            return_token_type_ids=True,
        )
        rows = []
        for ids, types in zip(found.input_ids, found.token_type_ids, strict=True):
            row = {"input_ids": ids + self.ending}
            if self.token_types:
                row["token_type_ids"] = types + types[-1:] * len(self.ending)
            rows.append(row)
        return rows


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
