"""What the contents of columns say about their use: guesses where no name is known, and doubts about names that are."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from biasline.data.raw import mean_of
from biasline.errors import BiaslineError, first_few, shown
from biasline.glue import GLUE
from biasline.kinds.columns import Columns

# Texts that may be a pair: the shorter column's mean length is this share of the longer's, so many of its cells are
# distinct, and so many are more than one word.
_LIKE, _DISTINCT, _WORDS = 0.4, 0.3, 0.5
# A text is longer than this on average, and a label has no more values.
_TEXT, _LABELS = 8, 100
_SEVERAL_WORDS = r"\S\s+\S|[\u{3040}-\u{30ff}\u{3400}-\u{9fff}\u{ac00}-\u{d7af}]{4}"
_TRUTH = ({"0", "1"}, {"true", "false"}, {"yes", "no"})
_NEVER = ({"0"}, {"false"}, {"no"})
_LISTED, _LINE = 6, 80
# So many cells say what a column looks like.
_FIRST = 10_000
_Texts = Mapping[str, pl.Series]


def guessed_columns(data: Path, columns: _Texts) -> tuple[dict[str, str], list[str]]:
    """Text and label of a file without header: the longest column, and that of few values, none of them empty.

    Args:
        data: for messages.
        columns: the file's columns as text.

    Returns:
        Our column → the file's, and notes; nothing where the first line's label never comes again: then that line
        may be a header.

    Raises:
        BiaslineError: where a second column of texts may be the other half of pairs.
    """
    columns = {name: column.fill_null("") for name, column in columns.items()}
    text = max(columns, key=lambda name: _length(columns[name]))
    values = {name: column.n_unique() for name, column in columns.items() if name != text and (column != "").all()}
    label = min((name for name, count in values.items() if count > 1), key=lambda name: values[name], default=None)
    if label is None or (columns[label] == columns[label][0]).sum() < 2:
        return {}, []
    alike = [name for name in _like_texts(columns, text) if name != label]
    if alike:
        first, second = sorted((text, alike[0]), key=list(columns).index)
        raise BiaslineError(
            f"{shown(data)}: columns {first} and {second} both hold texts, and which of them is meant is not clear: "
            "one, or a pair of both",
            f"a pair is source: {{columns: {{text: {first!r}, text_pair: {second!r}, label: {label!r}}}}}; "
            "one is the same without text_pair",
        )
    return {"text": text, "label": label}, [
        f"guessed: text is column {text} (the longest), label column {label} ({values[label]} values)"
    ]


def way_out(columns: _Texts, kind: Columns, taken: Mapping[str, str], missing: str) -> str:
    """What to write in params where no column is known by its name.

    Args:
        columns: the file's columns as text.
        kind: whose columns are missing.
        taken: our column → the file's, as far as they are known.
        missing: the first of ours that is not.
    """
    hint = _proposed(columns, kind, taken, missing)
    if not all(name.isdecimal() for name in columns):
        return hint
    # No header, as far as the first line could be judged: with few rows it may be one all the same.
    line = ", ".join(next(iter(column), None) or "" for column in columns.values())
    line = line if len(line) <= _LINE else line[: _LINE - 1] + "…"
    return f"if the first line ({line}) names the columns, say so: source: {{header: present}}; else {hint}"


def _proposed(columns: _Texts, kind: Columns, taken: Mapping[str, str], missing: str) -> str:
    hint = f"name it in params.yaml: source: {{columns: {{{missing}: …}}}}"
    if kind.looks not in ("label", "score") or not kind.answered:
        return hint
    preset = _preset(columns, kind)
    columns = {name: column.fill_null("") for name, column in columns.items()}
    mapping = {**_proposal(columns, kind), **taken}
    if missing in mapping:
        proposed = [f"{ours}: {theirs!r}" for ours, theirs in mapping.items()]
        proposed += [f"{ours}: …" for ours in kind.required if ours not in mapping]
        hint = f"name it in params.yaml, by the contents perhaps source: {{columns: {{{', '.join(proposed)}}}}}"
        others = others_like(columns, mapping.get("label", ""))
        hint += f" (or as label: {_listed(others)})" if others else ""
    return f"these are the columns of source: {{preset: {preset}}}; or {hint}" if preset else hint


def doubts(columns: _Texts, kind: Columns, taken: Mapping[str, str], chosen: Mapping[str, str]) -> list[str]:
    """Notes on columns that may have been meant, where others were taken.

    Args:
        columns: the file's columns as text.
        kind: whose names are known.
        taken: our column → the file's.
        chosen: those of them that params name.
    """
    if "text" not in taken:
        return []
    notes = []
    columns = {name: column.fill_null("") for name, column in columns.items()}
    text, label = taken["text"], taken.get("label", "")
    if "text_pair" not in taken:
        alike = [name for name in _like_texts(columns, text) if name not in taken.values()]
        if alike:
            notes.append(
                f"text is {text!r} alone, and {_listed(alike)} holds texts of like length: if a pair is meant, write "
                f"source: {{columns: {{text: {text!r}, text_pair: {alike[0]!r}}}}}"
            )
    others = others_like(columns, label)
    if others:
        notes.append(
            f"label is {label!r} alone; {_listed(others)} {'has' if len(others) == 1 else 'have'} values like "
            f"it and {'is' if len(others) == 1 else 'are'} not learned: source.columns.label chooses another, and "
            f"several labels a text are {_at_once(columns, [label, *others])}several tasks, one for each of these "
            "columns"
        )
    answer = kind.answer
    by_name = [] if answer in chosen else _further_names(columns, kind, taken)
    if by_name := [name for name in by_name if name not in others]:
        notes.append(
            f"{answer} is {taken[answer]!r}, by its name; {_listed(by_name)} may be meant as well: "
            f"source.columns.{answer} chooses"
        )
    return notes


def _further_names(columns: _Texts, kind: Columns, taken: Mapping[str, str]) -> list[str]:
    """Columns called as an answer may be too, where the one that is taken is not called by our own name."""
    if taken.get(kind.answer, kind.answer).strip().lower() == kind.answer:
        return []
    known = kind.aliases[kind.answer]
    return [name for name in columns if name.strip().lower() in known and name not in taken.values()]


def left_aside(columns: _Texts, kind: Columns, taken: Mapping[str, str], chosen: Mapping[str, str]) -> list[str]:
    """Notes on columns of an instruction that are called as one of ours is, which another column was taken for.

    Args:
        columns: the file's columns as text.
        kind: whose names are known.
        taken: our column → the file's.
        chosen: those of them that params name.
    """
    notes = []
    for ours, known in kind.aliases.items():
        further = [name for name in columns if name.strip().lower() in known and name not in taken.values()]
        filled = [name for name in further if (columns[name].fill_null("").str.strip_chars() != "").any()]
        if filled and ours in taken and ours not in chosen:
            notes.append(
                f"{ours} is {taken[ours]!r}, by its name; {_listed(filled)} is left aside, and may be meant as well: "
                f"source.columns.{ours} chooses, and another of our columns may take it"
            )
    return notes


def others_like(columns: _Texts, label: str) -> list[str]:
    """The columns that hold the same labels as one, or truth values as that does (some are never true)."""
    if label not in columns:
        return []
    look = _look(columns[label])
    never = _NEVER if look == _TRUTH[0] else ()
    others = {name: column for name, column in columns.items() if look and name != label}
    return [name for name, column in others.items() if _look(column) == look or _values(column) in never]


def _at_once(columns: _Texts, labels: Sequence[str]) -> str:
    """How all of some columns are learned at once, where each says whether its label holds."""
    truths = [{value.removesuffix(".0") for value in _values(columns[name])} for name in labels]
    if not all(found <= {"0", "1"} or found <= {"true", "false"} for found in truths):
        return ""
    listed = ", ".join(json.dumps(name, ensure_ascii=False) for name in labels)
    return f"one task of kind: multilabel with source: {{labels: [{listed}]}}, or "


def _look(column: pl.Series) -> frozenset[str]:
    """The values of a column of few values, truth values without their spelling; empty for any other column."""
    found = _values(column)
    if len(found) < 2:
        return frozenset()
    return frozenset(_TRUTH[0]) if any(found == truth for truth in _TRUTH) else found


def _values(column: pl.Series) -> frozenset[str]:
    """The values of a column of few values, in lower case; empty for any other column."""
    if column.head(_FIRST).n_unique() > 2 * _LABELS:
        return frozenset()
    values = column.str.strip_chars().str.to_lowercase().unique()
    values = values.filter(values != "")
    return frozenset(value.removesuffix(".0") for value in values) if len(values) <= _LABELS else frozenset()


def _length(column: pl.Series) -> float:
    return mean_of(column.str.len_chars())


def _is_text(column: pl.Series) -> bool:
    column = column.head(_FIRST)
    several_words = mean_of(column.str.contains(_SEVERAL_WORDS))
    return _length(column) > _TEXT and several_words >= _WORDS and column.n_unique() >= max(2, len(column) * _DISTINCT)


def _like_texts(columns: _Texts, text: str) -> list[str]:
    """The other columns that hold texts about as long, the longest first."""
    least = _length(columns[text]) * _LIKE
    alike = [name for name in columns if name != text and least <= _length(columns[name]) <= least / _LIKE**2]
    return sorted((name for name in alike if _is_text(columns[name])), key=lambda name: -_length(columns[name]))


def _preset(columns: _Texts, kind: Columns) -> str:
    """The tasks of GLUE that have these columns, but for names that say nothing."""
    lowered = {name.strip().lower() for name in columns}
    return ", ".join(
        name
        for name, preset in GLUE.items()
        if kind.answer in preset.columns
        and all(lowered & {name for name in names if not name.isdecimal()} for names in preset.columns.values())
    )


def _proposal(columns: _Texts, kind: Columns) -> dict[str, str]:
    """Text, its pair and the answer by the contents of columns, as far as any fits."""
    texts = [name for name in columns if _is_text(columns[name])]
    mapping = {}
    if texts:
        text = max(texts, key=lambda name: _length(columns[name]))
        pair = sorted((text, *_like_texts(columns, text)[:1]), key=list(columns).index)
        mapping = dict(zip(("text", "text_pair"), pair, strict=False))
    if kind.looks == "label":
        few = {name: len(look) for name in columns if name not in texts and (look := _look(columns[name]))}
        few = {name: count for name, count in few.items() if count < len(columns[name])}
        if few:
            mapping[kind.answer] = min(few, key=lambda name: few[name])
    return mapping


def _listed(names: Sequence[str]) -> str:
    return first_few(map(repr, names), _LISTED)
