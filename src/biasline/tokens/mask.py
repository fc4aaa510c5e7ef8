"""Exact token ids and labels: a dialogue's pieces are tokenized apart, and only what the assistant says is supervised.

Apart, because a merge across the border would shift the mask by a token; the end of each answer is always supervised,
or the tuned model would never stop. Pieces become rows by arithmetic on where each begins and how long it is, for
many rows at once: Python's own lists would take longer than the tokenizer.
"""

from collections.abc import Sequence
from itertools import chain
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from biasline.errors import BiaslineError
from biasline.tokens.template import Cut, Template, Turn
from biasline.tokens.texts import text_encoder

IGNORED = -100

# What a segment is to its row: BOS; what comes before the last answer; that answer; its end; what a template writes
# behind that, which is nobody's business.
_FRONT, _BEFORE, _SAID, _ENDING, _BEHIND = range(5)
# A segment of what is said has no words of the template's.
_CONTENT = -1


class Encoded(NamedTuple):
    """Examples in tokens, one after the other.

    Attributes:
        kept: for each dialogue, whether it is here; one whose last answer is too long or has no token is left out.
        lengths: tokens of each example.
        input_ids: the tokens of all.
        labels: the token itself where it is supervised, else `IGNORED`.
    """

    kept: np.ndarray
    lengths: np.ndarray
    input_ids: np.ndarray
    labels: np.ndarray


