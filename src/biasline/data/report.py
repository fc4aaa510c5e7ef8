"""What validation found, as numbers for `dvc metrics` and as a page for people."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from biasline.data.contract import Checked
from biasline.data.kinds import Kind
from biasline.layout import SPLITS

_SHOWN_ROWS = 30
_SHOWN_CHARS = 80
_BAR = 30


def quality_numbers(checked: Checked, splits: dict[str, pl.DataFrame], raw_sha256: str) -> dict[str, Any]:
    """Counts for quality.json: rows read, quarantined by rule, and by split."""
    rows = checked.rows
    return {
        "raw_sha256": raw_sha256,
        "rows": rows,
        "quarantined": checked.quarantine.height,
        "quarantine_rate": round(checked.quarantine.height / rows, 6),
        "reasons": checked.broken,
        "splits": {name: splits[name].height for name in SPLITS},
    }


def quality_page(
    data: Path, kind: Kind, taken: dict[str, str], notes: Sequence[str], numbers: dict[str, Any], checked: Checked
) -> str:
    """quality.md: what was read, what was refused and why, with the rows themselves."""
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
            f"| {name} | {count:,} | {_bar(count, max(numbers['splits'].values()))} |"
            for name, count in numbers["splits"].items()
        ),
        "",
        "## Quarantine",
        "",
    ]
    if not checked.broken:
        return "\n".join([*lines, "No row broke the contract.", ""])
    most = max(checked.broken.values())
    lines += ["| rule | what is wrong | rows | |", "|---|---|---:|---|"]
    for name, count in sorted(checked.broken.items(), key=lambda item: (-item[1], item[0])):
        lines.append(f"| {name} | {checked.told[name]} | {count:,} | {_bar(count, most)} |")
    shown = checked.quarantine.head(_SHOWN_ROWS)
    lines += ["", f"The first {shown.height} of them (all are in `clean/quarantine.parquet`):", ""]
    columns = [name for name in kind.columns if name not in kind.context or (shown[name].fill_null("") != "").any()]
    lines += ["| row | reasons | " + " | ".join(columns) + " |", "|---:|---|" + "---|" * len(columns)]
    for row in shown.iter_rows(named=True):
        cells = " | ".join(_cell(row[name]) for name in columns)
        lines.append(f"| {row['row']} | {', '.join(row['reasons'])} | {cells} |")
    return "\n".join([*lines, ""])


def _bar(count: int, most: int) -> str:
    return "█" * max(1, round(_BAR * count / most)) if count else ""


def _cell(value: str | None) -> str:
    """A value as a table cell: unprintable characters spelled out, cut to a glance."""
    if value is None:
        return "*null*"
    text = "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in value)
    text = text.replace("|", "\\|").replace("<", "&lt;")
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 1] + "…"
