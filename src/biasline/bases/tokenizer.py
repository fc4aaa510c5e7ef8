"""A base's tokenizer as stock Transformers reads it, without torch, which `AutoTokenizer` imports.

`AutoTokenizer` takes a class by the files' names and by tables of its own. Some classes build the tokenizer anew, from
what tokenizer_config.json says of case, accents and spaces, and so read texts otherwise than tokenizer.json does. Which
class it is gets asked when a base is pinned, and stands in the pin where it makes a difference.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from biasline.bases.limits import Limits
from biasline.errors import BiaslineError, first_line
from biasline.jsonfile import load_json


class Tokenizer(Protocol):
    """What is used of a fast tokenizer of Transformers."""

    eos_token: str | None
    eos_token_id: int | None
    bos_token_id: int | None
    unk_token_id: int | None
    pad_token_id: int | None
    chat_template: Any
    truncation_side: str
    added_tokens_decoder: Mapping[int, Any]
    backend_tokenizer: Any

    def __call__(self, text: Any, text_pair: Any = None, **options: Any) -> Any:
        """Texts in tokens: `input_ids` and what else a model is given."""

    def decode(self, token_ids: Sequence[int], **options: Any) -> str:
        """The text of tokens."""

    def batch_decode(self, sequences: Sequence[Sequence[int]], **options: Any) -> list[str]:
        """The texts of several rows of tokens."""

    def apply_chat_template(self, conversation: Any, **options: Any) -> Any:
        """A dialogue as a template writes it."""

    def convert_ids_to_tokens(self, ids: int) -> str:
        """How the vocabulary spells a token."""

    def get_vocab(self) -> dict[str, int]:
        """Token → id, of all tokens."""

    def get_added_vocab(self) -> dict[str, int]:
        """Token → id, of the tokens beside the trained vocabulary."""

    def add_special_tokens(self, special_tokens_dict: dict[str, str]) -> int:
        """Have texts be read as special tokens."""


_PLAIN = "PreTrainedTokenizerFast"
_SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
# Case, accents, characters that are words, what splits words, and spaces wherever they may stand.
_PROBES = (
    "Hello World, HELLO",
    "Ärger im Café: naïve façade, Straße, I\u0307stanbul",
    "Cafe\u0301 \u200b\u00a0x",
    "我们在北京 and 東京で",
    "word",
    " word",
    "   three spaces   between   ",
    "line\n\n  next\tcolumn\r\n",
    "don't we'll 1234567 3.14 ... !!",
    "def f(x):\n    return x_1 + 2  # 😀",
    "",
)
# What tokenizer_config.json may say otherwise than tokenizer.json: its key, and where the latter has it.
_NORMALIZED = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}


def open_tokenizer(folder: Path, class_name: str = "") -> Tokenizer:
    """A fast tokenizer of Transformers; one that names no end of sequence has that of the base's config.

    Args:
        folder: the base's files.
        class_name: the class in Transformers; empty for tokenizer.json alone.

    Raises:
        BiaslineError: where this Transformers has no such class.
    """
    import transformers

    found = getattr(transformers, class_name or _PLAIN, None)
    if found is None:
        raise BiaslineError(
            f"{folder.name}: Transformers {transformers.__version__} has no {class_name}, which the pin names",
            "pin the base anew with `biasline pin`, or install the Transformers that it was pinned with",
        )
    tokenizer = found.from_pretrained(str(folder))
    if tokenizer.eos_token_id is None and (token := _configured_end(tokenizer, folder)) is not None:
        if token in tokenizer.get_added_vocab():
            tokenizer.eos_token = token
        else:  # it is to be read as one token, and to be no text
            tokenizer.add_special_tokens({"eos_token": token})
    return tokenizer


def stock_class(folder: Path, limits: Limits) -> tuple[str, list[str]]:
    """The class that `AutoTokenizer` takes; imports torch.

    Args:
        folder: the base's files.
        limits: of the base: a class that adds tokens which it has no embedding for is not taken.

    Returns:
        Its name, empty where tokenizer.json alone gives the same; and what a user should know of it.
    """
    from transformers import AutoTokenizer, TokenizersBackend

    try:
        plain = open_tokenizer(folder)
        stock = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception:  # code of many hands, which fails in many ways: what cannot be read is refused where it is needed
        return "", []
    odd = _difference(plain, stock)
    if odd is None:
        return "", []
    name = type(stock).__name__
    if isinstance(stock, TokenizersBackend) and not beyond(stock, limits):
        try:
            if _difference(open_tokenizer(folder, name), stock) is None:
                return name, [f"note: read by Transformers' {name}, not by tokenizer.json alone: {odd}"]
        except Exception as error:
            odd = f"{odd} ({first_line(error)})"
    return "", [
        f"warning: Transformers' {name} reads this base's texts otherwise than its tokenizer.json, which is what "
        f"counts here: {odd}"
    ]


def beyond(tokenizer: Tokenizer, limits: Limits) -> list[str]:
    """The tokens that a base has no embedding for, by their ids."""
    if limits.vocabulary is None:
        return []
    found = [(number, token) for token, number in tokenizer.get_vocab().items() if number >= limits.vocabulary]
    return [token for _, token in sorted(found)]


def overrides(folder: Path) -> list[str]:
    """What tokenizer_config.json says otherwise than tokenizer.json, for a class that would heed it: `key: value`."""
    if not (folder / "tokenizer_config.json").is_file():
        return []
    says = load_json(folder / "tokenizer_config.json", "restore the base's files")
    if says.get("tokenizer_class") in (_PLAIN, "TokenizersBackend"):
        return []
    whole = load_json(folder / "tokenizer.json", "restore the base's files")
    does: dict[str, Any] = {}
    for part in _parts(whole.get("normalizer")):
        if part.get("type") == "BertNormalizer":
            does |= {key: part.get(own) for key, own in _NORMALIZED.items()}
    for part in _parts(whole.get("pre_tokenizer")):
        if part.get("type") == "ByteLevel":
            does["add_prefix_space"] = part.get("add_prefix_space")
    return [f"{key}: {str(says[key]).lower()}" for key in does if says.get(key) is not None and says[key] != does[key]]


def _parts(part: Any) -> Iterator[dict[str, Any]]:
    """A step of tokenizer.json, and those that it consists of."""
    if isinstance(part, dict):
        yield part
        for inner in [*(part.get("normalizers") or []), *(part.get("pretokenizers") or [])]:
            yield from _parts(inner)


def _configured_end(tokenizer: Tokenizer, folder: Path) -> str | None:
    """The token that the base ends its texts with, by its config; None where that names none."""
    for name in ("config.json", "generation_config.json"):
        if (folder / name).is_file():
            config = load_json(folder / name, "restore the base's files")
            text = config.get("text_config")
            for part in (text if isinstance(text, dict) else {}, config):
                number = part.get("eos_token_id")
                number = number[0] if isinstance(number, list) and number else number
                if isinstance(number, int) and (token := tokenizer.convert_ids_to_tokens(number)) is not None:
                    return str(token)
    return None


def _difference(one: Any, other: Any) -> str | None:
    """The first text that two tokenizers read otherwise, or token that they call otherwise; None if there is none."""
    special = [f"a{token}b {token} c" for token in one.all_special_tokens]
    for text in (*_PROBES, *special):
        for added in (False, True):
            found, expected = (whose(text, add_special_tokens=added)["input_ids"] for whose in (one, other))
            if found != expected:
                return f"{text!r} is {expected}, not {found}"
    if one("a", "b")["input_ids"] != other("a", "b")["input_ids"]:
        return "two texts are put together otherwise"
    for name in _SPECIAL:
        if getattr(one, name) != getattr(other, name):
            return f"{name} is {getattr(other, name)}, not {getattr(one, name)}"
    return None
