"""JSON as this project writes it: sorted by nothing, indented, UTF-8, one line end at the end."""

import json
from pathlib import Path
from typing import Any

from biasline.errors import BiaslineError, shown


def dump_json(value: Any) -> str:
    """JSON as all of our files have it: indented, readable beyond ASCII, without NaN, with a final line end."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def load_json(path: Path, hint: str) -> Any:
    """Read JSON; a missing or broken file is an error with `hint` as the way out."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BiaslineError(f"{shown(path)}: not there", hint) from None
    except json.JSONDecodeError as error:
        raise BiaslineError(f"{shown(path)}: broken JSON at line {error.lineno}: {error.msg}", hint) from None
