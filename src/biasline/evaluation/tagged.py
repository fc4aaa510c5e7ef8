"""Words with their tags: what a model gives them, beside the tag that each word mostly has."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import torch

from biasline.bitfit.pretrained import PretrainedModel
from biasline.evaluation.cells import MISTAKES, cell
from biasline.evaluation.heads import word_features, word_outputs
from biasline.metrics.spans import OUTSIDE, entities
from biasline.metrics.tags import by_type
from biasline.progress import Advance
from biasline.tokens.saved import IGNORED
from biasline.tokens.words import WordEncoder

# Words that a probe is fitted on at most: it takes seconds, and more make it hardly better.
_PROBED_WORDS = 5_000
# A row of some windows: its number, the words that are told there, and the model's inputs with their places.
_Asked = tuple[list[dict[str, Any]], list[tuple[int, list[int]]]]


class Tagged(NamedTuple):
    """The tags of a row, and their probabilities, a value for each word."""

    tags: list[str]
    probabilities: list[float]


def windows_of(encoder: WordEncoder, rows: Sequence[Sequence[str]]) -> _Asked:
    """What a model is asked for rows of words: its inputs with the places of words as `places`, and whose they are."""
    asked, owners = [], []
    for number, windows in enumerate(encoder(rows)):
        for inputs, first, told in windows:
            asked.append({**inputs, "places": [first[word] for word in told], "number": number})
            owners.append((number, told))
    return asked, owners


def tag_scores(
    model: PretrainedModel,
    asked: Sequence[dict[str, Any]],
    pad: int,
    batch_size: int,
    advance: Advance = lambda _: None,
) -> list[np.ndarray]:
    """Probabilities of tags per window, (words, tags) each; arguments as `heads.head_outputs`."""
    found = word_outputs(model, asked, pad, batch_size, advance)
    return [torch.from_numpy(one).softmax(-1).double().numpy() for one in found]


def probed(
    model: PretrainedModel,
    train: Sequence[dict[str, Any]],
    test: Sequence[dict[str, Any]],
    pad: int,
    batch_size: int,
    advance: Advance = lambda _: None,
) -> list[np.ndarray]:
    """Probabilities of tags by a logistic regression on the frozen base's hidden states of words.

    Arguments as `classify.probed`; training rows have the number of a tag at the first token of each word, `labels`.

    Returns:
        per window (words, tags), 0 for a tag that none of the training rows has.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    tags = [np.asarray(row["labels"]) for row in train]
    taught = [
        {**row, "places": np.flatnonzero(found != IGNORED).tolist()} for row, found in zip(train, tags, strict=True)
    ]
    seen = np.concatenate(word_features(model, taught, pad, batch_size, advance))
    given = np.concatenate([found[found != IGNORED] for found in tags])
    chosen = np.unique(np.linspace(0, len(given) - 1, _PROBED_WORDS).astype(int))
    asked = word_features(model, test, pad, batch_size, advance)
    everything, known = np.zeros((sum(map(len, asked)), model.config.num_labels)), np.unique(given[chosen])
    if len(known) == 1:
        everything[:, known] = 1.0
    elif len(everything):
        scaler = StandardScaler()
        probe = LogisticRegression(max_iter=1000).fit(scaler.fit_transform(seen[chosen]), given[chosen])
        everything[:, probe.classes_] = probe.predict_proba(scaler.transform(np.concatenate(asked)))
    return np.split(everything, np.cumsum([len(one) for one in asked])[:-1])


def tagged(
    found: Sequence[np.ndarray], owners: Sequence[tuple[int, list[int]]], sizes: Sequence[int], labels: Sequence[str]
) -> list[Tagged]:
    """The likeliest tag of each word; a word that has no token is outside of entities, or has the first tag.

    Args:
        found: probabilities per window, see `tag_scores`.
        owners: whose the windows are, see `windows_of`.
        sizes: how many words each row has.
        labels: names of tags in the order of their numbers.
    """
    silent = OUTSIDE if OUTSIDE in labels else labels[0]
    rows = [Tagged([silent] * size, [0.0] * size) for size in sizes]
    for (number, told), scores in zip(owners, found, strict=True):
        for word, best, probability in zip(told, scores.argmax(-1).tolist(), scores.max(-1).tolist(), strict=True):
            rows[number].tags[word], rows[number].probabilities[word] = labels[best], probability
    return rows


def tag_rows(
    model: PretrainedModel,
    encoder: WordEncoder,
    rows: Sequence[Sequence[str]],
    labels: Sequence[str],
    batches: tuple[int, int],
) -> list[Tagged]:
    """Tags of rows of words.

    Args:
        model: in eval mode.
        encoder: makes tokens of words.
        rows: of words, one at least each.
        labels: names of tags in the order of the model's outputs.
        batches: the token to pad with, and rows per batch.
    """
    asked, owners = windows_of(encoder, rows)
    return tagged(tag_scores(model, asked, *batches), owners, [len(words) for words in rows], labels)