class _Segments(NamedTuple):
    """The pieces of many dialogues, one after the other: of which row, what each is to it, and its tokens in `pool`."""

    row: np.ndarray
    role: np.ndarray
    supervised: np.ndarray
    start: np.ndarray
    length: np.ndarray
    pool: np.ndarray
    rows: int

    def sums(self, role: int) -> np.ndarray:
        """Tokens of a role in each row."""
        counted = self.role == role
        return np.bincount(self.row[counted], self.length[counted], self.rows).astype(np.int64)

    def shortened(self, dropped: np.ndarray, said: np.ndarray) -> "_Segments":
        """Without the first `dropped` tokens before each row's answer, and with `said` tokens of that at most."""
        length = np.where(self.role == _BEHIND, 0, self.length)
        before, answer = self.role == _BEFORE, self.role == _SAID
        off = np.clip(dropped[self.row] - self._place(before), 0, self.length) * before
        over = np.clip(self._place(answer) + self.length - said[self.row], 0, self.length) * answer
        return self._replace(start=self.start + off, length=length - off - over)

    def tokens(self, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All tokens of the segments of some rows (a truth value each), and which of them are supervised."""
        length = np.where(of[self.row], self.length, 0)
        ends = np.cumsum(length)
        places = np.arange(ends[-1] if len(ends) else 0) + np.repeat(self.start - (ends - length), length)
        return self.pool[places], np.repeat(self.supervised, length)

    def _place(self, counted: np.ndarray) -> np.ndarray:
        """Of each counted segment, how many tokens of counted ones stand before it in its row."""
        lengths = np.where(counted, self.length, 0)
        before = np.cumsum(lengths) - lengths
        first = np.searchsorted(self.row, np.arange(self.rows))  # rows are in order, and none is empty
        return before - before[first][self.row]


class Encoder:
    """Turns dialogues into tokens with one tokenizer and one template.

    Args:
        tokenizer: a fast Transformers tokenizer.
        template: see `Template`.
        max_length: longest sequence in tokens, the end of the answer included.
        long_response: `reject` or `truncate` an answer that fills `max_length` by itself.

    Special tokens written out in the data are read as plain text: data must not end a sequence or forge a turn.
    Threads may share an encoder.

    Errors: `BiaslineError` where the tokenizer has no end-of-sequence token, or the template does not work with it.
    """

    def __init__(self, tokenizer: Any, template: str, max_length: int, long_response: str = "reject") -> None:
        if tokenizer.eos_token_id is None:
            raise BiaslineError("the base's tokenizer has no end-of-sequence token", "set eos_token in its config")
        self.tokenizer = tokenizer
        self.template = Template(template, tokenizer)
        self.max_length = max_length
        self.long_response = long_response
        self.eos: int = tokenizer.eos_token_id
        start = tokenizer("").input_ids[:1]
        # Tokenizers that begin every sequence with BOS (LLaMA's) get it once, in front, unless the template has it.
        self.prefix: list[int] = start if start and start[0] == tokenizer.bos_token_id else []
        # The template's own words in tokens, one after the other; where those of a cut's segments stand among them.
        self._words: list[int] = []
        self._layouts: dict[Cut, np.ndarray] = {}
        self._laying = Lock()
        self._texts = text_encoder(tokenizer)

    def stops(self) -> list[int]:
        """Tokens that end an answer: the tokenizer's end of sequence, and the template's end of turn."""
        labels = self.examples([[Turn("user", "?"), Turn("assistant", "!")]]).labels
        last = int(labels[-1]) if len(labels) else self.eos
        return [self.eos] if last == self.eos else [self.eos, last]

    def prompts(self, dialogues: Sequence[Sequence[Turn]]) -> list[list[int]]:
        """Token ids of dialogues up to where the assistant speaks, cut from the left to leave room for an answer."""
        found = self._segments(dialogues)
        before = found.sums(_BEFORE)
        found = found.shortened(before - (self.max_length - 2 - len(self.prefix)), np.zeros_like(before))
        ids, _ = found.tokens(np.ones(found.rows, bool))
        ends = np.cumsum(found.sums(_FRONT) + found.sums(_BEFORE))
        return [part.tolist() for part in np.split(ids, ends[:-1])]

    def examples(self, dialogues: Sequence[Sequence[Turn]]) -> Encoded:
        """Dialogues in tokens, the last answer whole (or cut, if `long_response` says so) and its end supervised."""
        found = self._segments(dialogues)
        before, said, ending = found.sums(_BEFORE), found.sums(_SAID), found.sums(_ENDING)
        # A response without any of its prompt would teach nothing about it: a quarter of the length stays the prompt's.
        own = self.max_length - len(self.prefix) - ending
        room = own - np.minimum(before, self.max_length // 4)
        kept = (said > 0) & ((said <= room) | (self.long_response == "truncate"))
        said = np.minimum(said, room)
        found = found.shortened(before - (own - said), said)
        ids, supervised = found.tokens(kept)
        lengths = np.bincount(found.row, found.length, found.rows).astype(np.int32)
        return Encoded(kept, lengths[kept], ids, np.where(supervised, ids, np.int32(IGNORED)))

    def _segments(self, dialogues: Sequence[Sequence[Turn]]) -> _Segments:
        """All pieces of the dialogues; their contents in one call of the encoder."""
        cuts = [self.template.cut(turns) for turns in dialogues]
        by_cut = {cut: self._layout(cut) for cut in set(cuts)}
        layouts = [by_cut[cut] for cut in cuts]
        texts = [
            piece.text(turns)
            for cut, turns in zip(cuts, dialogues, strict=True)
            for piece in cut.pieces
            if not piece.special
        ]
        contents = [found.ids for found in self._texts.encode_batch_fast(texts, add_special_tokens=False)]
        role, supervised, start, length = np.concatenate([np.zeros((0, 4), np.int64), *layouts]).T
        # The contents' tokens stand behind the template's words.
        words = self._words.copy()
        content, lengths = start == _CONTENT, np.fromiter(map(len, contents), np.int64, len(contents))
        length[content] = lengths
        start[content] = len(words) + np.cumsum(lengths) - lengths
        pool = np.fromiter(chain(words, chain.from_iterable(contents)), np.int32, len(words) + int(lengths.sum()))
        row = np.repeat(np.arange(len(layouts)), [len(layout) for layout in layouts])
        return _Segments(row, role, supervised == 1, start, length, pool, len(layouts))

    def _layout(self, cut: Cut) -> np.ndarray:
        """Segments of a cut's dialogues: role, whether supervised, and start and length of the template's words."""
        with self._laying:
            if cut not in self._layouts:
                self._layouts[cut] = np.array(self._laid(cut), np.int64)
            return self._layouts[cut]

    def _laid(self, cut: Cut) -> list[tuple[int, bool, int, int]]:
        pieces = cut.pieces
        # The last run of supervised pieces is the answer.
        end = len(pieces)
        while cut.answered and not pieces[end - 1].supervised:
            end -= 1
        first = end
        while cut.answered and first and pieces[first - 1].supervised:
            first -= 1
        ended = end > first + 1 and pieces[end - 1].special
        segments = [(_FRONT, False, *self._standing(self.prefix))]
        for place, piece in enumerate(pieces):
            role = _BEFORE if place < first else _SAID if place < end - ended else _ENDING if place < end else _BEHIND
            where = (_CONTENT, 0)
            if piece.special:
                ids = self.tokenizer(piece.text(()), add_special_tokens=False).input_ids
                # BOS that a template has in front is taken off: it is put in front of what is left after cutting.
                fronted = place == 0 and ids[: len(self.prefix)] == self.prefix
                where = self._standing(ids[len(self.prefix) * fronted :])
            segments.append((role, piece.supervised, *where))
            if cut.answered and place == end - 1 and not ended:
                segments.append((_ENDING, True, *self._standing([self.eos])))
        return segments

    def _standing(self, ids: list[int]) -> tuple[int, int]:
        """Put tokens of the template's behind those that are there; where they begin, and how many they are."""
        self._words += ids
        return len(self._words) - len(ids), len(ids)
