"""What a base wants to be said beside the defaults, where a task on it is laid out."""

from pathlib import Path
from typing import Any

from biasline.bases.pin import Pin, locate
from biasline.errors import BiaslineError
from biasline.jsonfile import load_json

# What is trained where nothing is said.
_TRAINED = "attention+mlp"
_ROLES = {"query", "key", "value", "attention_output", "mlp_in", "mlp_out"}
_TEMPLATE = "chat_template.jinja"


def suited(pin: Pin, pin_path: Path, writes: bool) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Parameters of a task that a base needs or brings, and a note about each.

    Args:
        pin: the base's.
        pin_path: where it was read.
        writes: whether the task's model writes texts.

    Returns:
        group of parameters → name → value; and notes.
    """
    found: dict[str, dict[str, Any]] = {}
    notes = []
    if not _ROLES & pin.inventory.get("roles", {}).keys() and _ROLES & pin.inventory.get("injectable", {}).keys():
        found["train"] = {"inject": _TRAINED}
        model_type = pin.inventory.get("model_type", "its model")
        notes.append(f"train.inject: {_TRAINED}: {model_type} has no such biases, so they are added, at zero")
    if writes and _has_template(pin, pin_path):
        found["tokens"] = {"template": "chat"}
        notes.append("tokens.template: chat: the base was made to answer with a template of its own")
    return found, notes


def _has_template(pin: Pin, pin_path: Path) -> bool:
    if _TEMPLATE in pin.files:
        return True
    if "tokenizer_config.json" not in pin.files or pin.source.kind == "hub":  # nothing is fetched for this
        return False
    try:
        told = load_json(locate(pin, pin_path) / "tokenizer_config.json", "restore the base's files")
    except BiaslineError:  # said where the base is needed
        return False
    return bool(told.get("chat_template"))
