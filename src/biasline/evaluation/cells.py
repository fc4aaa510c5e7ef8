"""How texts of rows are written into tables of Markdown."""

from collections.abc import Mapping
from typing import Any

from biasline.kinds.columns import Columns

# Rows that a table of mistakes has at most.
MISTAKES = 10
_LONGEST = 120


def cell(text: str) -> str:
    """A text on one line, cut where it is long, without what would end its cell."""
    flat = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return flat if len(flat) <= _LONGEST else flat[: _LONGEST - 1] + "…"


def prompt_of(row: Mapping[str, Any], columns: Columns) -> str:
    """The texts that a model was given in a row, in one."""
    return " / ".join(row[name] for name in columns.prompt if row[name])
