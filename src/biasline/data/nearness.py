"""Near-duplicates: rows that say nearly the same as an earlier row, or as a row of a held-out split.

Long texts are compared by the Jaccard similarity of their word triples, found with MinHash and held against the exact
value; short ones, where templated rows look alike to MinHash, by their letters and digits alone. Words are hashed as
they stream by: what is kept of a long text is its digest, so a million rows take 256 MB.
"""

from collections.abc import Iterator

import numpy as np
import polars as pl

# Bands of four: a pair of similarity 0.8 shares one with a probability of 0.9998, and is then held against the truth.
_PERMUTATIONS, _BANDS = 64, 16
_SHORT = 30  # words
_CHUNK = 20_000
# Rows of one bucket that a row is compared with: buckets of templated rows are large.
_COMPARED = 50
# Odd, of 64 mixed bits (the golden ratio's).
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_WORD = r"\p{Han}|[\p{L}\p{N}]+"


def near_duplicates(texts: pl.Series, threshold: float, parts: pl.Series | None = None) -> dict[int, int]:
    """Texts that nearly repeat an earlier one.

    Args:
        texts: in the order in which they have precedence; no nulls.
        threshold: Jaccard similarity from which long texts count as nearly the same.
        parts: numbers that never fall; a text then repeats texts of lower parts only, and none of its own.

    Returns: index → index of an earlier text that it is near to.
    """
    part = np.zeros(len(texts), np.int64) if parts is None else parts.to_numpy()
    short, long, digests = [], [np.zeros(0, np.int64)], []
    for start in range(0, len(texts), _CHUNK):
        chunk = texts.slice(start, _CHUNK)
        words = _words(chunk)
        is_long = (words.list.len() >= _SHORT).to_numpy()
        rows = start + np.arange(len(chunk))
        short.append(
            pl.DataFrame({"row": rows[~is_long], "bare": chunk.filter(~is_long).to_frame("text").select(_BARE)})
        )
        if is_long.any():
            long.append(rows[is_long])
            digests.append(_digests(*_triples(words.filter(is_long))))
    found = _same(pl.concat(short), part, parts is None) if short else {}
    if digests:
        found |= _alike(texts, np.concatenate(long), np.concatenate(digests), threshold, part, parts is None)
    return dict(sorted(found.items()))


# A short text in one width and case, without white space and marks; beside digits marks matter (9+5, 9-5, 1.5).
_FOLDED = pl.col("text").str.normalize("NFKC").str.to_lowercase().str.replace_all(r"\s+", "")
_LETTERS = _FOLDED.str.replace_all(r"[^\p{L}\p{M}\p{N}]", "")
_BARE = pl.when(_FOLDED.str.contains(r"\p{Nd}") | (_LETTERS == "")).then(_FOLDED).otherwise(_LETTERS)


def _same(short: pl.DataFrame, part: np.ndarray, anywhere: bool) -> dict[int, int]:
    """Short texts whose letters are those of an earlier one."""
    firsts = short.with_columns(pl.col("row").min().over("bare").alias("first"))
    row, first = firsts["row"].to_numpy(), firsts["first"].to_numpy()
    again = (row != first) & (anywhere | (part[first] < part[row]))
    return dict(zip(row[again].tolist(), first[again].tolist(), strict=True))


def _alike(
    texts: pl.Series, rows: np.ndarray, digests: np.ndarray, threshold: float, part: np.ndarray, anywhere: bool
) -> dict[int, int]:
    """Long texts that are near to an earlier one: candidates share a band of their digests."""
    found: dict[int, int] = {}
    for pairs in _candidates(digests):
        one, other = rows[pairs["one"].to_numpy()], rows[pairs["other"].to_numpy()]
        open_ = np.array([row not in found for row in one.tolist()], bool)
        open_ &= anywhere | (part[other] < part[one])
        one, other = one[open_], other[open_]
        if not len(one):
            continue
        named, where = np.unique(np.concatenate([one, other]), return_inverse=True)
        hashes, offsets = _triples(_words(texts.gather(named)))
        sets = [np.unique(part) for part in np.split(hashes, offsets[1:-1])]
        for row, earlier, a, b in zip(one.tolist(), other.tolist(), *np.split(where, 2), strict=True):
            if row not in found:
                common = len(np.intersect1d(sets[a], sets[b], assume_unique=True))
                if common >= threshold * (len(sets[a]) + len(sets[b]) - common):
                    found[row] = earlier
    return found


def _candidates(digests: np.ndarray) -> Iterator[pl.DataFrame]:
    """Band by band, pairs of places (`one`, an earlier `other`) whose digests agree there, in order."""
    width = _PERMUTATIONS // _BANDS
    for band in range(_BANDS):
        key = np.zeros(len(digests), np.uint64)
        for column in range(band * width, (band + 1) * width):
            key = key * _FACTOR + digests[:, column]
        shared = pl.DataFrame({"key": key}).with_row_index("one").filter(pl.len().over("key") > 1)
        firsts = shared.filter(pl.int_range(pl.len()).over("key") < _COMPARED).rename({"one": "other"})
        pairs = shared.join(firsts, on="key").filter(pl.col("other") < pl.col("one"))
        yield pairs.sort("one", "other").select("one", "other")


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
