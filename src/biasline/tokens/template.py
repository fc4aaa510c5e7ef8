"""How a dialogue becomes text, in pieces: what the model is given, and what it is to say.

Every template is a chat template in Jinja, as tokenizers carry them: it sees `messages` of `role` and `content` (a
user's also as `instruction` and `input`), `add_generation_prompt`, `bos_token` and `eos_token`. It is rendered with
marks in place of the contents, once for each sequence of roles, and cut at the marks: so the border between prompt and
response is exact, special tokens written out in the data stay text, and a file of rows costs one rendering.

A prompt is the beginning of a rendering with an answer, never what a template writes for `add_generation_prompt`: many
stock templates write something else there than before the answers of their training renderings.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from biasline.bases.tokenizer import Tokenizer
from biasline.errors import BiaslineError, first_line

if TYPE_CHECKING:
    import polars as pl

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
# What a template is given that asks for today's date, unless parameters name another day.
DAY = date(2025, 1, 1)

# Private characters: no text that passes the contract's eye has them next to digits by chance.
_OPEN, _CLOSE = "\ue000", "\ue001"
_MARK = re.compile(rf"{_OPEN}(\d+)([cix]){_CLOSE}")


class Turn(NamedTuple):
    """One turn of a dialogue.

    Attributes:
        role: `system`, `user` or `assistant`.
        content: what is said.
        input: what a user hands in beside it.
        supervised: whether an assistant's turn is trained on.
    """

    role: str
    content: str
    input: str = ""
    supervised: bool = True

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
        answer: the place of the last answer.
        ended: whether the piece behind it is the template's end of the turn.
    """

    pieces: tuple[Piece, ...]
    answer: int
    ended: bool


def dialogue(instruction: str, text: str, history: str = "", output: str | None = None) -> list[Turn]:
    """The turns of an example.

    Args:
        instruction: the last thing that the user says.
        text: its input; may be empty.
        history: JSON list of [role, content] before that, and of [role, content, 0] for an answer that is not to be
            trained on; empty for none.
        output: the answer; None where it is yet to be given.
    """
    turns = [_earlier(*turn) for turn in json.loads(history)] if history else []
    turns.append(Turn("user", instruction, text))
    return turns if output is None else [*turns, Turn("assistant", output)]


def dialogues_of(frame: "pl.DataFrame", answered: bool) -> list[list[Turn]]:
    """The dialogues of a clean split, in its order; with the last answer or up to it."""
    rows = frame.select("instruction", "input", "history", "output").iter_rows()
    return [dialogue(last, text, history, output if answered else None) for last, text, history, output in rows]


def _earlier(role: str, content: str, weight: float = 1) -> Turn:
    return Turn(role, content, supervised=bool(weight))


