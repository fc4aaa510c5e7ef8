"""preview.md: what the model sees of the training rows, and how long rows are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from biasline.data.charts import histogram
from biasline.tokens.encoding import Encoding

PREVIEWED = 12
_LISTED = 40


def preview(
    encoding: Encoding,
    summary: Mapping[str, Any],
    notes: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    lengths: np.ndarray,
    supervised: np.ndarray | None,
    augmented: Sequence[Mapping[str, Any]],
) -> str:
    """The page.

    Args:
        encoding: how rows became tokens.
        summary: counts and lengths by split.
        notes: what should be known of the template or the rows.
        rows: some training rows in tokens: `row`, `input_ids`, `labels`; of a fleet `tenant`, a place in those of
            `summary`.
        lengths: tokens of every training row.
        supervised: supervised tokens of every training row; None where rows have one target.
        augmented: some augmented rows: `row`, `parent`, `method`, `old` and `new` text.
    """
    lines = [
        "# Tokens",
        "",
        f"Base `{summary['base']}`, {encoding.made}, at most {summary['max_length']} tokens a row.",
        "",
        *(f"- {note}" for note in notes),
        *([""] if notes else []),
        "| split | rows | left out | cut | tokens | unknown | supervised | shortest | median | longest |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, numbers in summary["splits"].items():
        share = encoding.target_word or f"{numbers['supervised_tokens'] / max(numbers['tokens'], 1):.1%}"
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
    lines += ["## Training rows as the model sees them", "", f"{encoding.marked}.", ""]
    for row in rows:
        of = f" of {summary['tenants'][row['tenant']]}" if "tenant" in row else ""
        told = f"Row {row['row']}{of}, {len(row['input_ids'])} tokens:"
        lines += [told, "", "````text", encoding.show(row), "````", ""]
    if augmented:
        lines += ["## Augmented rows beside their parents", ""]
    for row in augmented:
        told = f"Row {row['row']}, made of row {row['parent']} by {row['method']}:"
        lines += [told, "", "````text", f"- {row['old']}", f"+ {row['new']}", "````", ""]
    return "\n".join(lines)
