"""Text from tokens as they come: what is told stays told."""

from collections.abc import Sequence

from biasline.bases.tokenizer import Tokenizer

_BROKEN = "\ufffd"  # what decoding gives for the first bytes of a character


class TextStream:
    """The text of an answer, without special tokens, as it grows.

    What all calls give together is the whole answer's text. White space, and what may be the beginning of a stop, waits
    for what follows it.

    Args:
        tokenizer: the base's.
        ends: tokens that end the answer and are no part of it.
        stops: texts that end it, and are no part of it.
        strip: whether white space at its ends is none of it.

    Attributes:
        text: all that was told.
        stopped: whether one of `stops` came.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        ends: frozenset[int] = frozenset(),
        stops: Sequence[str] = (),
        strip: bool = True,
    ) -> None:
        self._tokenizer, self._ends, self._strip = tokenizer, ends, strip
        self._stops = [stop for stop in stops if stop]
        self._ids: list[int] = []
        self.text = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """What there is to tell with a further token."""
        if self.stopped or token in self._ends:
            return ""
        self._ids.append(token)
        return self._told(self._decoded(), whole=False)

    def finish(self) -> str:
        """What there is to tell besides, now that nothing follows."""
        return "" if self.stopped else self._told(self._decoded(), whole=True)

    def _decoded(self) -> str:
        return self._tokenizer.batch_decode([self._ids], skip_special_tokens=True)[0]

    def _told(self, text: str, whole: bool) -> str:
        places = [place for place in (text.find(stop) for stop in self._stops) if place >= 0]
        if places:
            self.stopped = True
            text = text[: min(places)]
        elif not whole:
            text = text.rstrip(_BROKEN)
            held = max((_overlap(text, stop) for stop in self._stops), default=0)
            text = text[: len(text) - held]
        if self._strip:
            text = text.strip()
        if len(text) <= len(self.text):
            return ""
        new, self.text = text[len(self.text) :], text
        return new


def _overlap(text: str, stop: str) -> int:
    """Characters at the end of a text that may be the beginning of a stop."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:size])), 0)
