"""What a bias does in its Transformer, told by the structure of the model and never by a substring of its name."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from biasline.bitfit.pretrained import Config

ROLES = (
    "query",
    "key",
    "value",
    "attention_output",
    "mlp_in",
    "mlp_out",
    "norm",
    "embedding_norm",
    "pooler",
    "lm_head",
    "head",
    "other",
)
NORM_ROLES = ("norm", "embedding_norm")
# Scale vectors are no biases, so no part of `all`, but they can be asked for by name. Those of the norms are there.
NORM_SCALE = "norm_scale"
# Those of linear layers' outputs, which are put in: the role of the layer → the role of its scale.
OUTPUT_SCALES = {role: f"{role}_scale" for role in ("query", "key", "value", "attention_output", "mlp_in", "mlp_out")}


def is_scale(role: str) -> bool:
    """Whether a role is that of a scale vector, which multiplies and is one where nothing was trained."""
    return role.endswith("_scale")


@dataclass(frozen=True)
class Cut:
    """A regular part of a vector: `repeats` runs of `width` entries, `stride` apart, from `start` on."""

    start: int
    width: int
    stride: int
    repeats: int

    @property
    def count(self) -> int:
        """Number of entries."""
        return self.width * self.repeats

    def fits(self, length: int) -> bool:
        """Whether it lies in a vector of so many entries, none of them twice."""
        if min(self.start, self.width - 1, self.repeats - 1) < 0 or (self.repeats > 1 and self.stride < self.width):
            return False
        return self.start + (self.repeats - 1) * self.stride + self.width <= length

    def leading(self, entries: int, head_width: int) -> "Cut":
        """The first `entries` of each head; a run holds one head, or, where there is one run, all heads in a row."""
        if self.repeats == 1:
            return Cut(self.start, entries, head_width, self.width // head_width)
        return Cut(self.start, entries, self.stride, self.repeats)


@dataclass(frozen=True)
class Heads:
    """Sizes of an attention: query heads, key/value heads (fewer where queries are grouped), entries per head."""

    queries: int
    keys: int

    def width(self, fused: int) -> int:
        """Entries per head, from the length of a fused query/key/value bias."""
        return fused // (self.queries + 2 * self.keys)


@dataclass(frozen=True)
class Fused:
    """One bias that holds the query, key and value biases of a layer.

    `interleaved`: per group of heads its queries, its key, its value (BLOOM, GPT-NeoX: one query to a group; Falcon:
    as many as share a key); `concatenated`: all queries, then all keys, then all values (GPT-2, ModernBERT, Phi-3).
    """

    layout: Literal["interleaved", "concatenated"]

    def cuts(self, length: int, heads: Heads) -> dict[str, Cut]:
        """Role → its part of a fused bias of `length` entries."""
        width = heads.width(length)
        if self.layout == "concatenated":
            queries, keys = heads.queries * width, heads.keys * width
            return {
                "query": Cut(0, queries, queries, 1),
                "key": Cut(queries, keys, keys, 1),
                "value": Cut(queries + keys, keys, keys, 1),
            }
        queries = heads.queries // heads.keys * width
        group = queries + 2 * width
        return {
            "query": Cut(0, queries, group, heads.keys),
            "key": Cut(queries, width, group, heads.keys),
            "value": Cut(queries + width, width, group, heads.keys),
        }


Row = tuple[str, str | Fused]
# (config, entries per head) → how many leading entries of each head's key bias can change the output.
Keys = Callable[[Config, int], int]


def keys_never(config: Config, width: int) -> int:
    """Keys act by content alone (absolute positions, ALiBi, T5's relative bias).

    There a key bias adds the same amount to every score of a query, which softmax ignores.
    """
    return 0


def keys_always(config: Config, width: int) -> int:
    """Rotary positions, a norm on the keys, or disentangled attention: a key bias acts as any other."""
    return width


def keys_rotated(config: Config, width: int) -> int:
    """Rotary positions on the leading part of each head: only there a key bias acts."""
    return int(width * (getattr(config, "rope_parameters", None) or {}).get("partial_rotary_factor", 1.0))


def same_heads(config: Config) -> int:
    """Key/value heads as nearly every config names them."""
    return int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)


@dataclass(frozen=True)
class Architecture:
    """Roles of one family of models: one row of the table in `architectures`.

    Args:
        rows: (pattern, role or `Fused`); a pattern is matched against the end of a module's path, at a dot. In it `#`
            stands for the layer's number, `*` for any one part of the path, `**` for any number of parts.
        keys: which key biases can act.
        key_heads: number of key/value heads.
        flags: switches of the config that give bias-free layers a bias.
        layout: a model type of the same computation that has biases where this one has none.
    """

    rows: tuple[Row, ...]
    keys: Keys
    key_heads: Callable[[Config], int] = same_heads
    flags: tuple[str, ...] = ()
    layout: str = ""

    @cached_property
    def _compiled(self) -> tuple[tuple[re.Pattern[str], str | Fused], ...]:
        return tuple((_pattern(text), role) for text, role in self.rows + _HEADS)

    def role_of(self, path: str) -> tuple[str | Fused, int | None]:
        """Role and layer of the bias in the module at `path`; `other` where no row matches."""
        for pattern, role in self._compiled:
            if match := pattern.fullmatch(path):
                layer = match.groupdict().get("layer")
                return role, int(layer) if layer is not None else None
        return "other", None


# Heads that stock Transformers put on top of any base; matched last.
_HEADS: tuple[Row, ...] = (
    ("score", "head"),
    ("classifier", "head"),
    ("classifier.dense", "head"),
    ("classifier.out_proj", "head"),
    ("classification_head.dense", "head"),
    ("classification_head.out_proj", "head"),
    ("pre_classifier", "head"),
    ("qa_outputs", "head"),
    ("pooler.dense", "pooler"),
    ("lm_head", "lm_head"),
)

# A model that is not in the table: every bias is found, its role is `other`, and no key bias is left out.
UNKNOWN = Architecture((), keys_always)


def _pattern(text: str) -> re.Pattern[str]:
    body = re.escape(text).replace(r"\*\*", ".*").replace(r"\*", "[^.]+").replace(r"\#", r"(?P<layer>\d+)")
    return re.compile(rf"(?:.*\.)?{body}")
