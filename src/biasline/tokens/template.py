"""How a dialogue becomes text, in pieces: what the model is given, and what it is to say.

Every template is a chat template in Jinja, as tokenizers carry them: it sees `messages` of `role` and `content` (a
user's also as `instruction` and `input`), `add_generation_prompt`, `bos_token` and `eos_token`. It is rendered with
marks in place of the contents, once for each sequence of roles, and cut at the marks: so the border between prompt and
response is exact, special tokens written out in the data stay text, and a file of rows costs one rendering.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from biasline.errors import BiaslineError, first_line

_HUMAN_ASSISTANT = (
    "{%- for m in messages -%}"
    "{%- if m.role == 'system' -%}{{ m.content + '\n\n' }}"
    "{%- elif m.role == 'user' -%}{{ 'Human: ' + m.content + '\n\n' }}"
    "{%- else -%}{{ 'Assistant: ' + m.content + eos_token }}{%- endif -%}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{ 'Assistant: ' }}{%- endif -%}"
)
# As Stanford Alpaca trains: one preamble with an input, one without.
_ALPACA = (
    "{%- for m in messages -%}"
    "{%- if m.role == 'system' -%}{{ m.content + '\n\n' }}"
    "{%- elif m.role == 'user' -%}"
    "{%- if loop.first -%}{{ 'Below is an instruction that describes a task' }}"
    "{%- if m.input -%}{{ ', paired with an input that provides further context' }}{%- endif -%}"
    "{{ '. Write a response that appropriately completes the request.\n\n' }}{%- endif -%}"
    "{{ '### Instruction:\n' + m.instruction + '\n\n' }}"
    "{%- if m.input -%}{{ '### Input:\n' + m.input + '\n\n' }}{%- endif -%}{{ '### Response:' }}"
    "{%- else -%}{{ m.content + eos_token }}{%- if not loop.last -%}{{ '\n\n' }}{%- endif -%}{%- endif -%}"
    "{%- endfor -%}"
)
BUILT_IN = {"human-assistant": _HUMAN_ASSISTANT, "alpaca": _ALPACA}
# The tokenizer's own template.
CHAT = "chat"

# Private characters: no text that passes the contract's eye has them next to digits by chance.
_OPEN, _CLOSE = "\ue000", "\ue001"
_MARK = re.compile(rf"{_OPEN}(\d+)([cix]){_CLOSE}")


class Turn(NamedTuple):
    """One turn of a dialogue: `system`, `user` or `assistant`, and what is said; a user may hand in an `input` too."""

    role: str
    content: str
    input: str = ""

    @property
    def text(self) -> str:
        """Content and input as one text."""
        return f"{self.content}\n{self.input}".rstrip() if self.role == "user" else self.content


class _Content(NamedTuple):
    """Where a template shows what is said: which turn, and what of it (`c` all, `i` without input, `x` the input)."""

    turn: int
    field: str


class Piece(NamedTuple):
    """A stretch of a rendered dialogue, to be tokenized as one text.

    Attributes:
        parts: the template's own words, and places of contents.
        supervised: whether the model is to say it.
        special: whether special tokens written in it are meant; then it is the template's words alone. Elsewhere they
            are text.
    """

    parts: tuple[str | _Content, ...]
    supervised: bool
    special: bool

    def text(self, turns: Sequence[Turn]) -> str:
        """What stands there in a dialogue."""
        return "".join([part if isinstance(part, str) else _said(turns, *part) for part in self.parts])


@dataclass(frozen=True, eq=False)
class Cut:
    """A template cut at its contents, for all dialogues of one sequence of roles; equal to itself alone.

    Attributes:
        pieces: in their order.
        answered: whether the assistant speaks last.
    """

    pieces: tuple[Piece, ...]
    answered: bool


def dialogue(instruction: str, text: str, history: str = "", output: str | None = None) -> list[Turn]:
    """The turns of an example.

    Args:
        instruction, text: the last thing that the user says; `text` is its input and may be empty.
        history: JSON list of [role, content] before that; empty for none.
        output: the answer; None where it is yet to be given.
    """
    turns = [Turn(role, content) for role, content in json.loads(history)] if history else []
    turns.append(Turn("user", instruction, text))
    return turns if output is None else [*turns, Turn("assistant", output)]


class Template:
    """A template, ready to cut dialogues into pieces.

    Args:
        name: one of `BUILT_IN`, `chat` for the tokenizer's own, or a template's text.
        tokenizer: a fast Transformers tokenizer.

    Errors: `BiaslineError` where the tokenizer has no template of its own, or the template does not render.
    """

    def __init__(self, name: str, tokenizer: Any) -> None:
        self.name = name
        self.tokenizer = tokenizer
        if name == CHAT:
            if not tokenizer.chat_template:
                raise BiaslineError(
                    "tokens.template: chat: the base's tokenizer has no chat template",
                    f"take one of {', '.join(BUILT_IN)}, or a .jinja file",
                )
            self._source = tokenizer.chat_template
        else:
            self._source = BUILT_IN.get(name, name)
        self._specials = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
        self._cut = lru_cache(maxsize=1024)(self._cut_shape)

    def cut(self, turns: Sequence[Turn]) -> Cut:
        """The pieces of a dialogue; where its last turn is not the assistant's, what makes the model answer is last.

        What the assistant says is supervised, and the special token behind it that ends the turn.

        Errors: `BiaslineError` where the template refuses the dialogue or leaves a turn out.
        """
        return self._cut(tuple([(turn.role, bool(turn.input)) for turn in turns]))

    def _cut_shape(self, shape: tuple[tuple[str, bool], ...]) -> Cut:
        """Neighbours that are tokenized alike are one piece, so that words may merge."""
        found: list[Piece] = []
        for part in self._rendered(shape):
            if isinstance(part, str):
                pieces = self._own_words(part, after_answer=bool(found) and found[-1].supervised)
            else:
                pieces = [Piece((part,), shape[part.turn][0] == "assistant", special=False)]
            for piece in pieces:
                before = found[-1] if found else None
                if before and not (before.special or piece.special) and before.supervised == piece.supervised:
                    found[-1] = before._replace(parts=before.parts + piece.parts)
                else:
                    found.append(piece)
        return Cut(tuple(found), shape[-1][0] == "assistant")

    def _own_words(self, text: str, after_answer: bool) -> list[Piece]:
        """The template's own text; behind an answer, up to its first special token, it ends the turn."""
        ends = [text.index(token) + len(token) for token in self._specials if token in text]
        end = min(ends, default=0) if after_answer else 0
        # Words behind the last special token are text like what follows them, so that the two may merge.
        last = max((text.rindex(token) + len(token) for token in self._specials if token in text[end:]), default=end)
        pieces = [
            Piece((text[:end],), True, special=True),
            Piece((text[end:last],), False, special=True),
            Piece((text[last:],), False, special=False),
        ]
        return [piece for piece in pieces if piece.parts[0]]

    def _rendered(self, shape: tuple[tuple[str, bool], ...]) -> list[str | _Content]:
        """The template's own text and the places of contents in turn."""
        messages = []
        for place, (role, has_input) in enumerate(shape):
            marks = {field: f"{_OPEN}{place}{field}{_CLOSE}" for field in "cix"}
            message = {"role": role, "content": marks["c"]}
            if role == "user":
                message |= {"instruction": marks["i"], "input": marks["x"] if has_input else ""}
            messages.append(message)
        try:
            text = self.tokenizer.apply_chat_template(
                messages,
                chat_template=self._source,
                tokenize=False,
                add_generation_prompt=shape[-1][0] != "assistant",
            )
        except Exception as error:  # a template is code
            told = " ".join(first_line(error).split())
            roles = ", ".join(role for role, _ in shape)
            raise BiaslineError(f"tokens.template: it does not render the turns {roles}: {told}") from None
        parts: list[str | _Content] = []
        end = 0
        for mark in _MARK.finditer(text):
            parts += [text[end : mark.start()], _Content(int(mark[1]), mark[2])]
            end = mark.end()
        parts = [part for part in [*parts, text[end:]] if part]
        shown = [part.turn for part in parts if isinstance(part, _Content)]
        for place, (role, _) in enumerate(shape):
            if shown.count(place) == 0 or (role == "assistant" and shown.count(place) > 1):
                times = "leaves out" if place not in shown else "shows more than once"
                raise BiaslineError(f"tokens.template: it {times} turn {place + 1} ({role})", "mend the template")
        return parts


def _said(turns: Sequence[Turn], place: int, field: str) -> str:
    turn = turns[place]
    return turn.text if field == "c" else turn.content if field == "i" else turn.input
