"""Shapes of files that are not ours: which they look like, and what to write in params.yaml for them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from biasline.data.paths import text_paths
from biasline.data.raw import Raw
from biasline.kinds.columns import Columns

# Records that are looked at for what their columns hold.
_SAMPLED = 5
_LISTED = 12
# The last step of a path to what a column says.
_CONTENTS = ("text", "content", "value")
# Numbered columns of answers that are compared, and the column that says which is the better one.
_COMPARED = ("response", "answer", "output", "completion", "conversation", "model")
_WINNERS = ("better_response_id", "winner", "preference", "choice", "better")
_CHOICES = ("choices", "options")
_WRITE_CHOICE = "write the text of the right choice into a column output, and the choices into the prompt"


@dataclass(frozen=True)
class Shape:
    """What a file looks like.

    Attributes:
        told: that, in words; empty where it is no shape that is known.
        hint: what to do about it; empty where nothing but `paths` can be said.
        paths: which paths lead into nested values, to be put behind another hint.
    """

    told: str
    hint: str
    paths: str = ""

    def __str__(self) -> str:
        return f"; {self.told}" if self.told else ""


def shape_of(raw: Raw, kind: Columns, taken: Mapping[str, str]) -> Shape:
    """What the records of a file look like in which a required column is missing or holds no text.

    Args:
        raw: the records.
        kind: whose columns are wanted.
        taken: our column → the file's, as far as they were found and hold texts.
    """
    samples = {name: _samples(raw, name) for name in raw.names}
    lowered = {name.lower(): values for name, values in samples.items()}
    if (known := _cannot_be_mapped(lowered, raw)) is not None:
        return known
    told = _called(lowered)
    if (pair := _compared(raw.names)) is not None:
        (one, two), winner = pair
        won = [value for value in raw.text(winner).drop_nulls().unique(maintain_order=True) if value.endswith(one[-1])]
        return Shape(
            f"it looks like compared answers ({one}, {two}, {winner})",
            "take one of the two where it won: source: "
            f"{{columns: {{{kind.answer}: {one}}}, where: {{{winner}: {won[0] if won else '…'}}}}}",
        )
    taken = {ours: name for ours, name in taken.items() if raw.nested(name).sum() * 2 < max(1, len(raw))}
    missing = [ours for ours in kind.required if ours not in taken]
    found = _suggested(samples, kind, missing, taken)
    if found and all(ours in found for ours in missing):
        lines = {ours: found[ours][0] for ours in kind.columns if ours in found}
        answers = ", answers: first" if any(found[ours][1] for ours in found if ours == kind.answer) else ""
        columns = ", ".join(f"{ours}: {_quoted(path)}" for ours, path in lines.items())
        more = " (or longest, or each: a row for each answer)" if answers else ""
        return Shape(told or "", f"write in params.yaml: source: {{columns: {{{columns}}}{answers}}}{more}")
    numbers = kind.looks != "text"
    nested = [path for name in raw.names for path in _inside(name, samples[name], numbers)]
    listed = ", ".join(nested[:_LISTED]) + (", …" if len(nested) > _LISTED else "")
    return Shape(told, "", f"; a path leads into nested values: {listed}" if nested else "")


def not_text(raw: Raw, name: str, ours: str, kind: Columns, taken: Mapping[str, str]) -> Shape | None:
    """What a column that should hold texts holds instead, where half of its rows are lists or objects; else None."""
    if kind.context and ours == kind.answer and raw.looked_up(*_CHOICES) and raw.not_text(name).all():
        return Shape(f"{name!r} ({ours}) holds places of choices: multiple choice", _WRITE_CHOICE)
    nested = raw.nested(name)
    filled = raw.text(name).is_not_null().sum()
    if not filled or nested.sum() * 2 < filled:
        return None
    example = raw.text(name).filter(nested)[0]
    values = _samples(raw, name)
    told = f"{name!r} ({ours}) holds lists or objects in {nested.sum():,} of {len(raw):,} rows, as {_cut(example)}"
    if ours == kind.answer and kind.looks == "label":
        together = f"all of them at once are kind: multilabel{_path_to_names(name, values)}"
        return Shape(f"{told}: several labels a row", f"{together}; {_one_label(name, values)}")
    if any(_is_turns(value) for value in values) and kind.context:
        hint = f"whole dialogues, the answer in them, are source: {{columns: {{messages: {name}}}}}"
        return Shape(f"{told}: turns of a dialogue", f"{hint}; one turn alone is {ours}: {name}.0.content")
    if ours == kind.answer and all(isinstance(value, list) and all(map(_is_text, value)) for value in values):
        return Shape(
            f"{told}: several answers a row",
            "source.answers: first, longest, or each (a row for each); where the best stands first (preference data) "
            "source.prefer: chosen",
        )
    others = {key: value for key, value in taken.items() if value != name}
    shape = shape_of(raw, kind, others)
    hint = shape.hint or f"name another: source: {{columns: {{{ours}: …}}}}{shape.paths}"
    return Shape(told + (f": {shape.told}" if shape.told else ""), hint)


def nested_names(raw: Raw) -> list[str]:
    """The paths into nested columns, of the first records."""
    return [path for name in raw.names for path in _inside(name, _samples(raw, name), numbers=True)]


def _cannot_be_mapped(lowered: Mapping[str, list[Any]], raw: Raw) -> Shape | None:
    names = set(lowered)
    if {"instances", "definition"} <= names:
        return Shape(
            "it looks like a task of Natural Instructions: one record holds all rows",
            "write its `Instances` as rows of their own, {instruction, input, output}",
        )
    if {"parent_id", "text", "role"} <= names:
        return Shape(
            "it looks like single messages of OpenAssistant's trees (parent_id)",
            "join each thread into one row first, as a list called messages; the trees' own file can be read by paths",
        )
    if "mapping" in names and any(isinstance(value, Mapping) for value in lowered["mapping"]):
        return Shape("it looks like ChatGPT's export (mapping)", "write each conversation as a list called messages")
    if "contents" in names and any(
        isinstance(value, list) and value and isinstance(value[0], Mapping) and "parts" in value[0]
        for value in lowered["contents"]
    ):
        return Shape(
            "it looks like Gemini's format (contents of parts)", "write its turns as {role, content} in messages"
        )
    if names & set(_CHOICES):
        return Shape("it looks like multiple choice", _WRITE_CHOICE)
    if len(raw) == 1:
        for name, values in lowered.items():
            if values and isinstance(values[0], list) and len(values[0]) > 1 and isinstance(values[0][0], Mapping):
                if _is_turns(values[0]):
                    continue
                return Shape(
                    f"its one record holds {len(values[0]):,} in a list {name!r}",
                    "write that list alone as the file, a record an item",
                )
    return None


def _called(lowered: Mapping[str, list[Any]]) -> str:
    names = set(lowered)
    if {"human_answers", "chatgpt_answers"} <= names:
        return "it looks like HC3: a question with lists of human and of machine answers"
    if any(isinstance(value, Mapping) and "replies" in value for value in lowered.get("prompt", [])):
        return "it looks like OpenAssistant's trees of prompts and replies"
    if "instances" in names:
        return "it looks like Self-Instruct: an instruction with a list of instances"
    if any(isinstance(value, Mapping) and "answer_start" in value for value in lowered.get("answers", [])):
        return "it looks like SQuAD: a question with a list of answers"
    if names == {"translation"}:
        return "it looks like pairs of translations"
    if "text" in names and any("### " in value for value in lowered["text"] if isinstance(value, str)):
        return "its texts look like prompts and answers in one, in a template already: part them into two columns"
    return ""


def _compared(names: Sequence[str]) -> tuple[tuple[str, str], str] | None:
    lowered = {name.lower(): name for name in names}
    winner = next((lowered[name] for name in _WINNERS if name in lowered), None)
    if winner is None:
        return None
    for stem in _COMPARED:
        for one, two in (("0", "1"), ("1", "2"), ("a", "b"), ("j", "k")):
            for joint in ("_", ""):
                pair = f"{stem}{joint}{one}", f"{stem}{joint}{two}"
                if pair[0] in lowered and pair[1] in lowered:
                    return (lowered[pair[0]], lowered[pair[1]]), winner
    return None


def _suggested(
    samples: Mapping[str, list[Any]], kind: Columns, missing: Sequence[str], taken: Mapping[str, str]
) -> dict[str, tuple[str, bool]]:
    """Our missing columns, and the optional one beside them → a path, and whether a list of texts lies there."""
    paths: dict[str, bool] = {}
    for name, values in samples.items():
        for value in values:
            if isinstance(value, list | Mapping):
                for path, listed in text_paths(value, kind.looks != "text"):
                    paths.setdefault(f"{name}.{path}" if path else name, listed)
    found: dict[str, tuple[str, bool]] = {}
    wanted = [*missing, *(ours for ours in kind.prompt[1:] if ours not in taken)]
    for ours in wanted:
        rest = [path for path in paths if path not in [path for path, _ in found.values()]]
        ranked = sorted(
            (rank, len(path.split(".")), path) for path in rest if (rank := _rank(path, ours, kind)) is not None
        )
        if ranked:
            best = ranked[0][2]
            found[ours] = best, paths[best]
    # What is optional comes along from where the required ones lie.
    roots = {path.split(".")[0] for ours, (path, _) in found.items() if ours in missing}
    found = {ours: at for ours, at in found.items() if ours in missing or at[0].split(".")[0] in roots}
    for ours in missing:
        path, listed = found.get(ours, ("", False))
        if listed and ours != kind.answer:
            found[ours] = f"{path}.0", False
    return found


def _rank(path: str, ours: str, kind: Columns) -> int | None:
    """How well a path's words fit one of our columns, lower is better; None: not at all."""
    steps = [step.lower() for step in path.split(".") if not step.isdecimal()]
    aliases = (*kind.aliases[ours], *(("human_answer",) if ours == "output" else ()))
    words = [_singular(step) for step in steps]
    if words[-1] in aliases:
        return aliases.index(words[-1]) if len(steps) == 1 else 100 + aliases.index(words[-1])
    if steps[-1] in _CONTENTS and len(steps) > 1 and words[-2] in aliases:
        return 200 + aliases.index(words[-2])
    return None


