"""`python -m biasline.demo base`, `… data` and `… shops`: what the demo and the example of a fleet stand on."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path


def main(argv: Sequence[str] | None = None) -> None:
    """Run one of the commands."""
    parser = argparse.ArgumentParser(prog="python -m biasline.demo", description=__doc__)
    commands = parser.add_subparsers(required=True)

    base = commands.add_parser("base", help="pretrain the demo base; twenty minutes on two cores")
    base.add_argument("--out", type=Path, default=Path("data/bases/tiny-bloom"), help="folder to write")
    base.add_argument("--steps", type=int, help="optimizer steps; default: those of the committed base")
    base.add_argument("--minutes", type=float, help="stop by the clock instead; not reproducible")
    base.set_defaults(run=_base)

    data = commands.add_parser("data", help="write the raw data of both demo tasks; a second")
    data.add_argument("--out", type=Path, default=Path("data"), help="folder to write to")
    data.set_defaults(run=_data)

    shops = commands.add_parser("shops", help="write the rows of a fleet of shops; a second")
    shops.add_argument("--out", type=Path, default=Path("data"), help="folder to write to")
    shops.set_defaults(run=_shops)

    arguments = parser.parse_args(argv)
    arguments.run(arguments)


def _base(arguments: argparse.Namespace) -> None:
    # Threads that spin while they wait cost a shared machine dearly. Torch reads this when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from biasline.demo.card import model_card
    from biasline.demo.pretrain import Recipe, pretrain, save, train_tokenizer

    given = {name: getattr(arguments, name) for name in ("steps", "minutes")}
    recipe = Recipe(**{name: value for name, value in given.items() if value is not None})
    tokenizer = train_tokenizer(recipe)
    model, run = pretrain(recipe, tokenizer)
    save(arguments.out, model, tokenizer)
    (arguments.out / "README.md").write_text(model_card(recipe, run), encoding="utf-8")
    print(f"{arguments.out}: {run.parameters:,} parameters, loss {run.loss:.3f}, {run.seconds / 60:.0f} minutes")


def _data(arguments: argparse.Namespace) -> None:
    from biasline.demo import instruct, sentiment

    instructions, reviews = instruct.make_rows(), sentiment.make_rows()
    _write(arguments.out / "instruct" / "raw.jsonl", instructions.to_jsonl(), instructions.broken)
    _write(arguments.out / "sentiment" / "raw.tsv", reviews.to_tsv(), reviews.broken)


def _shops(arguments: argparse.Namespace) -> None:
    from biasline.demo import shops

    made = shops.shops()
    _write(arguments.out / "shops" / "raw.jsonl", shops.to_jsonl(made), {})


def _write(path: Path, text: str, broken: Mapping[str, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    spoilt = f", {sum(broken.values())} of them broken on purpose" if broken else ""
    print(f"{path}: {len(text.splitlines()):,} lines{spoilt}")


if __name__ == "__main__":
    main()