class Template:
    """A template, ready to cut dialogues into pieces.

    Args:
        name: one of `BUILT_IN`, `chat` for the tokenizer's own, or a template's text.
        tokenizer: a fast Transformers tokenizer.
        day: the date that a template is given which asks for today's (`strftime_now`): its words must not depend on
            when they are written.

    Attributes:
        day: as given.
        source: the template's text; one that asks for the date has that in it.
        reads_clock: whether it asks for the date.
        markers: added tokens that the template or the tokenizer gives a meaning: in data they are text.

    Raises:
        BiaslineError: the tokenizer has no template of its own.
    """

    def __init__(self, name: str, tokenizer: Tokenizer, day: date = DAY) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.day = day
        source = _own_template(tokenizer) if name == CHAT else BUILT_IN.get(name, name)
        self.reads_clock = "strftime_now" in source
        self.source = _stopped_clock(day, source) + source if self.reads_clock else source
        self.markers = self._find_markers()
        self._cut = lru_cache(maxsize=1024)(self._cut_shape)

    def cut(self, turns: Sequence[Turn]) -> Cut:
        """The pieces of a dialogue whose last turn is the assistant's.

        What the assistant says is supervised (but in turns that are not to be), and the special token behind it that
        ends the turn.

        Raises:
            BiaslineError: the template refuses the dialogue or leaves a turn out.
        """
        return self._cut(tuple([(turn.role, bool(turn.input), turn.supervised) for turn in turns]))

    def generation_prompt(self) -> tuple[str, str]:
        """The words before an answer to a single question: what the template writes to be answered, and in training."""
        shape = _shape("user", "assistant")
        given = self._rendered(shape[:1])
        trained = self._rendered(shape)
        before = trained[: next(i for i, part in enumerate(trained) if isinstance(part, _Content) and part.turn == 1)]
        written, taught = ("".join(part for part in parts if isinstance(part, str)) for parts in (given, before))
        return written, taught

    def _find_markers(self) -> list[str]:
        """Special tokens, and other added tokens that the template writes.

        Runs of blanks and line ends are added tokens of many vocabularies, and are text.
        """
        words = self.source
        for roles in (("user", "assistant"), ("system", "user", "assistant", "user", "assistant")):
            try:
                words += "".join(part for part in self._rendered(_shape(*roles)) if isinstance(part, str))
            except BiaslineError:
                continue  # said where a dialogue of that shape comes
        added = self.tokenizer.added_tokens_decoder.values()
        return [str(token) for token in added if token.special or (str(token).strip() and str(token) in words)]

    def _cut_shape(self, shape: "_Shape") -> Cut:
        """Neighbours that are tokenized alike are one piece, so that words may merge; an answer is one of its own."""
        found: list[Piece] = []
        answers: list[int] = []
        for part in self._rendered(shape):
            answered = bool(answers) and answers[-1] == len(found) - 1
            if isinstance(part, str):
                pieces = self._own_words(part, answered, answered and found[-1].supervised)
            elif shape[part.turn][0] == "assistant":
                answers.append(len(found))
                found.append(Piece((part,), shape[part.turn][2], special=False))
                continue
            else:
                pieces = [Piece((part,), False, special=False)]
            for piece in pieces:
                before = found[-1] if found and len(found) - 1 not in answers else None
                if before and not (before.special or piece.special):
                    found[-1] = before._replace(parts=before.parts + piece.parts)
                else:
                    found.append(piece)
        answer = answers[-1]
        # Behind an answer only its end is special at once.
        ended = answer + 1 < len(found) and found[answer + 1].special
        return Cut(tuple(found), answer, ended)

    def _own_words(self, text: str, after_answer: bool, supervised: bool) -> list[Piece]:
        """The template's own text; behind an answer, up to its first special token, it ends the turn."""
        ends = [text.index(token) + len(token) for token in self.markers if token in text]
        end = min(ends, default=0) if after_answer else 0
        # Words behind the last special token are text like what follows them, so that the two may merge.
        last = max((text.rindex(token) + len(token) for token in self.markers if token in text[end:]), default=end)
        pieces = [
            Piece((text[:end],), supervised, special=True),
            Piece((text[end:last],), False, special=True),
            Piece((text[last:],), False, special=False),
        ]
        return [piece for piece in pieces if piece.parts[0]]

    def _rendered(self, shape: "_Shape") -> list[str | _Content]:
        """The template's own text and the places of contents in turn."""
        messages = []
        for place, (role, has_input, _) in enumerate(shape):
            marks = {field: f"{_OPEN}{place}{field}{_CLOSE}" for field in "cix"}
            message = {"role": role, "content": marks["c"]}
            if role == "user":
                message |= {"instruction": marks["i"], "input": marks["x"] if has_input else ""}
            messages.append(message)
        try:
            text = self.tokenizer.apply_chat_template(
                messages,
                chat_template=self.source,
                tokenize=False,
                add_generation_prompt=shape[-1][0] != "assistant",
            )
        except Exception as error:  # a template is code
            reason = " ".join(first_line(error).split())
            roles = ", ".join(role for role, *_ in shape)
            raise BiaslineError(f"tokens.template: it does not render the turns {roles}: {reason}") from None
        parts: list[str | _Content] = []
        end = 0
        for mark in _MARK.finditer(text):
            parts += [text[end : mark.start()], _Content(int(mark[1]), mark[2])]
            end = mark.end()
        parts = [part for part in [*parts, text[end:]] if part]
        contents = [part.turn for part in parts if isinstance(part, _Content)]
        for place, (role, *_) in enumerate(shape):
            if contents.count(place) == 0 or (role == "assistant" and contents.count(place) > 1):
                times = "leaves out" if place not in contents else "shows more than once"
                raise BiaslineError(f"tokens.template: it {times} turn {place + 1} ({role})", "mend the template")
        return parts


# Role, whether there is an input, and whether it is supervised, of each turn.
_Shape = tuple[tuple[str, bool, bool], ...]


def _shape(*roles: str) -> _Shape:
    return tuple((role, False, True) for role in roles)


def _stopped_clock(day: date, source: str) -> str:
    """A macro that takes the place of Transformers' `strftime_now`, which nothing else can: only plain data get in."""
    written = sorted(set(re.findall(r"%[-_0^#]?[A-Za-z]", source)), key=len, reverse=True)
    values = {directive: day.strftime(directive) for directive in written}
    replaced = "".join(f" | replace({directive!r}, {value!r})" for directive, value in values.items())
    return f"{{%- macro strftime_now(format) -%}}{{{{ format{replaced} }}}}{{%- endmacro +%}}"


def _own_template(tokenizer: Tokenizer) -> str:
    """The tokenizer's chat template; of several that have names the one called `default`, as Transformers does."""
    found = tokenizer.chat_template
    if isinstance(found, dict):
        if "default" in found:
            return found["default"]
        raise BiaslineError(
            f"tokens.template: chat: the base's tokenizer has the templates {', '.join(found)} and no default one",
            "save the one that is meant as a .jinja file in custom/",
        )
    if not found:
        raise BiaslineError(
            "tokens.template: chat: the base's tokenizer has no chat template",
            f"take one of {', '.join(BUILT_IN)}, or a .jinja file",
        )
    return found


def _said(turns: Sequence[Turn], place: int, field: str) -> str:
    turn = turns[place]
    return turn.text if field == "c" else turn.content if field == "i" else turn.input
