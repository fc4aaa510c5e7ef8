"""Near-duplicates: rows that say nearly the same as an earlier row, or as a row of a held-out split.

Texts of some length are compared by the Jaccard similarity of their word triples, found with MinHash and held against
the exact value; short ones, where templated rows look alike, by their letters and digits alone. Words are hashed as
they stream by: what is kept of a text is its digest, so a million rows take 256 MB.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl

# Bands of four: a pair of similarity 0.8 shares one with a probability of 0.9998, of 0.6 with one of 0.89.
_PERMUTATIONS, _BANDS = 64, 16
# Words from which texts are compared by their triples. Against held-out texts shorter ones are too, if one has but more
# words than the other: one word in another's place may be all that templated rows differ in. Within a split, phrases of
# one sentence are rows in their own right.
_LONG, _LONG_HELD_OUT = 30, 12
_CHUNK = 20_000
# Rows of one bucket that a row is compared with, since buckets of templated rows are large: of earlier rows, and of
# held-out ones, of which none should be passed over.
_COMPARED, _HELD_OUT = 50, 2_000
# Pairs that are looked at together; how far the share of equal digests may lie below the threshold by chance.
_PAIRS, _SLACK = 2_000_000, 0.3
# Odd, of 64 mixed bits (the golden ratio's).
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_WORD = r"\p{Han}|[\p{L}\p{N}]+"

# A short text in one width and case, without white space and marks; symbols, and marks beside digits, say something
# (9+5, 9-5, 1.5, C++, C#).
_FOLDED = pl.col("text").str.normalize("NFKC").str.to_lowercase().str.replace_all(r"\s+", "")
_LETTERS = _FOLDED.str.extract_all(r"\p{P}*\p{Nd}\p{P}*|[\p{L}\p{M}\p{N}\p{S}#]").list.join("")
_BARE = pl.when(_LETTERS == "").then(_FOLDED).otherwise(_LETTERS)


def near_duplicates(
    texts: pl.Series, threshold: float, parts: pl.Series | None = None, groups: pl.Series | None = None
) -> dict[int, int]:
    """Texts that nearly repeat an earlier one.

    Args:
        texts: in the order in which they have precedence; no nulls.
        threshold: Jaccard similarity from which texts of some length count as nearly the same. Copies word for word
            are found whatever it is.
        parts: numbers that never fall; a text then repeats texts of lower parts only, and none of its own.
        groups: names; a text then repeats texts of its own group only.

    Returns:
        index → index of an earlier text that it is near to.
    """
    part = np.arange(len(texts)) if parts is None else parts.to_numpy()
    group = np.zeros(len(texts), np.uint64) if groups is None else groups.hash(0).to_numpy()
    shortest = _LONG if parts is None else _LONG_HELD_OUT
    same, long, digests = [], [np.zeros(0, np.int64)], []
    for start in range(0, len(texts), _CHUNK):
        chunk = texts.slice(start, _CHUNK)
        words = _words(chunk)
        is_long = words.list.len() >= shortest
        many = words.list.len() >= _LONG
        bare = chunk.to_frame("text").select(pl.when(~many).then(_BARE).otherwise(words.list.join("\x1f")))
        same.append(bare.to_series().hash(0))
        if is_long.any():
            long.append(start + is_long.arg_true().to_numpy().astype(np.int64))
            digests.append(_digests(*_triples(words.filter(is_long))))
    found = _same(pl.concat(same), part, group) if same else {}
    if digests:
        _alike(found, texts, np.concatenate(long), np.concatenate(digests), threshold, part, group, parts is not None)
    return dict(sorted(found.items()))


def _same(keys: pl.Series, part: np.ndarray, group: np.ndarray) -> dict[int, int]:
    """Texts whose letters, or words, are those of an earlier one."""
    rows = pl.DataFrame({"key": keys, "group": group}).with_row_index("row")
    firsts = rows.select(pl.col("row").min().over("key", "group")).to_series().to_numpy().astype(np.int64)
    again = np.flatnonzero(part[firsts] < part)
    return dict(zip(again.tolist(), firsts[again].tolist(), strict=True))


def _alike(
    found: dict[int, int],
    texts: pl.Series,
    rows: np.ndarray,
    digests: np.ndarray,
    threshold: float,
    part: np.ndarray,
    group: np.ndarray,
    held_out: bool,
) -> None:
    """Add texts that are near to an earlier one to those found: candidates share a band of their digests."""
    for one, other in _candidates(digests, part[rows], group[rows], _HELD_OUT if held_out else _COMPARED):
        likely = (digests[one] == digests[other]).mean(1) >= threshold - _SLACK
        one, other = rows[one[likely]], rows[other[likely]]
        open_ = ~np.isin(one, np.fromiter(found, np.int64, len(found)))
        one, other = one[open_], other[open_]
        if not len(one):
            continue
        named, where = np.unique(np.concatenate([one, other]), return_inverse=True)
        words = _words(texts.gather(named))
        hashes, offsets = _triples(words)
        sets = [np.unique(part) for part in np.split(hashes, offsets[1:-1])]
        said = words.to_list()
        for row, earlier, a, b in zip(one.tolist(), other.tolist(), *np.split(where, 2), strict=True):
            if row in found or (min(len(said[a]), len(said[b])) < _LONG and not _has_but_more(said[a], said[b])):
                continue
            common = len(np.intersect1d(sets[a], sets[b], assume_unique=True))
            if common >= threshold * (len(sets[a]) + len(sets[b]) - common):
                found[row] = earlier


def _has_but_more(one: list[str], other: list[str]) -> bool:
    """Whether one of two texts has the other's words in their order, and more, none of them a number."""
    longer, shorter = (one, other) if len(one) > len(other) else (other, one)
    rest = iter(longer)
    more = len(longer) > len(shorter) and all(word in rest for word in shorter)
    return more and sum(word.isnumeric() for word in longer) == sum(word.isnumeric() for word in shorter)


