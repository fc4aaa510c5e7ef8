"""How a merged folder is asked by stock Transformers: the same as code, for a check, and as its README."""

from collections.abc import Sequence
from typing import Any

from biasline.bases.tokenizer import Tokenizer
from biasline.serving.package import Package
from biasline.serving.predictor import Predictor
from biasline.tokens.template import dialogue


def loader(package: Package) -> str:
    """The Auto class of Transformers that loads it."""
    return "AutoModelForSequenceClassification" if package.headed else "AutoModelForCausalLM"


def _messages(row: dict[str, Any]) -> list[dict[str, str]]:
    instruction, given = row["instruction"], row.get("input") or ""
    content = f"{instruction}\n{given}".rstrip()
    before = [
        {"role": turn.role, "content": turn.content, "instruction": turn.content}
        for turn in dialogue("", "", row.get("history") or "")[:-1]
    ]
    return [*before, {"role": "user", "content": content, "instruction": instruction, "input": given}]


def stock_ids(tokenizer: Tokenizer, row: dict[str, Any], predictor: Predictor) -> list[int]:
    """Tokens of a row as the card says that it is worded."""
    if predictor.task.kind == "instruction":
        text = tokenizer.apply_chat_template(_messages(row), add_generation_prompt=True, tokenize=False)
        return tokenizer(text, add_special_tokens=False).input_ids
    text, pair = row["text"], row.get("text_pair") or None
    length = predictor.task.tokens.max_length
    if tokenizer("").input_ids:
        return tokenizer(text, pair, truncation=True, max_length=length).input_ids
    return tokenizer("\n".join(filter(None, (text, pair))) + (tokenizer.eos_token or "")).input_ids


def usage(package: Package, predictor: Predictor, tokenizer: Tokenizer, row: dict[str, Any]) -> list[str]:
    """How to ask the folder with plain Transformers, on a test row."""
    lines = [
        "```python",
        f"from transformers import {loader(package)}, AutoTokenizer",
        "",
        'folder = "."',
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        f'model = {loader(package)}.from_pretrained(folder, dtype="{package.task.load.dtype}")',
    ]
    if not package.headed:
        prompt = tokenizer.apply_chat_template(_messages(row), add_generation_prompt=True, tokenize=False)
        return [
            *lines,
            f"messages = {_messages(row)!r}",
            "prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)",
            'inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt")',
            'answer = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]',
            "print(tokenizer.decode(answer, skip_special_tokens=True).strip())",
            "```",
            "",
            "There the prompt is:",
            "",
            "```",
            prompt,
            "```",
        ]
    asked = "text, text_pair or None"
    if not tokenizer("").input_ids:  # then nothing tells two texts apart, or where one ends
        asked = '"\\n".join(filter(None, (text, text_pair))) + tokenizer.eos_token'
    lines += [
        f"text, text_pair = {row['text']!r}, {row.get('text_pair', '')!r}",
        f"cut = {{'truncation': True, 'max_length': {package.task.tokens.max_length}}}",
        f'inputs = tokenizer({asked}, return_tensors="pt", **cut)',
    ]
    if package.task.kind == "regression":
        scale = predictor.score
        return [*lines, f"print({scale['mean']!r} + {scale['std']!r} * model(**inputs).logits.item())", "```"]
    return [*lines, "print(model.config.id2label[model(**inputs).logits.argmax().item()])", "```"]


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