def mostly(train: pl.DataFrame, rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """The tag that each word mostly has in the training rows; for others O, or the most frequent of plain tags.

    Args:
        train: training rows with `text` and `tags`.
        rows: of words.
    """
    counts: dict[str, Counter[str]] = {}
    every: Counter[str] = Counter()
    for text, tags in train.select("text", "tags").iter_rows():
        for word, tag in zip(text.split(" "), tags.split(" "), strict=True):
            counts.setdefault(word, Counter())[tag] += 1
            every[tag] += 1
    other = OUTSIDE if OUTSIDE in every else _first(every)
    known = {word: _first(found) for word, found in counts.items()}
    return [[known.get(word, other) for word in words] for words in rows]


def _first(counts: "Counter[str]") -> str:
    return min(counts, key=lambda tag: (-counts[tag], tag))


def answered(rows: pl.DataFrame, who: str, given: Sequence[Sequence[str]]) -> pl.DataFrame:
    """Rows with the tags that a model gave, and whether all of them are right.

    Args:
        rows: with their own `tags`.
        who: `base`, `tuned` or a head alone.
        given: the tags of each row.
    """
    texts = [" ".join(tags) for tags in given]
    return rows.with_columns(
        pl.Series(who, texts, dtype=pl.String),
        pl.Series(f"{who}_exact", [one == other for one, other in zip(texts, rows["tags"], strict=True)], pl.Boolean),
    )


def probabilities_told(given: Sequence[Sequence[float]]) -> pl.Series:
    """Probabilities of each row's tags as JSON, the column `tuned_probabilities`."""
    return pl.Series("tuned_probabilities", [json.dumps(list(one)) for one in given], dtype=pl.String)


def spans_told(
    text: str, words: Sequence[tuple[str, int, int]], tags: Sequence[str], probabilities: Sequence[float]
) -> list[dict[str, Any]]:
    """The entities of a text: `type`, `text`, `start` and `end` in its characters, `probability`.

    Its probability is that of the word that the model is least sure of.

    Args:
        text: what the words are of.
        words: each with the place of its first character and of the one behind its last.
        tags: of the words.
        probabilities: of the tags.
    """
    found = []
    for kind, first, end in entities(tags):
        start, stop = words[first][1], words[end - 1][2]
        least = min(probabilities[first:end])
        found.append({"type": kind, "text": text[start:stop], "start": start, "end": stop, "probability": least})
    return found


def word_pairs(predictions: pl.DataFrame) -> pl.DataFrame:
    """Columns `actual` and `predicted`: the types that words have and were given, but for those outside of both."""
    rows: Iterator[tuple[str, str]] = chain.from_iterable(
        zip(_types(held), _types(given), strict=True) for held, given in predictions.select("tags", "tuned").iter_rows()
    )
    pairs = [pair for pair in rows if pair != (OUTSIDE, OUTSIDE)]
    return pl.DataFrame(pairs, schema={"actual": pl.String, "predicted": pl.String}, orient="row")


def _types(tags: str) -> list[str]:
    parts = tags.split(" ")
    found = [OUTSIDE] * len(parts)
    for one in entities(parts):
        found[one.start : one.end] = [one.type] * (one.end - one.start)
    return found


def tag_sections(predictions: pl.DataFrame) -> list[str]:
    """Lines of the card: each type of entity, and the rows with the most wrong tags."""
    lines = ["", "## Types", ""]
    lines += ["| type | in rows | given | right | precision | recall | F1 |", "|---|---:|---:|---:|---:|---:|---:|"]
    for name, one in by_type(predictions["tags"].to_list(), predictions["tuned"].to_list()).items():
        values = " | ".join(f"{value:.3f}" for value in (one.precision, one.recall, one.f1))
        lines.append(f"| {cell(name)} | {one.possible} | {one.actual} | {one.correct} | {values} |")
    lines += ["", "## Most wrong tags", ""]
    wrong = [(_wrong(row), row) for row in predictions.filter(~pl.col("tuned_exact")).iter_rows(named=True)]
    if not wrong:
        return [*lines, "None."]
    wrong.sort(key=lambda item: (-len(item[0]), item[1]["row"]))
    lines += ["| row | text | wrong | words: tag, given |", "|---:|---|---:|---|"]
    for odd, row in wrong[:MISTAKES]:
        told = ", ".join(f"{word}: {tag}, {given}" for word, tag, given in odd)
        lines.append(f"| {row['row']} | {cell(row['text'])} | {len(odd)} | {cell(told)} |")
    return lines


def _wrong(row: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    words = zip(*(row[name].split(" ") for name in ("text", "tags", "tuned")), strict=True)
    return [(word, tag, given) for word, tag, given in words if tag != given]