def _candidates(
    digests: np.ndarray, part: np.ndarray, group: np.ndarray, most: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Band by band, pairs of places (one, an earlier one of a lower part) whose digests agree there, in order.

    Args:
        digests: of each row's bands, (rows, bands).
        part: of each row, its number.
        group: of each row, what it has in common with those that it may repeat.
        most: of a bucket's rows, the first so many are compared with.
    """
    width = _PERMUTATIONS // _BANDS
    for band in range(_BANDS):
        key = group
        for column in range(band * width, (band + 1) * width):
            key = key * _FACTOR + digests[:, column]
        shared = pl.DataFrame({"key": key, "part": part}).with_row_index("one").filter(pl.len().over("key") > 1)
        firsts = shared.filter(pl.int_range(pl.len()).over("key") < most)
        firsts = firsts.filter(pl.col("part") < pl.col("part").max().over("key"))
        for some in shared.iter_slices(max(1, _PAIRS // most)):
            pairs = some.join(firsts.rename({"one": "other"}), on="key", suffix="_other")
            pairs = pairs.filter(pl.col("part_other") < pl.col("part")).sort("one", "other")
            if pairs.height:
                yield pairs["one"].to_numpy().astype(np.int64), pairs["other"].to_numpy().astype(np.int64)


def _words(texts: pl.Series) -> pl.Series:
    return texts.str.to_lowercase().str.extract_all(_WORD)


def _triples(words: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all word triples of texts, one text's after the other's, and where each text's begin."""
    lengths = words.list.len().to_numpy().astype(np.int64)
    hashed = words.explode(empty_as_null=False).hash(0).to_numpy()
    three = (hashed[:-2] * _FACTOR + hashed[1:-1]) * _FACTOR + hashed[2:]
    # The last two words of a text begin no triple of it.
    ends = np.cumsum(lengths)
    inside = np.ones(len(hashed), bool)
    inside[ends - 1] = inside[ends - 2] = False
    return three[inside[:-2]], np.concatenate([[0], np.cumsum(lengths - 2)])


def _digests(hashes: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    from rensa import RMinHash

    found = RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets.astype(np.uint64), _PERMUTATIONS, 0)
    return np.asarray(found.to_rows(), dtype=np.uint32)
