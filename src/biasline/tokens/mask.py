"""Exact token ids and labels: a dialogue's pieces are tokenized apart, and only what the assistant says is supervised.

Apart, because a merge across the border would shift the mask by a token; the end of each answer is always supervised,
or the tuned model would never stop.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from biasline.errors import BiaslineError
from biasline.tokens.template import Piece, Template, Turn

IGNORED = -100


@dataclass(frozen=True)
class Encoded:
    """One example in tokens: `input_ids` and `labels` of equal length; `IGNORED` where nothing is supervised."""

    input_ids: list[int]
    labels: list[int]


class Encoder:
    """Turns dialogues into tokens with one tokenizer and one template.

    Args:
        tokenizer: a fast Transformers tokenizer.
        template: see `Template`.
        max_length: longest sequence in tokens, the end of the answer included.
        long_response: `reject` or `truncate` an answer that fills `max_length` by itself.

    Special tokens written out in the data are read as plain text: data must not end a sequence or forge a turn.

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
        self._own_words: dict[str, list[int]] = {}

    def stops(self) -> list[int]:
        """Tokens that end an answer: the tokenizer's end of sequence, and the template's end of turn."""
        [found] = self.examples([[Turn("user", "?"), Turn("assistant", "!")]])
        last = next(label for label in reversed(found.labels) if label != IGNORED) if found else self.eos
        return [self.eos] if last == self.eos else [self.eos, last]

    def prompts(self, dialogues: Sequence[Sequence[Turn]]) -> list[list[int]]:
        """Token ids of dialogues up to where the assistant speaks, cut from the left to leave room for an answer."""
        return [
            self._cut([token for ids, _ in parts for token in ids], self.max_length - 2)
            for parts in self._encoded(dialogues)
        ]

    def examples(self, dialogues: Sequence[Sequence[Turn]]) -> list[Encoded | None]:
        """Token ids and labels; None where a row is left out: its last answer is too long or has no token."""
        return [self._example(parts) for parts in self._encoded(dialogues)]

    def _example(self, parts: list[tuple[list[int], bool]]) -> Encoded | None:
        # The last run of supervised pieces is the answer; what a template writes behind its end is nobody's business.
        last = max((place for place, (_, supervised) in enumerate(parts) if supervised), default=-1)
        first = last
        while first > 0 and parts[first - 1][1]:
            first -= 1
        answer = [token for ids, _ in parts[first : last + 1] for token in ids]
        ended = last > first and parts[last][0]
        ending = parts[last][0] if ended else [self.eos]
        said = answer[: len(answer) - len(ending)] if ended else answer
        before = self._unfronted([token for ids, _ in parts[:first] for token in ids])
        labels = [token if supervised else IGNORED for ids, supervised in parts[:first] for token in ids]
        # A response without any of its prompt would teach nothing about it: a quarter of the length stays the prompt's.
        kept = min(len(before), self.max_length // 4)
        room = self.max_length - len(self.prefix) - kept - len(ending)
        if last < 0 or not said:
            return None
        if len(said) > room:
            if self.long_response == "reject":
                return None
            said = said[:room]
        answer = [*said, *ending]
        prompt = self._cut(before, self.max_length - len(answer))
        shown = len(prompt) - len(self.prefix)
        labels = [IGNORED] * len(self.prefix) + labels[len(labels) - shown :]
        return Encoded(prompt + answer, labels + answer)

    def _unfronted(self, ids: list[int]) -> list[int]:
        """Without the BOS that a template may have put there: it is put in front of what is left after cutting."""
        return ids[len(self.prefix) :] if ids[: len(self.prefix)] == self.prefix else ids

    def _cut(self, ids: list[int], room: int) -> list[int]:
        """BOS, and the last tokens that fit beside it: the end says whose turn it is."""
        ids, room = self._unfronted(ids), room - len(self.prefix)
        return self.prefix + (ids[len(ids) - room :] if len(ids) > room else ids)

    def _encoded(self, dialogues: Sequence[Sequence[Turn]]) -> list[list[tuple[list[int], bool]]]:
        """Each dialogue's pieces as (token ids, supervised); all contents in one call of the tokenizer."""
        cut = [self.template.pieces(turns) for turns in dialogues]
        contents = iter(self._ids([piece.text for pieces in cut for piece in pieces if not piece.special]))
        return [[(self._words(piece, contents), piece.supervised) for piece in pieces] for pieces in cut]

    def _words(self, piece: Piece, contents: Iterable[list[int]]) -> list[int]:
        if not piece.special:
            return next(iter(contents))
        if piece.text not in self._own_words:
            self._own_words[piece.text] = self.tokenizer(piece.text, add_special_tokens=False).input_ids
        return self._own_words[piece.text]

    def _ids(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        return self.tokenizer(
            list(texts), add_special_tokens=False, split_special_tokens=True, return_attention_mask=False
        ).input_ids
