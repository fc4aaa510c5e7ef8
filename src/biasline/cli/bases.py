"""Commands about bases."""

import json
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from biasline.cli.common import AsJson
from biasline.errors import shown


def pin(
    source: Annotated[
        str, typer.Argument(help="Local folder, hub id OWNER/NAME, or package:NAME/FOLDER; each /FILE.gguf too.")
    ],
    out: Annotated[Path | None, typer.Option(help="Pin to write; data/bases/NAME.json if left out.")] = None,
    revision: Annotated[str, typer.Option(help="Branch, tag or commit of a hub id.")] = "",
    allow_bin: Annotated[bool, typer.Option(help="Accept pickled weights (read with weights_only=True).")] = False,
) -> None:
    """Pin a base: hash its files, count its biases, write a small JSON."""
    from biasline.bases.create import create_pin
    from biasline.layout import write_text

    target = out or Path("data/bases") / f"{Path(source.rstrip('/')).name.lower().removesuffix('.gguf')}.json"
    made = create_pin(source, target, revision, allow_bin)
    text, before = made.dumps(), target.read_text(encoding="utf-8") if target.is_file() else None
    found = made.inventory
    if text == before:
        print(f"{shown(target)}: pinned so already")
        return
    write_text(target, text)
    print(
        f"{shown(target)}: {found['model_type']}, {found['parameters']:,} parameters, {found['biases']:,} biases "
        f"({found['share']:.3%}), {len(made.files)} files hashed{'' if before is None else '; it replaces another pin'}"
    )


def inspect(
    model: Annotated[
        str, typer.Argument(help="A pin, a model's folder or config.json, package:NAME/FOLDER, or a hub id.")
    ],
    revision: Annotated[str, typer.Option(help="Branch, tag or commit of a hub id.")] = "",
    labels: Annotated[int, typer.Option(help="With a new classification head for so many labels.", min=0)] = 0,
    figure: Annotated[Path | None, typer.Option(help="Draw layer × role into this file (.png, .svg, .pdf).")] = None,
    as_json: AsJson = False,
) -> None:
    """List every bias of a base, and where one could be injected; reads its config alone, no weights."""
    from biasline.bases.create import config_file, inventory_of
    from biasline.bases.describe import as_data, as_text

    found = inventory_of(config_file(model, revision), labels)
    if as_json:
        print(json.dumps(as_data(found), indent=2))
    else:
        print(as_text(found, shutil.get_terminal_size((140, 24)).columns))
    if figure is not None:
        from biasline.figures.biases import bias_counts
        from biasline.figures.canvas import save_figure

        save_figure(bias_counts(found), figure)
        print(f"drawn: {shown(figure)}", file=sys.stderr)
