"""preview.md: what the model sees of the training rows, and how long rows are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from biasline.bases.tokenizer import Tokenizer
from biasline.data.charts import histogram
from biasline.tokens.saved import IGNORED

PREVIEWED = 12
_LISTED = 40


def preview(
    tokenizer: Tokenizer,
    summary: Mapping[str, Any],
    notes: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    lengths: np.ndarray,
    supervised: np.ndarray | None,
    augmented: Sequence[Mapping[str, Any]],
) -> str:
    """The page.

    Args:
        tokenizer: the base's.
        summary: counts and lengths by split.
        notes: what should be known of the template or the rows.
        rows: some training rows in tokens: `row`, `input_ids`, `labels`.
        lengths: tokens of every training row.
        supervised: supervised tokens of every training row; None where rows have a label or score.
        augmented: some augmented rows: `row`, `parent`, `method`, `old` and `new` text.
    """
    labels, scored = summary.get("labels"), "score" in summary
    made = "scores" if scored else f"labels {', '.join(labels)}" if labels else f"template `{summary['template']}`"
    target_word = "score" if scored else "label" if labels else ""
    lines = [
        "# Tokens",
        "",
        f"Base `{summary['base']}`, {made}, at most {summary['max_length']} tokens a row.",
        "",
        *(f"- {note}" for note in notes),
        *([""] if notes else []),
        "| split | rows | left out | cut | tokens | unknown | supervised | shortest | median | longest |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, numbers in summary["splits"].items():
        share = target_word or f"{numbers['supervised_tokens'] / max(numbers['tokens'], 1):.1%}"
        lines.append(
            f"| {name} | {numbers['rows']:,} | {len(numbers['rejected_rows']):,} | {numbers['cut_rows']:,} "
            f"| {numbers['tokens']:,} | {numbers['unknown_tokens']:,} | {share} "
            f"| {numbers['shortest']} | {numbers['median']} | {numbers['longest']} |"
        )
    lines.append("")
    for name, numbers in summary["splits"].items():
        if left_out := numbers["rejected_rows"]:
            more = ", …" if len(left_out) > _LISTED else ""
            lines += [f"Left out of {name}, rows {', '.join(map(str, left_out[:_LISTED]))}{more}.", ""]
        if lost := numbers.get("rows_by_lost_exchanges"):
            parts = ", ".join(f"{rows:,} rows lost {count}" for count, rows in lost.items())
            lines += [f"Oldest exchanges left out of {name} for their length: {parts}.", ""]
    lines += ["## Lengths of training rows", "", *histogram(lengths, "tokens"), ""]
    if supervised is not None:
        lines += [*histogram(supervised, "supervised tokens"), ""]
    what = f"their {target_word} behind an arrow" if target_word else "the loss is taken between ⟦ and ⟧ only"
    lines += ["## Training rows as the model sees them", "", f"{what[0].upper()}{what[1:]}.", ""]
    for row in rows:
        ids, target = row["input_ids"], row["labels"]
        if target_word:
            shown = f"{tokenizer.decode(ids)} → {labels[target] if labels else f'{target:g}'}"
        else:
            shown = _marked(tokenizer, ids, target)
        lines += [f"Row {row['row']}, {len(ids)} tokens:", "", "````text", shown, "````", ""]
    if augmented:
        lines += ["## Augmented rows beside their parents", ""]
    for row in augmented:
        told = f"Row {row['row']}, made of row {row['parent']} by {row['method']}:"
        lines += [told, "", "````text", f"- {row['old']}", f"+ {row['new']}", "````", ""]
    return "\n".join(lines)


def _marked(tokenizer: Tokenizer, input_ids: list[int], labels: list[int]) -> str:
    """The decoded example with every supervised run of tokens between ⟦ and ⟧."""
    parts: list[tuple[bool, list[int]]] = []
    for token, label in zip(input_ids, labels, strict=True):
        supervised = label != IGNORED
        if not parts or parts[-1][0] != supervised:
            parts.append((supervised, []))
        parts[-1][1].append(token)
    decoded = [(supervised, tokenizer.decode(tokens)) for supervised, tokens in parts]
    return "".join(f"⟦{text}⟧" if supervised else text for supervised, text in decoded)
