"""Exact token ids and labels: a dialogue's pieces are tokenized apart, and only what the assistant says is supervised.

Apart, because a merge across the border would shift the mask by a token; the end of each answer is always supervised,
or the tuned model would never stop. Pieces become rows by arithmetic on where each begins and how long it is, for
many rows at once: Python's own lists would take longer than the tokenizer. A dialogue that is too long is shortened as
a dialogue (see `fitting`) and tokenized anew: tokens of a prompt are never cut.
"""

from collections.abc import Sequence
from datetime import date
from itertools import chain
from threading import Lock
from typing import NamedTuple

import numpy as np

from biasline.bases.tokenizer import Tokenizer
from biasline.errors import BiaslineError
from biasline.params import Tokens
from biasline.tokens.fitting import Fitted, Shortener
from biasline.tokens.saved import IGNORED
from biasline.tokens.template import DAY, Cut, Template, Turn
from biasline.tokens.texts import text_encoder

# What a segment is to its row: BOS; what comes before the last answer; that answer; its end; what a template writes
# behind that, which is nobody's business.
_FRONT, _BEFORE, _SAID, _ENDING, _BEHIND = range(5)
# A segment of what is said has no words of the template's.
_CONTENT = -1


class Encoded(NamedTuple):
    """Examples in tokens, one after the other.

    Attributes:
        kept: for each dialogue, whether it is here; one whose last answer is too long or has no token is left out.
        exchanges: for each dialogue, how many of its oldest exchanges were left out for its length.
        shortened: for each dialogue, whether its question was shortened.
        lengths: tokens of each example.
        input_ids: the tokens of all.
        labels: the token itself where it is supervised, else `IGNORED`.
    """

    kept: np.ndarray
    exchanges: np.ndarray
    shortened: np.ndarray
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

    def with_answers_cut(self, said: np.ndarray) -> "_Segments":
        """Without what templates write behind answers, and with `said` tokens of each row's answer at most."""
        answer = self.role == _SAID
        length = np.where(self.role == _BEHIND, 0, self.length)
        return self._replace(length=np.where(answer, np.minimum(length, said[self.row]), length))

    def with_rows(self, places: np.ndarray, other: "_Segments") -> "_Segments":
        """With the rows of `other` at some places, in their order."""
        kept = ~np.isin(self.row, places)
        row = np.concatenate([self.row[kept], places[other.row]])
        order = np.argsort(row, kind="stable")

        def joined(own: np.ndarray, its: np.ndarray) -> np.ndarray:
            return np.concatenate([own[kept], its])[order]

        return _Segments(
            row[order],
            joined(self.role, other.role),
            joined(self.supervised, other.supervised),
            joined(self.start, other.start + len(self.pool)),
            joined(self.length, other.length),
            np.concatenate([self.pool, other.pool]),
            self.rows,
        )

    def tokens(self, of: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All tokens of the segments of some rows (a truth value each), and which of them are supervised."""
        length = np.where(of[self.row], self.length, 0)
        ends = np.cumsum(length)
        places = np.arange(ends[-1] if len(ends) else 0) + np.repeat(self.start - (ends - length), length)
        return self.pool[places], np.repeat(self.supervised, length)


class Encoder:
    """Turns dialogues into tokens with one tokenizer and one template.

    A dialogue that is too long loses its oldest exchanges first, then a part of its last question (see
    `fitting.Shortener`); the template's own words and the system prompt always stay.

    Args:
        tokenizer: a fast Transformers tokenizer.
        template: see `Template`.
        max_length: longest sequence in tokens, the end of the answer included.
        long_response: `reject` or `truncate` an answer that fills `max_length` by itself.
        shorten: where a question that is too long is cut, `middle` or `start`.
        day: see `Template`.

    Special tokens written out in the data are read as plain text: data must not end a sequence or forge a turn.
    Threads may share an encoder.

    Raises:
        BiaslineError: the tokenizer has no end-of-sequence token, or the template does not work with it.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: str,
        max_length: int,
        long_response: str = "reject",
        shorten: str = "middle",
        day: date = DAY,
    ) -> None:
        if tokenizer.eos_token_id is None:
            raise BiaslineError(
                "the base's tokenizer has no end-of-sequence token",
                "take a base that names one, or save a copy of it that does and pin that",
            )
        self.tokenizer = tokenizer
        self.template = Template(template, tokenizer, day)
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
        self._texts = text_encoder(tokenizer, self.template.markers)
        self._shortener = Shortener(self._texts, self._prompt_lengths, shorten)

    @classmethod
    def from_params(cls, tokenizer: Tokenizer, params: Tokens) -> "Encoder":
        """An encoder as a task's parameters say."""
        day = date.fromisoformat(params.date)
        return cls(tokenizer, params.template, params.max_length, params.long_response, params.shorten, day)

    def stops(self) -> list[int]:
        """Tokens that end an answer: the tokenizer's end of sequence, and what the template ends turns with.

        Earlier answers may end otherwise than the last one: some templates end a turn with the next one's beginning.
        """
        found = [self.eos]
        exchange = [Turn("user", "?"), Turn("assistant", "!")]
        for turns in (exchange, exchange * 2):
            try:
                cut = self.template.cut(turns)
            except BiaslineError:
                continue  # a template of single turns; said where a dialogue of that shape comes
            ends = [piece.text(()) for piece in cut.pieces if piece.special and piece.supervised]
            found += [self.tokenizer(text, add_special_tokens=False).input_ids[-1] for text in ends]
        return list(dict.fromkeys(found))

    def prompts(
        self, dialogues: Sequence[Sequence[Turn]], max_tokens: int | None = None, rows: Sequence[int] | None = None
    ) -> list[list[int]]:
        """Token ids of dialogues up to where the assistant speaks: the beginning of what training shows.

        Args:
            dialogues: each up to the user's last turn.
            max_tokens: longest prompt; by default what leaves room for an answer in `max_length`.
            rows: what errors call the dialogues; by default their places from 1 on.

        Raises:
            BiaslineError: naming the first dialogue whose system prompt leaves no room for its question.
        """
        most = self.max_length - 2 if max_tokens is None else max_tokens
        answered = [[*turns, Turn("assistant", "")] for turns in dialogues]
        found, _ = self._fitting(answered, np.full(len(answered), most), least=1)
        lengths = found.sums(_FRONT) + found.sums(_BEFORE)
        if (over := np.flatnonzero(lengths > most)).size:
            row = rows[over[0]] if rows else over[0] + 1
            raise BiaslineError(
                f"row {row}: the template and what the system says take {lengths[over[0]]} tokens, {most} are "
                "left for a prompt",
                "shorten the system prompt, or raise tokens.max_length",
            )
        found = found._replace(length=np.where(found.role <= _BEFORE, found.length, 0))
        ids, _ = found.tokens(np.ones(found.rows, bool))
        return [part.tolist() for part in np.split(ids, np.cumsum(lengths)[:-1])]

    def examples(self, dialogues: Sequence[Sequence[Turn]]) -> Encoded:
        """Dialogues in tokens, the last answer whole (or cut, if `long_response` says so) and its end supervised."""
        # An answer without any of its prompt would teach nothing about it: a quarter of the length stays the prompt's,
        # and of the question an eighth.
        found, fitted = self._fitting(dialogues, None, least=self.max_length // 8)
        said = found.sums(_SAID)
        room = self.max_length - (found.sums(_FRONT) + found.sums(_BEFORE) + found.sums(_ENDING))
        kept = (said > 0) & ((said <= room) | ((self.long_response == "truncate") & (room > 0)))
        found = found.with_answers_cut(np.minimum(said, np.maximum(room, 0)))
        ids, supervised = found.tokens(kept)
        lengths = np.bincount(found.row, found.length, found.rows).astype(np.int32)
        labels = np.where(supervised, ids, np.int32(IGNORED))
        return Encoded(kept, fitted.exchanges, fitted.shortened, lengths[kept], ids, labels)

    def _fitting(
        self, dialogues: Sequence[Sequence[Turn]], most: np.ndarray | None, least: int
    ) -> tuple[_Segments, Fitted]:
        """The pieces of dialogues, of those that are too long after shortening.

        Args:
            dialogues: each with its last answer.
            most: most tokens before each answer; None for what the answer leaves, and a quarter of `max_length`.
            least: tokens that a question keeps.
        """
        found = self._segments(dialogues)
        before = found.sums(_FRONT) + found.sums(_BEFORE)
        if most is None:
            left = self.max_length - found.sums(_SAID) - found.sums(_ENDING)
            most = np.maximum(left, np.minimum(before, self.max_length // 4))
        fitted = Fitted.whole(dialogues)
        places = np.flatnonzero(before > most)
        if places.size:
            part = self._shortener([dialogues[place] for place in places.tolist()], most[places], least)
            found = found.with_rows(places, self._segments(part.dialogues))
            fitted = fitted.with_rows(places, part)
        return found, fitted

    def _prompt_lengths(self, dialogues: Sequence[Sequence[Turn]]) -> np.ndarray:
        """Tokens before the last answer of each dialogue."""
        found = self._segments(dialogues)
        return found.sums(_FRONT) + found.sums(_BEFORE)

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
        segments = [(_FRONT, False, *self._standing(self.prefix))]
        for place, piece in enumerate(cut.pieces):
            # What stands where, seen from the last answer.
            role = (_BEFORE, _SAID, _ENDING if cut.ended else _BEHIND, _BEHIND)[min(max(place - cut.answer + 1, 0), 3)]
            where = (_CONTENT, 0)
            if piece.special:
                ids = self.tokenizer(piece.text(()), add_special_tokens=False).input_ids
                # BOS that a template has in front is taken off: it is put in front of every row.
                fronted = place == 0 and ids[: len(self.prefix)] == self.prefix
                where = self._standing(ids[len(self.prefix) * fronted :])
            segments.append((role, piece.supervised, *where))
            if place == cut.answer and not cut.ended:
                segments.append((_ENDING, True, *self._standing([self.eos])))
        return segments

    def _standing(self, ids: list[int]) -> tuple[int, int]:
        """Put tokens of the template's behind those that are there; where they begin, and how many they are."""
        self._words += ids
        return len(self._words) - len(ids), len(ids)
