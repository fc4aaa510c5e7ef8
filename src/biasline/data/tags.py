"""Words and their tags: from lists to texts, and what is wrong with them.

In texts words are joined by one space, and so are tags, as many as words. What could not be read back so keeps a mark
that no good row has: a tab for each white space inside of a word or tag, two spaces where one is empty.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import polars as pl

from biasline.data.raw import Raw
from biasline.errors import BiaslineError
from biasline.metrics.spans import entities, has_entities, mended

_SPACE = re.compile(r"\s")
_RUN = re.compile(r"\s+")
# Schemes that tell the ends of entities and entities of one word too, and what their prefixes are in BIO.
_FURTHER = {"S": "B", "U": "B", "E": "I", "L": "I"}
_LISTED = 10


def joined(raw: Raw, taken: Mapping[str, str], labels: Sequence[str]) -> Raw:
    """Lists of words and of tags as texts; a number of a tag as its name.

    Args:
        raw: the records.
        taken: our column → the file's.
        labels: names of tags, by their numbers where a file has numbers.
    """
    for ours in ("text", "tags"):
        if (name := taken.get(ours)) is None:  # rows that a model is asked have no tags
            continue
        named = labels if ours == "tags" else ()
        texts, flags = raw.text(name).to_list(), raw.not_text(name).to_list()
        for row, (text, not_text) in enumerate(zip(texts, flags, strict=True)):
            if text is None:
                continue
            parts = _parts(text, not_text)
            if parts is None:
                continue  # an object or a number, which the contract refuses
            numbered = not_text and bool(named) and not {*parts} <= {*named}
            texts[row] = " ".join(_name(part, named) if numbered else _SPACE.sub("\t", part) for part in parts)
            flags[row] = False
        raw = raw.replaced(name, texts, pl.Series(flags, dtype=pl.Boolean))
    return raw


def _parts(text: str, not_text: bool) -> list[str] | None:
    """The words of a text or a list; None for anything else."""
    if not not_text:
        return _RUN.sub(" ", text).strip().split(" ")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    plain = isinstance(found, list) and all(isinstance(part, str | int | None) for part in found)
    return ["" if part is None else str(part) for part in found] if plain else None


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
    """Tags of the schemes IOBES and BILOU as BIO, and of how many rows.

    Raises:
        BiaslineError: where parameters name the labels of such a scheme.
    """
    found = _distinct(frame["tags"])
    if not has_entities(found) or not any(tag[:1] in _FURTHER and tag[1:2] == "-" for tag in found):
        return frame, 0
    if odd := [tag for tag in labels if tag[:1] in _FURTHER and tag[1:2] == "-"]:
        raise BiaslineError(
            f"source.labels: {odd[0]} is of a scheme that tells the ends of entities; here tags are O, B-X and I-X",
            "leave S-, U-, E- and L- out: such tags of the data become B- and I-",
        )
    texts = [text and _with_prefixes(text) for text in frame["tags"]]
    changed = int((pl.Series(texts, dtype=pl.String) != frame["tags"]).sum())
    return frame.with_columns(pl.Series("tags", texts, dtype=pl.String)), changed


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
