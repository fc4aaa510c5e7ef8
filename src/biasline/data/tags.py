"""Words and their tags: from lists to texts, and what is wrong with them.

In texts words are joined by one space, and so are tags, as many as words. What could not be read back so keeps a mark
that no good row has: a tab for each white space inside of a word or tag, two spaces where one is empty.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import polars as pl

from biasline.data.name_lists import parsed
from biasline.data.raw import Raw
from biasline.errors import BiaslineError
from biasline.metrics.spans import OUTSIDE, entities, has_entities, mended

_SPACE = re.compile(r"\s")
_RUN = re.compile(r"\s+")
# Schemes that tell the ends of entities and entities of one word too, and what their prefixes are in BIO.
_FURTHER = {"S": "B", "U": "B", "E": "I", "L": "I", "M": "I"}
_MARKS = {"B", "I", *_FURTHER}
_LISTED = 10


def joined(raw: Raw, taken: Mapping[str, str], labels: Sequence[str]) -> Raw:
    """Lists of words and of tags as texts; a number of a tag as its name.

    Args:
        raw: the records.
        taken: our column → the file's.
        labels: names of tags, by their numbers where a file has numbers.
    """
    for ours in ("text", "tags"):
        name, named = taken[ours], labels if ours == "tags" else ()
        texts, flags = raw.text(name).to_list(), raw.not_text(name).to_list()
        for row, (text, not_text) in enumerate(zip(texts, flags, strict=True)):
            if text is None:
                continue
            parts = _listed(text, not_text, numbers=ours == "tags")
            if parts is None and not_text:
                continue  # an object or a number, which the contract refuses
            parts = _RUN.sub(" ", text).strip().split(" ") if parts is None else parts
            numbered = bool(named) and not {*parts} <= {*named}
            texts[row] = " ".join(_name(part, named) if numbered else _SPACE.sub("\t", part) for part in parts)
            flags[row] = False
        raw = raw.replaced(name, texts, pl.Series(flags, dtype=pl.Boolean))
    return raw


def listed(raw: Raw, name: str) -> Raw:
    """A column of texts and lists that a model is to be asked: lists that stand in texts as lists."""
    texts, flags = raw.text(name).to_list(), raw.not_text(name).to_list()
    for row, (text, not_text) in enumerate(zip(texts, flags, strict=True)):
        if text is not None and not not_text and (parts := _listed(text, not_text, numbers=False)) is not None:
            texts[row], flags[row] = json.dumps(parts, ensure_ascii=False), True
    return raw.replaced(name, texts, pl.Series(flags, dtype=pl.Boolean))


def _listed(text: str, not_text: bool, numbers: bool) -> list[str] | None:
    """The parts of a list, also of one that stands in a text as JSON or Python write it; None for anything else.

    Args:
        text: the cell.
        not_text: whether the file had something else than a text there.
        numbers: whether parts may be numbers; a text such as `[1]` is then a list too.
    """
    if not not_text and not text.lstrip().startswith("["):
        return None
    found = parsed(text)
    allowed = str | int | None if not_text or numbers else str
    if not isinstance(found, list) or not all(isinstance(part, allowed) for part in found):
        return None
    return ["" if part is None else str(part) for part in found]


def _name(part: str, labels: Sequence[str]) -> str:
    """The label of a number; what is none stays as it is."""
    number = int(part) if re.fullmatch(r"[0-9]{1,9}", part) else -1
    return labels[number] if 0 <= number < len(labels) else part


def holds(test: Callable[[Sequence[str], bool], bool]) -> pl.Expr:
    """Whether each row's tags pass a test: (its tags, whether tags of any row mark entities) → good."""

    def judged(column: pl.Series) -> pl.Series:
        rows = [(text or "").strip().split(" ") for text in column]
        marked = has_entities(tag for row in rows for tag in row)
        return pl.Series([test(row, marked) for row in rows], dtype=pl.Boolean)

    return pl.col("tags").map_batches(judged, return_dtype=pl.Boolean)


def are_good(name: str) -> pl.Expr:
    """Whether a column's words are joined by one space each, and have none inside; an empty text is good."""
    return ~pl.col(name).fill_null("").str.contains(r"^ |  | $|[^\S ]")


def as_many() -> pl.Expr:
    """Whether there are as many tags as words, where there are any."""
    words, tags = pl.col("text").fill_null(""), pl.col("tags").fill_null("")
    same = words.str.count_matches(" ", literal=True) == tags.str.count_matches(" ", literal=True)
    return same | (words == "") | (tags == "")


