"""Token sets as the tokenize stage has saved them."""

from collections.abc import Mapping
from typing import Any

from biasline.errors import BiaslineError
from biasline.jsonfile import load_json
from biasline.layout import TaskPlace

SUMMARY = "summary.json"
IGNORED = -100


def read_token_set(place: TaskPlace, split: str) -> Any:
    """A token set, memory-mapped: a `datasets.Dataset` with columns `row`, `input_ids`, `labels` and more."""
    import datasets

    folder = place.tokens / split
    if not folder.is_dir():
        raise BiaslineError(f"{folder}: not there", f"dvc repro tokenize@{place.task}")
    if not list(folder.glob("*.arrow")):
        # Of no rows `datasets` writes their columns alone, and cannot read them back.
        features = datasets.DatasetInfo.from_directory(str(folder)).features
        return datasets.Dataset.from_dict({name: [] for name in features}, features=features)
    return datasets.load_from_disk(str(folder))


def read_summary(place: TaskPlace) -> Mapping[str, Any]:
    """Counts and lengths of the token sets, and what they were made with."""
    return load_json(place.tokens / SUMMARY, f"dvc repro tokenize@{place.task}")
