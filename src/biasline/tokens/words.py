"""Words with tags in tokens: which token is the first of which word."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa

from biasline.bases.tokenizer import Tokenizer
from biasline.metrics.spans import OUTSIDE
from biasline.tokens.encoding import TokenSet
from biasline.tokens.saved import IGNORED
from biasline.tokens.texts import text_encoder

if TYPE_CHECKING:
    from tokenizers import Encoding

# What tells how a tokenizer reads running text.
_PROBE = ["Words", "stand", "side", "by", "side"]
_SPACED = [_PROBE[0], *(f" {word}" for word in _PROBE[1:])]


# A word of running text: an abbreviation with its periods, an ideograph, a number or a word with what stands inside of
# it (3.5, don't), or else one character, such as punctuation.
_INSIDE = r"(?:['’‑\-@_&/+.:#·]|(?<=\d),(?=\d))"
_WORD = rf"(?:\p{{L}}\.){{2,}}|\p{{Han}}|[\w&&[^\p{{Han}}]]+(?:{_INSIDE}[\w&&[^\p{{Han}}]]+)*|[^\w\s]"
# Of a row that does not fit into one window, so much of the next is said again.
_AGAIN = 4


class Window(NamedTuple):
    """A row of words in tokens, or as much of it as fits.

    Attributes:
        inputs: of the model: `input_ids` and, where wanted, `token_type_ids`.
        first: number of a word → the place of its first token; words without a token are not in it.
        told: numbers of the words whose tags are read here, and in no other window of the row.
    """

    inputs: dict[str, list[int]]
    first: dict[int, int]
    told: list[int]


class WordEncoder:
    """Turns rows of words into tokens with one tokenizer, special tokens as the tokenizer puts them.

    Each word is encoded by itself, so that no token is of two words, and as it would be in running text: a tokenizer
    for which a space is part of the token behind it is given that space. Threads may share an encoder.

    Args:
        tokenizer: a fast Transformers tokenizer.
        max_length: longest sequence in tokens. A longer row takes several windows, each of whole words, the later ones
            with some words from before; of a word that is too long by itself the beginning is left.
        token_types: whether the base wants token types.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int, token_types: bool) -> None:
        self.inputs = ("input_ids", "token_type_ids") if token_types else ("input_ids",)
        self._max_length = max_length
        self._encoder = text_encoder(tokenizer)
        self.spaced = takes_spaces(tokenizer)

    def __call__(self, rows: Sequence[Sequence[str]]) -> list[list[Window]]:
        """Rows of words in tokens, one or more windows each."""
        return [self._windows(one) for one in self._encoder.encode_batch(self.given(rows), is_pretokenized=True)]

    def given(self, rows: Sequence[Sequence[str]]) -> list[list[str]]:
        """Words as the tokenizer is given them."""
        return [[words[0], *(f" {word}" for word in words[1:])] if self.spaced else list(words) for words in rows]

    def _windows(self, found: "Encoding") -> list[Window]:
        size = len(found.ids)
        owners = [-1 if word is None else word for word in found.word_ids]
        owned = [place for place, owner in enumerate(owners) if owner >= 0]
        if not owned:
            return [self._window(found, [*range(size)][: self._max_length], {}, [])]
        before, behind = owned[0], owned[-1] + 1
        starts = [place for place in owned if place == before or owners[place] != owners[place - 1]]
        ends = [*starts[1:], behind]
        room = max(self._max_length - before - (size - behind), 1)
        windows, at, told = [], 0, 0
        while True:
            stop = at + 1
            while stop < len(starts) and ends[stop] - starts[at] <= room:
                stop += 1
            back = stop
            while stop < len(starts) and back > at + 1 and ends[stop - 1] - starts[back - 1] <= room // _AGAIN:
                back -= 1
            # Of words that two windows have, each tells those that stand further from its end.
            until = stop if stop == len(starts) else (back + stop + 1) // 2
            kept = [*range(before), *range(starts[at], min(ends[stop - 1], starts[at] + room)), *range(behind, size)]
            first = {owners[starts[word]]: before + starts[word] - starts[at] for word in range(at, stop)}
            windows.append(self._window(found, kept, first, [owners[starts[word]] for word in range(told, until)]))
            if stop == len(starts):
                return windows
            at, told = back, until

    def _window(self, found: "Encoding", kept: Sequence[int], first: dict[int, int], told: list[int]) -> Window:
        values = {"input_ids": found.ids, "token_type_ids": found.type_ids}
        return Window({name: [values[name][place] for place in kept] for name in self.inputs}, first, told)


