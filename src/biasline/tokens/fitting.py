"""What goes where a dialogue is too long: whole exchanges, the oldest first, then a part of the last question.

A dialogue is shortened as text and rendered anew, so that the template's words, the system prompt and every answer that
stays are whole, and what is left reads as a dialogue of that length would.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from biasline.tokens.template import Turn

Dialogue = Sequence[Turn]
# Tokens before the last answer of each dialogue.
_Lengths = Callable[[Sequence[Dialogue]], np.ndarray]


@dataclass(frozen=True)
class Fitted:
    """Dialogues, and what each lost.

    Attributes:
        dialogues: as they are now.
        exchanges: how many of its oldest exchanges each lost.
        shortened: whether the last question of each lost a part.
    """

    dialogues: Sequence[Dialogue]
    exchanges: np.ndarray
    shortened: np.ndarray

    @classmethod
    def whole(cls, dialogues: Sequence[Dialogue]) -> "Fitted":
        """Dialogues that lost nothing."""
        return cls(dialogues, np.zeros(len(dialogues), np.int64), np.zeros(len(dialogues), bool))

    def with_rows(self, places: np.ndarray, other: "Fitted") -> "Fitted":
        """With those of `other` at some places, in their order."""
        dialogues, exchanges, shortened = list(self.dialogues), self.exchanges.copy(), self.shortened.copy()
        for place, dialogue in zip(places, other.dialogues, strict=True):
            dialogues[place] = dialogue
        exchanges[places], shortened[places] = other.exchanges, other.shortened
        return Fitted(dialogues, exchanges, shortened)


class Shortener:
    """Shortens dialogues to a number of tokens before their last answer.

    Args:
        texts: a Rust encoder of texts (see `texts.text_encoder`), which tells where in a text each token stands.
        lengths: counts the tokens before the last answers of dialogues.
        cut: where a question loses a part: in its `middle` or at its `start`.
    """

    def __init__(self, texts: Any, lengths: _Lengths, cut: str) -> None:
        self._texts = texts
        self._lengths = lengths
        self._from_start = cut == "start"

    def __call__(self, dialogues: Sequence[Dialogue], most: np.ndarray, least: int) -> Fitted:
        """The dialogues, each as short as it has to be.

        Args:
            dialogues: each ends with an answer.
            most: for each, the most tokens before that.
            least: tokens that a question keeps, if it has so many; a dialogue may stay too long for it.
        """
        without, exchanges = self._without_oldest(dialogues, most)
        over = self._lengths(without) > most
        found = list(without)
        for place in np.flatnonzero(over).tolist():
            found[place] = self._with_shorter_question(found[place], int(most[place]), least)
        shortened = np.array([one is not other for one, other in zip(found, without, strict=True)], bool)
        return Fitted(found, exchanges, shortened)

    def _without_oldest(self, dialogues: Sequence[Dialogue], most: np.ndarray) -> tuple[list[Dialogue], np.ndarray]:
        """Without the fewest exchanges that make each short enough; the last one always stays."""
        starts = [_exchanges(turns) for turns in dialogues]
        high = np.array([len(places) - 1 for places in starts], np.int64)
        low = np.minimum(1, high)
        while (open_ := np.flatnonzero(low < high)).size:  # halving the range of each
            middle = (low + high) // 2
            fits = self._lengths([_without(dialogues[i], starts[i], middle[i]) for i in open_.tolist()]) <= most[open_]
            high[open_] = np.where(fits, middle[open_], high[open_])
            low[open_] = np.where(fits, low[open_], middle[open_] + 1)
        return [_without(*one) for one in zip(dialogues, starts, high, strict=True)], high

    def _with_shorter_question(self, turns: Dialogue, most: int, least: int) -> Dialogue:
        """Its longest text loses tokens, then the other one if that is not enough."""
        place = max(place for place, turn in enumerate(turns) if turn.role == "user")
        spare: int | None = None
        while (over := int(self._lengths([turns])[0]) - most) > 0:
            turn = turns[place]
            found = {name: self._texts.encode(getattr(turn, name), add_special_tokens=False) for name in _TEXTS}
            sizes = {name: len(one.ids) for name, one in found.items()}
            spare = sum(sizes.values()) - least if spare is None else spare
            longest = max(sizes, key=lambda name: sizes[name])
            drop = min(over, sizes[longest], spare)
            if drop <= 0:
                break
            spare -= drop
            text = self._without_tokens(getattr(turn, longest), found[longest].offsets, drop)
            shorter: dict[str, Any] = {longest: text}
            turns = [*turns[:place], turn._replace(**shorter), *turns[place + 1 :]]
        return turns

    def _without_tokens(self, text: str, offsets: Sequence[tuple[int, int]], drop: int) -> str:
        """The text without so many of its tokens; a character that lies in several goes whole."""
        first = 0 if self._from_start else (len(offsets) - drop) // 2
        return text[: offsets[first][0]] + text[offsets[first + drop - 1][1] :]


# The parts of a user's turn that can be shortened.
_TEXTS = ("content", "input")


def _exchanges(turns: Dialogue) -> list[int]:
    """Where each exchange begins: a user's turn behind another's."""
    return [
        place
        for place, turn in enumerate(turns)
        if turn.role == "user" and (not place or turns[place - 1].role != "user")
    ]


def _without(turns: Dialogue, starts: Sequence[int], dropped: int) -> Dialogue:
    """Without the oldest exchanges; what the system says first stays."""
    return [*turns[: starts[0]], *turns[starts[dropped] :]] if dropped else turns