def _singular(word: str) -> str:
    return f"{word[:-3]}y" if word.endswith("ies") else word.removesuffix("s")


def _samples(raw: Raw, name: str) -> list[Any]:
    """The first values of a column, as they were."""
    values = []
    texts = raw.text(name)
    for text in texts.filter(texts.is_not_null() & (texts != "")).head(_SAMPLED):
        try:
            values.append(json.loads(text) if text[:1] in "[{" else text)
        except (ValueError, RecursionError):
            values.append(text)
    return values


def _inside(name: str, values: Sequence[Any], numbers: bool) -> Iterator[str]:
    seen: dict[str, None] = {}
    for value in values:
        if isinstance(value, list | Mapping):
            seen |= dict.fromkeys(f"{name}.{path}" for path, _ in text_paths(value, numbers) if path)
    yield from seen


def _one_label(name: str, values: Sequence[Any]) -> str:
    if values and isinstance(values[0], Mapping):
        keys = list(values[0])
        return f"a task for each label, by a path: source: {{columns: {{label: {name}.{keys[0] if keys else '…'}}}}}"
    return (
        "a task for each label, with a column of its own that says yes or no; or the rows of one label alone: source: "
        f"{{columns: {{label: {name}.0}}, where: \"{_quoted(name)} not like '%,%'\"}}"
    )


def _path_to_names(name: str, values: Sequence[Any]) -> str:
    """What a list of objects needs, that its names be found."""
    first = values[0][0] if values and isinstance(values[0], list) and values[0] else None
    if not isinstance(first, Mapping):
        return ""
    key = next((key for key, item in first.items() if isinstance(item, str)), "…")
    return f" with source: {{columns: {{labels: {name}.*.{key}}}}}"


def _is_turns(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(item, Mapping) and ("role" in item or "from" in item) for item in value)
    )


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _quoted(path: str) -> str:
    """A name as YAML and SQL take it."""
    return path if all(char.isalnum() or char in "_.*" for char in path) else json.dumps(path, ensure_ascii=False)


def _cut(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"