def in_bio(frame: pl.DataFrame, labels: Sequence[str]) -> tuple[pl.DataFrame, int]:
    """Tags of the schemes IOBES, BILOU and BMES as BIO, and of how many rows.

    Raises:
        BiaslineError: where parameters name the labels of such a scheme.
    """
    found = _distinct(frame["tags"]) - {"", OUTSIDE}
    if not any(map(_is_further, found)) or not all(tag[1:2] == "-" and tag[2:] and tag[0] in _MARKS for tag in found):
        return frame, 0
    if odd := [tag for tag in labels if _is_further(tag)]:
        raise BiaslineError(
            f"source.labels: {odd[0]} is of a scheme that tells the ends of entities; here tags are O, B-X and I-X",
            "leave S-, U-, E-, L- and M- out: such tags of the data become B- and I-",
        )
    texts = [text and _with_prefixes(text) for text in frame["tags"]]
    changed = int((pl.Series(texts, dtype=pl.String) != frame["tags"]).sum())
    return frame.with_columns(pl.Series("tags", texts, dtype=pl.String)), changed


def _is_further(tag: str) -> bool:
    return tag[:1] in _FURTHER and tag[1:2] == "-"


def _with_prefixes(text: str) -> str:
    return " ".join(_FURTHER.get(tag[:1], tag[:1]) + tag[1:] if tag[1:2] == "-" else tag for tag in text.split(" "))


def with_beginnings(frame: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Each I-X that follows neither B-X nor I-X as B-X, and of how many rows."""
    if not has_entities(_distinct(frame["tags"])):
        return frame, 0
    texts = [text and " ".join(mended(text.split(" "))) for text in frame["tags"]]
    changed = int((pl.Series(texts, dtype=pl.String) != frame["tags"]).sum())
    return frame.with_columns(pl.Series("tags", texts, dtype=pl.String)), changed


def _distinct(texts: pl.Series) -> set[str]:
    return {tag for text in texts.drop_nulls().unique() for tag in text.split(" ")}


def refuse_one_tag(train: pl.DataFrame) -> None:
    """Training rows whose words all have the same tag.

    Raises:
        BiaslineError: since there is nothing to tell apart.
    """
    if len(found := _distinct(train["tags"])) == 1:
        raise BiaslineError(
            f"every word of the training rows has the tag {min(found)!r}: there is nothing to tell apart",
            "add rows with other tags, or name the column that has the tags: source: {columns: {tags: …}}",
        )


def refuse_unlearned(splits: Mapping[str, pl.DataFrame]) -> None:
    """Held-out rows with a tag that no training row has.

    Raises:
        BiaslineError: naming all such tags, each with its rows.
    """
    known = _distinct(splits["train"]["tags"])
    rows: dict[tuple[str, str], list[int]] = {}
    for split in ("valid", "test"):
        for row, text in splits[split].select("row", "tags").iter_rows():
            for tag in sorted({*text.split(" ")} - known):
                rows.setdefault((tag, split), []).append(row)
    if not rows:
        return
    told = [
        f"{tag!r} ({split} split: {len(found):,} row{'s' * (len(found) > 1)}, row {found[0]})"
        for (tag, split), found in list(rows.items())[:_LISTED]
    ]
    more = f", … all {len(rows)} of them" if len(rows) > _LISTED else ""
    every = sorted(known | {tag for tag, _ in rows})
    listed = ", ".join(every) if len(every) <= 3 * _LISTED else f"{', '.join(every[:3])}, … all {len(every)} of them"
    raise BiaslineError(
        f"no training row has {'the tag' if len(rows) == 1 else 'these tags'}: {', '.join(told)}{more}",
        "add rows of each (ten at least), take them out by source.where, or name all tags, so that these count as "
        f"never learned: source.labels: [{listed}]",
    )


def tag_notes(splits: Mapping[str, pl.DataFrame]) -> list[str]:
    """What should be said about the tags of good rows."""
    found = _distinct(splits["train"]["tags"])
    notes = []
    if all(re.fullmatch(r"[0-9]+", tag) for tag in found):
        notes.append(
            "tags are numbers, and count as names of tags: source.labels names them (source: {labels: [O, …]})"
        )
    if not has_entities(found):
        notes.append(f"tags mark no entities (no B-X or I-X): {len(found):,} tags of words, judged word by word")
    return notes


def tag_counts(texts: Iterable[str]) -> list[tuple[str, int]]:
    """How often there is each type of entity, or each plain tag but O: the most frequent first."""
    counts = Counter(one.type for text in texts for one in entities(text.split(" ")))
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
