"""The tokenize stage: clean splits → memory-mapped token sets and a preview that shows the mask."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from biasline.bases.pin import Pin, load_tokenizer, verified_folder, wants_token_types
from biasline.data.split import read_split
from biasline.errors import BiaslineError
from biasline.jsonfile import dump_json, load_json
from biasline.layout import SPLITS, TaskPlace, replacing, write_text
from biasline.params import Task
from biasline.tokens.mask import IGNORED, Encoder
from biasline.tokens.template import Turn, dialogue
from biasline.tokens.texts import TextEncoder, label_names, label_numbers

SUMMARY = "summary.json"
_PREVIEWED = 12
_MUCH_LEFT_OUT = 0.05


@dataclass(frozen=True)
class _TokenSet:
    """One split in tokens.

    Attributes:
        columns: `row`, `input_ids`, `labels` (per token, or one class number a row) and further inputs of the model.
        rejected: numbers of the rows that were left out.
    """

    columns: dict[str, list[Any]]
    rejected: list[int]


def tokenize(task: Task, place: TaskPlace) -> str:
    """Run the stage; nothing is written unless all of it succeeds.

    Errors: `BiaslineError` where a split keeps no row, or its labels are not those of training.
    """
    pin, folder = verified_folder(Path(task.base))
    tokenizer = load_tokenizer(pin, folder)
    frames = {name: read_split(place, name) for name in SPLITS}
    labels: list[str] = []
    if task.kind == "classification":
        labels = label_names(task.source.labels, frames["train"]["label"].to_list())
        encoder = TextEncoder(tokenizer, task.tokens.max_length, wants_token_types(folder))
        sets = {name: _texts(encoder, frame, labels, name) for name, frame in frames.items()}
    else:
        responses = Encoder(tokenizer, task.tokens.template, task.tokens.max_length, task.tokens.long_response)
        sets = {name: _responses(responses, frame) for name, frame in frames.items()}
    for name, found in sets.items():
        if found.rejected and not found.columns["row"]:
            raise BiaslineError(
                f"tokens.max_length {task.tokens.max_length}: no response of the {name} split fits",
                "raise it, or set tokens.long_response: truncate",
            )

    summary = _summary(pin, task, labels, sets)
    with replacing(place.tokens) as draft:
        draft.mkdir()
        for name, found in sets.items():
            _save(draft / name, found.columns)
        (draft / SUMMARY).write_text(dump_json(summary), encoding="utf-8")
    write_text(place.preview, _preview(tokenizer, summary, sets["train"].columns))
    counts = ", ".join(f"{name} {numbers['rows']:,}" for name, numbers in summary["splits"].items())
    left_out = sum(len(found.rejected) for found in sets.values())
    rows = sum(frame.height for frame in frames.values())
    told = f", {left_out} rows left out (response over max_length)" if left_out else ""
    if left_out > _MUCH_LEFT_OUT * rows:
        print(
            f"warning: {left_out / rows:.0%} of the rows have no place for their response in {task.tokens.max_length} "
            "tokens and are left out → raise tokens.max_length, or set tokens.long_response: truncate"
        )
    train = summary["splits"]["train"]
    what = (
        f"{len(labels)} labels: {', '.join(labels)}"
        if labels
        else f"{train['supervised_tokens'] / train['tokens']:.0%} of the training tokens are supervised"
    )
    return f"{counts}{told}; {what}; see {place.preview}"


def _responses(encoder: Encoder, frame: pl.DataFrame) -> _TokenSet:
    encoded = encoder.examples(dialogues_of(frame, answered=True))
    pairs = list(zip(frame["row"].to_list(), encoded, strict=True))
    kept = [(row, example) for row, example in pairs if example is not None]
    columns = {
        "row": [row for row, _ in kept],
        "input_ids": [example.input_ids for _, example in kept],
        "labels": [example.labels for _, example in kept],
    }
    return _TokenSet(columns, [row for row, example in pairs if example is None])


def _texts(encoder: TextEncoder, frame: pl.DataFrame, labels: list[str], split: str) -> _TokenSet:
    rows = frame["row"].to_list()
    inputs = encoder.texts(frame["text"].to_list(), frame["text_pair"].to_list())
    columns = {name: [row[name] for row in inputs] for name in (inputs[0] if inputs else {"input_ids": []})}
    return _TokenSet(
        {"row": rows, **columns, "labels": label_numbers(labels, frame["label"].to_list(), rows, split)}, []
    )


def dialogues_of(frame: pl.DataFrame, answered: bool) -> list[list[Turn]]:
    """The dialogues of a clean split, in its order; with the last answer or up to it."""
    rows = frame.select("instruction", "input", "history", "output").iter_rows()
    return [dialogue(*given, output=output if answered else None) for *given, output in rows]


def read_token_set(place: TaskPlace, split: str) -> Any:
    """A token set, memory-mapped: a `datasets.Dataset` with columns `row`, `input_ids`, `labels`, …"""
    import datasets

    if not (place.tokens / split).is_dir():
        raise BiaslineError(f"{place.tokens / split}: not there", f"dvc repro tokenize@{place.task}")
    return datasets.load_from_disk(str(place.tokens / split))


def read_summary(place: TaskPlace) -> Mapping[str, Any]:
    """Counts and lengths of the token sets, and what they were made with."""
    return load_json(place.tokens / SUMMARY, f"dvc repro tokenize@{place.task}")


def _save(folder: Path, columns: dict[str, list[Any]]) -> None:
    import datasets

    datasets.disable_progress_bars()
    number, ids = datasets.Value("int32"), datasets.List(datasets.Value("int32"))
    # One number a row for `row` and for a class, a list for all else; an empty split looks like any other.
    one = {"row"} if columns["labels"] and isinstance(columns["labels"][0], list) else {"row", "labels"}
    features = datasets.Features({name: number if name in one else ids for name in columns})
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(folder))


def _summary(pin: Pin, task: Task, labels: list[str], sets: Mapping[str, _TokenSet]) -> dict[str, Any]:
    splits = {}
    for name, found in sets.items():
        lengths = sorted(map(len, found.columns["input_ids"]))
        splits[name] = {
            "rows": len(lengths),
            "rejected_rows": found.rejected,
            "tokens": sum(lengths),
            "longest": lengths[-1] if lengths else 0,
            "median": lengths[len(lengths) // 2] if lengths else 0,
        }
        if not labels:
            supervised = (label != IGNORED for row in found.columns["labels"] for label in row)
            splits[name]["supervised_tokens"] = sum(supervised)
    summary = {"base": pin.name, "tokenizer_sha256": pin.tokenizer_sha256, "max_length": task.tokens.max_length}
    summary |= {"labels": labels} if labels else {"template": task.tokens.template_name}
    return {**summary, "splits": splits}


def _preview(tokenizer: Any, summary: Mapping[str, Any], train: Mapping[str, list[Any]]) -> str:
    labels = summary.get("labels")
    made = f"labels {', '.join(labels)}" if labels else f"template `{summary['template']}`"
    lines = [
        "# Tokens",
        "",
        f"Base `{summary['base']}`, {made}, at most {summary['max_length']} tokens a row.",
        "",
        "| split | rows | left out | tokens | supervised | median length | longest |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, numbers in summary["splits"].items():
        share = f"{numbers['supervised_tokens'] / max(numbers['tokens'], 1):.1%}" if not labels else "label"
        lines.append(
            f"| {name} | {numbers['rows']:,} | {len(numbers['rejected_rows']):,} | {numbers['tokens']:,} | {share} "
            f"| {numbers['median']} | {numbers['longest']} |"
        )
    what = "their label behind an arrow" if labels else "the loss is taken between ⟦ and ⟧ only"
    lines += ["", f"Training rows as the model sees them; {what}.", ""]
    for row, ids, target in list(zip(train["row"], train["input_ids"], train["labels"], strict=True))[:_PREVIEWED]:
        shown = f"{tokenizer.decode(ids)} → {labels[target]}" if labels else _marked(tokenizer, ids, target)
        lines += [f"Row {row}, {len(ids)} tokens:", "", "````text", shown, "````", ""]
    return "\n".join(lines)


def _marked(tokenizer: Any, input_ids: list[int], labels: list[int]) -> str:
    """The decoded example with every supervised run of tokens between ⟦ and ⟧."""
    parts: list[tuple[bool, list[int]]] = []
    for token, label in zip(input_ids, labels, strict=True):
        supervised = label != IGNORED
        if not parts or parts[-1][0] != supervised:
            parts.append((supervised, []))
        parts[-1][1].append(token)
    decoded = [(supervised, tokenizer.decode(tokens)) for supervised, tokens in parts]
    return "".join(f"⟦{text}⟧" if supervised else text for supervised, text in decoded)
