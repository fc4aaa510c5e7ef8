"""Near-duplicates: rows that say nearly the same as an earlier row, or as a row of a held-out split.

Long texts are compared by the Jaccard similarity of their word triples, found with MinHash and held against the exact
value; short ones, where templated rows look alike to MinHash, by their letters and digits alone.
"""

import unicodedata
from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl

# Bands of four: a pair of similarity 0.8 shares one with a probability of 0.9998, and is then held against the truth.
_PERMUTATIONS, _BANDS = 64, 16
_SHORT = 30  # tokens
_CHUNK = 20_000
# Rows of one bucket that a row is compared with: buckets of templated rows are large.
_COMPARED = 50
_TOKEN = r"\p{Han}|[\p{L}\p{N}]+"

Shingles = frozenset[str]


def near_duplicates(texts: Sequence[str], threshold: float, originals: int | None = None) -> dict[int, int]:
    """Rows that nearly repeat an earlier one.

    Args:
        texts: in the order in which they have precedence.
        threshold: Jaccard similarity from which long texts count as nearly the same.
        originals: the first so many texts are compared with, and are no repetitions themselves; any earlier one if
            left out.

    Returns: index → index of an earlier text that it is near to.
    """
    found: dict[int, int] = {}
    short: dict[str, int] = {}
    long: list[int] = []
    shingles: dict[int, Shingles] = {}
    digests: list[np.ndarray] = []
    for start in range(0, len(texts), _CHUNK):
        part = texts[start : start + _CHUNK]
        tokens = pl.Series(part, dtype=pl.String).str.to_lowercase().str.extract_all(_TOKEN).to_list()
        sets = []
        for index, (text, words) in enumerate(zip(part, tokens, strict=True), start):
            if len(words) < _SHORT:
                bare = _bare(text)
                if bare in short and (originals is None or index >= originals):
                    found[index] = short[bare]
                elif originals is None or index < originals:
                    short.setdefault(bare, index)
            else:
                shingles[index] = _triples(words)
                sets.append(sorted(shingles[index]))
                long.append(index)
        if sets:
            digests.append(_digests(sets))
    if digests:
        for one, other in _alike(np.concatenate(digests)):
            index, earlier = long[one], long[other]
            if originals is not None and not earlier < originals <= index:
                continue
            if index not in found and _jaccard(shingles[index], shingles[earlier]) >= threshold:
                found[index] = earlier
    return found


def near_to(texts: Sequence[str], others: Sequence[str], threshold: float) -> list[int]:
    """Indices of texts that are near to any of the others."""
    found = near_duplicates([*others, *texts], threshold, originals=len(others))
    return sorted(index - len(others) for index in found)


def _bare(text: str) -> str:
    """A short text in one width and case, without white space and marks; beside digits marks matter (9+5, 9-5, 1.5)."""
    folded = "".join(unicodedata.normalize("NFKC", text).casefold().split())
    if any(char.isdecimal() for char in folded):
        return folded
    return "".join(char for char in folded if char.isalnum()) or folded


def _triples(words: Sequence[str]) -> Shingles:
    return frozenset(" ".join(three) for three in zip(words, words[1:], words[2:], strict=False))


def _digests(sets: list[list[str]]) -> np.ndarray:
    from rensa import RMinHash

    return np.asarray(RMinHash.digests_from_token_sets(sets, _PERMUTATIONS, 0), dtype=np.uint32)


def _alike(digests: np.ndarray) -> Iterator[tuple[int, int]]:
    """(row, earlier row) of rows that share a band of their digests, each pair in row order."""
    rows = _PERMUTATIONS // _BANDS
    for band in range(_BANDS):
        keys = pl.DataFrame(digests[:, band * rows : (band + 1) * rows]).with_row_index("row")
        names = [name for name in keys.columns if name != "row"]
        buckets = keys.group_by(names, maintain_order=True).agg("row").filter(pl.col("row").list.len() > 1)["row"]
        for bucket in buckets.to_list():
            for place, row in enumerate(bucket):
                yield from ((row, earlier) for earlier in bucket[: min(place, _COMPARED)])


def _jaccard(one: Shingles, other: Shingles) -> float:
    return len(one & other) / len(one | other)
