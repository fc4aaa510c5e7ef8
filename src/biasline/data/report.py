"""What validation found, as numbers for `dvc metrics` and as a page for people."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from biasline.data.charts import bar, cell, histogram
from biasline.data.contract import Checked
from biasline.kinds.protocols import Learning
from biasline.layout import SPLITS

_SHOWN_ROWS = 30


def quality_numbers(
    checked: Checked, splits: dict[str, pl.DataFrame], raw_sha256: str, left_out: Mapping[str, int]
) -> dict[str, Any]:
    """Counts for quality.json: rows read, quarantined by rule, and by split; what a filter left out, where it did."""
    rows = checked.rows
    return {
        "raw_sha256": raw_sha256,
        "rows": rows,
        "quarantined": checked.quarantine.height,
        "quarantine_rate": round(checked.quarantine.height / rows, 6),
        "reasons": checked.broken,
        "splits": {name: splits[name].height for name in SPLITS},
        **({"left_out": dict(left_out)} if left_out else {}),
    }


def quality_page(
    data: Path,
    learning: Learning,
    taken: dict[str, str],
    notes: Sequence[str],
    numbers: dict[str, Any],
    checked: Checked,
    tenants: str = "",
) -> str:
    """quality.md: what was read, what was refused and why, with the rows themselves; of a fleet, whose they are."""
    kind = learning.columns
    columns = ", ".join(f"`{theirs}` as {ours}" for ours, theirs in taken.items())
    lines = [
        f"# Data quality: {data.as_posix()}",
        "",
        f"{numbers['rows']:,} rows read, {numbers['quarantined']:,} quarantined "
        f"({numbers['quarantine_rate']:.2%}). Columns taken: {columns}.",
        "",
        *(f"- {note}" for note in notes),
        *([""] if notes else []),
        "| split | rows | |",
        "|---|---:|---|",
        *(
            f"| {name} | {count:,} | {bar(count, max(numbers['splits'].values()))} |"
            for name, count in numbers["splits"].items()
        ),
        "",
        *_shape(learning, checked.good),
        "## Quarantine",
        "",
    ]
    if not checked.broken:
        return "\n".join([*lines, "No row broke the contract.", ""])
    most = max(checked.broken.values())
    lines += ["| rule | what is wrong | rows | |", "|---|---|---:|---|"]
    for name, count in sorted(checked.broken.items(), key=lambda item: (-item[1], item[0])):
        lines.append(f"| {name} | {checked.told[name]} | {count:,} | {bar(count, most)} |")
    shown = checked.quarantine.head(_SHOWN_ROWS)
    lines += ["", f"The first {shown.height} of them (all are in `clean/quarantine.parquet`):", ""]
    filled = [tenants] if tenants else []
    filled += [name for name in kind.columns if name not in kind.context or (shown[name].fill_null("") != "").any()]
    lines += ["| row | reasons | " + " | ".join(filled) + " |", "|---:|---|" + "---|" * len(filled)]
    for row in shown.iter_rows(named=True):
        cells = " | ".join(cell(row[name]) for name in filled)
        lines.append(f"| {row['row']} | {', '.join(row['reasons'])} | {cells} |")
    return "\n".join([*lines, ""])


def _shape(learning: Learning, good: pl.DataFrame) -> list[str]:
    """Lengths of what the model is given, and what the answers are like."""
    columns = learning.columns.given
    given = good.select(pl.sum_horizontal(pl.col(name).str.len_chars() for name in columns)).to_series()
    lines = ["## Good rows", "", *histogram(given.to_list(), "characters of the prompt"), ""]
    return [*lines, *learning.page_lines(good)]
