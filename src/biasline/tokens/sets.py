"""The tokenize stage: clean splits → memory-mapped token sets and a preview that shows the mask."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from biasline.bases.pin import Pin, load_tokenizer, verified_folder
from biasline.data.split import read_split
from biasline.errors import BiaslineError
from biasline.jsonfile import dump_json, load_json
from biasline.layout import SPLITS, TaskPlace, replacing, write_text
from biasline.params import Task
from biasline.tokens.mask import IGNORED, Encoded, Encoder
from biasline.tokens.template import render_prompt

SUMMARY = "summary.json"
_PREVIEWED = 12


def tokenize(task: Task, place: TaskPlace) -> str:
    """Run the stage; nothing is written unless all of it succeeds.

    Errors: `BiaslineError` where a split keeps no row.
    """
    pin, folder = verified_folder(Path(task.base))
    encoder = Encoder(load_tokenizer(pin, folder), task.tokens.max_length, task.tokens.long_response)
    sets: dict[str, tuple[list[int], list[Encoded]]] = {}
    rejected: dict[str, list[int]] = {}
    for name in SPLITS:
        frame = read_split(place, name)
        encoded = encoder.examples(prompts_of(frame, task.tokens.template), frame["output"].to_list())
        rows = frame["row"].to_list()
        kept = [(row, example) for row, example in zip(rows, encoded, strict=True) if example is not None]
        rejected[name] = [row for row, example in zip(rows, encoded, strict=True) if example is None]
        if rows and not kept:
            raise BiaslineError(
                f"tokens.max_length {task.tokens.max_length}: no response of the {name} split fits",
                "raise it, or set tokens.long_response: truncate",
            )
        sets[name] = ([row for row, _ in kept], [example for _, example in kept])

    summary = _summary(pin, task, sets, rejected)
    with replacing(place.tokens) as draft:
        draft.mkdir()
        for name, (rows, examples) in sets.items():
            _save(draft / name, rows, examples)
        (draft / SUMMARY).write_text(dump_json(summary), encoding="utf-8")
    write_text(place.preview, _preview(encoder, summary, sets["train"]))
    counts = ", ".join(f"{name} {numbers['rows']:,}" for name, numbers in summary["splits"].items())
    left_out = sum(map(len, rejected.values()))
    told = f", {left_out} rows left out (response over max_length)" if left_out else ""
    supervised = summary["splits"]["train"]["supervised_tokens"] / summary["splits"]["train"]["tokens"]
    return f"{counts}{told}; {supervised:.0%} of the training tokens are supervised; see {place.preview}"


def prompts_of(frame: pl.DataFrame, template: str) -> list[str]:
    """The rendered prompts of a clean split, in its order."""
    pairs = zip(frame["instruction"].to_list(), frame["input"].to_list(), strict=True)
    return [render_prompt(template, instruction, text) for instruction, text in pairs]


def read_token_set(place: TaskPlace, split: str) -> Any:
    """A token set, memory-mapped: a `datasets.Dataset` with columns `row`, `input_ids`, `labels`."""
    import datasets

    if not (place.tokens / split).is_dir():
        raise BiaslineError(f"{place.tokens / split}: not there", f"dvc repro tokenize@{place.task}")
    return datasets.load_from_disk(str(place.tokens / split))


def read_summary(place: TaskPlace) -> Mapping[str, Any]:
    """Counts and lengths of the token sets, and what they were made with."""
    return load_json(place.tokens / SUMMARY, f"dvc repro tokenize@{place.task}")


def _save(folder: Path, rows: list[int], examples: list[Encoded]) -> None:
    import datasets

    datasets.disable_progress_bars()
    ids = datasets.List(datasets.Value("int32"))
    features = datasets.Features({"row": datasets.Value("int32"), "input_ids": ids, "labels": ids})
    columns = {
        "row": rows,
        "input_ids": [example.input_ids for example in examples],
        "labels": [example.labels for example in examples],
    }
    datasets.Dataset.from_dict(columns, features=features).save_to_disk(str(folder))


def _summary(
    pin: Pin,
    task: Task,
    sets: Mapping[str, tuple[list[int], list[Encoded]]],
    rejected: Mapping[str, list[int]],
) -> dict[str, Any]:
    splits = {}
    for name, (rows, examples) in sets.items():
        lengths = sorted(len(example.input_ids) for example in examples)
        splits[name] = {
            "rows": len(rows),
            "rejected_rows": rejected[name],
            "tokens": sum(lengths),
            "supervised_tokens": sum(label != IGNORED for example in examples for label in example.labels),
            "longest": lengths[-1] if lengths else 0,
            "median": lengths[len(lengths) // 2] if lengths else 0,
        }
    return {
        "base": pin.name,
        "tokenizer_sha256": pin.tokenizer_sha256,
        "template": task.tokens.template,
        "max_length": task.tokens.max_length,
        "splits": splits,
    }


def _preview(encoder: Encoder, summary: Mapping[str, Any], train: tuple[list[int], list[Encoded]]) -> str:
    lines = [
        "# Tokens",
        "",
        f"Base `{summary['base']}`, template `{summary['template']}`, at most {summary['max_length']} tokens a row.",
        "",
        "| split | rows | left out | tokens | supervised | median length | longest |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, numbers in summary["splits"].items():
        share = numbers["supervised_tokens"] / numbers["tokens"] if numbers["tokens"] else 0.0
        lines.append(
            f"| {name} | {numbers['rows']:,} | {len(numbers['rejected_rows']):,} | {numbers['tokens']:,} | {share:.1%} "
            f"| {numbers['median']} | {numbers['longest']} |"
        )
    lines += ["", "Training rows as the model sees them; the loss is taken between ⟦ and ⟧ only.", ""]
    for row, example in list(zip(*train, strict=True))[:_PREVIEWED]:
        lines += [f"Row {row}, {len(example.input_ids)} tokens:", "", "````text", _marked(encoder, example), "````", ""]
    return "\n".join(lines)


def _marked(encoder: Encoder, example: Encoded) -> str:
    """The decoded example with every supervised run of tokens between ⟦ and ⟧."""
    parts: list[tuple[bool, list[int]]] = []
    for token, label in zip(example.input_ids, example.labels, strict=True):
        supervised = label != IGNORED
        if not parts or parts[-1][0] != supervised:
            parts.append((supervised, []))
        parts[-1][1].append(token)
    decoded = [(supervised, encoder.tokenizer.decode(tokens)) for supervised, tokens in parts]
    return "".join(f"⟦{text}⟧" if supervised else text for supervised, text in decoded)
