"""How a merged folder is asked by stock Transformers, as its README says it."""

from collections.abc import Sequence
from typing import Any

from biasline.bases.tokenizer import Tokenizer
from biasline.kinds.answering import find_answering
from biasline.serving.package import Package
from biasline.serving.predictor import Predictor


def usage(package: Package, predictor: Predictor, tokenizer: Tokenizer, row: dict[str, Any]) -> list[str]:
    """How to ask the folder with plain Transformers, on a test row."""
    answering = find_answering(package.task.kind)
    loader = answering.learning.auto_class
    return [
        "```python",
        f"from transformers import {loader}, AutoTokenizer",
        "",
        'folder = "."',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        f'model = {loader}.from_pretrained(folder, dtype="{package.task.load.dtype}")',
        *answering.stock_usage(predictor, tokenizer, row),
    ]


def page(name: str, fingerprint: str, package: Package, use: Sequence[str], otherwise: int, card: str) -> str:
    """The folder's README: what it is, how it is used, and the card of the model."""
    lines = [
        f"# {name}, merged",
        "",
        f"`{package.pin.name}` with the delta of `{name}` (fingerprint "
        f"`{fingerprint}`) put in for good: a stock Transformers model that needs nothing "
        "else. Reloaded, its tensors were those of base and delta bit by bit, and its outputs the packaged model's.",
        "",
        "## Use",
        "",
        *use,
    ]
    if otherwise:
        lines += [
            "",
            f"Of the test rows asked, {otherwise} come out in other tokens this way than in training: there a dialogue "
            "that is too long is shortened, special tokens that stand in a text are read as text, and a prompt is what "
            "training shows before an answer, whatever the template writes to be answered.",
        ]
    return "\n".join([*lines, "", "---", "", card])
