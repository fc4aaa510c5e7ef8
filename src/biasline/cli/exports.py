"""Commands that write models for other programs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from biasline.cli.common import ModelName, find_task
from biasline.errors import shown


def merge(
    model: ModelName,
    out: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
) -> None:
    """Write a model as a stock Transformers folder that needs no delta, once its outputs are shown to be the same."""
    export(model, out)


def export(
    model: ModelName,
    out: Annotated[Path, typer.Argument(help="A folder, or of gguf and control-vector a file, that is not there yet.")],
    to: Annotated[
        Literal["hf", "gguf", "control-vector", "lora"],
        typer.Option(help="Stock Transformers (as merge); a file for llama.cpp; what that adds to layers; for PEFT."),
    ] = "hf",
    target: Annotated[
        Literal["", "transformers", "llama.cpp", "vllm", "sglang"],
        typer.Option(help="Of hf and lora: the program that is to read it; train.target if left out."),
    ] = "",
    split: Annotated[
        bool, typer.Option("--split", help="Of gguf: into a folder where all tasks share the base.")
    ] = False,
) -> None:
    """Write a model as other programs read it; what one of them would leave out without a word is refused."""
    if split and to != "gguf":
        raise typer.BadParameter("--split is of --to gguf")
    if target and to not in ("hf", "lora"):
        raise typer.BadParameter("--target is of --to hf and lora: the others are llama.cpp's")
    from biasline.registry.aliases import CHAMPION
    from biasline.registry.export import export_version
    from biasline.tracking.store import connect

    task, _, which = model.partition("@")
    find_task(task)
    for line in export_version(connect(), task, which or CHAMPION, out, to=to, target=target, split=split):
        print(line)


def extract(
    model: ModelName,
    tenant: Annotated[str, typer.Argument(help="The tenant's name.")],
    out: Annotated[Path, typer.Argument(help="A file that is not there yet.")],
) -> None:
    """Write the delta of one tenant of a fleet: an ordinary delta file, byte for byte as it was trained."""
    from biasline.registry.aliases import CHAMPION
    from biasline.registry.extract import extract as extract_delta
    from biasline.tracking.store import connect

    task, _, which = model.partition("@")
    find_task(task)
    done = extract_delta(connect(), task, which or CHAMPION, tenant, out)
    print(
        f"{shown(out)}: the delta of {tenant!r} in {done.name} version {done.version}, {done.bytes:,} bytes{done.told}"
    )


def dossier(
    model: ModelName,
    out: Annotated[Path, typer.Argument(help="A folder that is not there yet.")],
    pdf: Annotated[bool, typer.Option("--pdf", help="The document as PDF too.")] = False,
    signature: Annotated[
        Path | None, typer.Option(metavar="PUBLIC.pem", help="A key that its signature is held against.")
    ] = None,
) -> None:
    """Write all that is known of a model: who let it out, card, data, gates, ledger, limits; its BOM and provenance."""
    from biasline.registry.aliases import CHAMPION
    from biasline.registry.dossier import dossier as written
    from biasline.tracking.store import connect

    task, _, which = model.partition("@")
    find_task(task)
    for line in written(connect(), task, which or CHAMPION, out, pdf=pdf, public=signature):
        print(line)