def words_of(text: str) -> list[tuple[str, int, int]]:
    """The words of running text, each with the place of its first character and of the one behind its last.

    White space parts words, punctuation at their ends is a word of its own, and so is each Chinese character.
    """
    from tokenizers import Regex
    from tokenizers.pre_tokenizers import Split

    return [(word, *span) for word, span in Split(Regex(_WORD), "removed", invert=True).pre_tokenize_str(text)]


def placed(words: Sequence[str]) -> list[tuple[str, int, int]]:
    """Words with the places that they have when a space stands between them, see `words_of`."""
    found, start = [], 0
    for word in words:
        found.append((word, start, start + len(word)))
        start += len(word) + 1
    return found


def takes_spaces(tokenizer: Tokenizer) -> bool:
    """Whether words must be given with the space before them to be read as in running text."""
    encoder = text_encoder(tokenizer)

    def ids(words: Sequence[str]) -> list[int]:
        return encoder.encode(list(words), is_pretokenized=True).ids

    running = encoder.encode(" ".join(_PROBE)).ids
    return ids(_PROBE) != running and ids(_SPACED) == running


def tag_names(asked: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Names of tags in the order of their numbers: as asked, or those of the training rows, O first."""
    found = {tag for text in texts for tag in text.split(" ")}
    return list(asked) if asked else sorted(found, key=lambda tag: (tag != OUTSIDE, tag))


def encode_words(encoder: WordEncoder, labels: Sequence[str], frame: pl.DataFrame) -> TokenSet:
    """Rows of words, the tag of each as the label of its first token.

    Of a row that takes several windows there is the first alone; rows without a token are left out.

    Args:
        encoder: makes tokens of words.
        labels: names of tags in the order of their numbers.
        frame: rows with `text` and `tags`.
    """
    number = {name: place for place, name in enumerate(labels)}
    columns: dict[str, list[Any]] = {name: [] for name in ("row", *encoder.inputs, "labels")}
    rejected, cut, silent, beyond = [], [], [], []
    words = [text.split(" ") for text in frame["text"]]
    for row, text, windows in zip(frame["row"], frame["tags"], encoder(words), strict=True):
        tags, (inputs, first, _) = text.split(" "), windows[0]
        if not first:
            rejected.append(row)
            continue
        targets = [IGNORED] * len(inputs["input_ids"])
        for word, place in first.items():
            targets[place] = number[tags[word]]
        for name, values in {"row": row, **inputs, "labels": targets}.items():
            columns[name].append(values)
        cut.append(len(windows) > 1)
        beyond.append(len({word for window in windows for word in window.first} - first.keys()))
        silent.append(len(tags) - len(first) - beyond[-1])
    types = {name: pa.int32() if name == "row" else pa.list_(pa.int32()) for name in columns}
    table = pa.table({name: pa.array(values, types[name]) for name, values in columns.items()})
    counts = {"words_without_token": np.array(silent, np.int64), "words_cut_off": np.array(beyond, np.int64)}
    return TokenSet(table, rejected, np.array(cut, bool), np.zeros(len(cut), np.int64), counts)


def show_tagged(tokenizer: Tokenizer, labels: Sequence[str], row: Mapping[str, Any]) -> str:
    """The decoded row with the tag of each word behind a stroke: `Berlin/B-LOC`."""
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    parts: list[tuple[list[int], str]] = []
    for token, label in zip(row["input_ids"], row["labels"], strict=True):
        if label != IGNORED:
            parts.append(([token], f"/{labels[label]}"))
        elif token in special or not parts or not parts[-1][1]:
            parts.append(([token], ""))
        else:
            parts[-1][0].append(token)
    return " ".join(f"{tokenizer.decode(tokens).strip()}{told}" for tokens, told in parts)
