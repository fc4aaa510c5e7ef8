"""The contract: what an example must be, as named rules held by Pandera over an eager frame, all failures at once.

A rule is a Polars expression that is true where the row is good. Rows that break any rule go to quarantine with every
reason. Thresholds come from params; rules can be switched off by name.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pandera.polars as pa
import polars as pl

from biasline.data.kinds import KINDS, Kind
from biasline.data.sources import NOT_TEXT_SUFFIX
from biasline.errors import BiaslineError
from biasline.params import Quality

_PLACEHOLDERS = ("n/a", "na", "none", "null", "nil", "nan", "tbd", "todo", "-", "--", "---", "…", "...", "?")
_PLACEHOLDERS += ("无", "暂无", "暂无数据", "略", "<nooutput>", "<no output>", "[no output]", "nooutput")
# What marks the beginning of another record inside an output.
_MERGED = r"(?m)^\s*(?:Human|Assistant)\s*[::]|###\s*(?:Instruction|Input|Response)|\"(?:instruction|output)\"\s*:"
_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u{fffe}\u{ffff}]"
# The replacement character, or UTF-8 bytes that were read as Latin-1 or Windows-1252.
_MOJIBAKE = r"\u{fffd}|(?:[\u{e0}-\u{ef}][\u{80}-\u{bf}\u{2013}-\u{2122}\u{152}-\u{178}]{2}){2}|(?:Ã[\u{80}-\u{bf}]){1}"
_URL_ONLY = r"^\s*(?:https?://|www\.)\S+\s*$"


@dataclass(frozen=True)
class Rule:
    """One named demand on a row.

    Attributes:
        name: stands in the quarantine and in `quality.off`.
        told: what is wrong with a row that breaks it, for people.
        good: from the kind of example and the thresholds to an expression that is true for good rows (null counts as
            broken).
        kinds: names of the kinds that it holds for.
    """

    name: str
    told: str
    good: Callable[[Kind, Quality], pl.Expr]
    kinds: tuple[str, ...] = tuple(KINDS)


def _text(name: str) -> pl.Expr:
    return pl.col(name).fill_null("")


def _bare(name: str) -> pl.Expr:
    """Lower case, without white space and full stops around."""
    return _text(name).str.to_lowercase().str.strip_chars().str.strip_chars(".。!")


def _squeezed(name: str) -> pl.Expr:
    return _text(name).str.replace_all(r"\s+", " ").str.strip_chars()


def _filled(name: str) -> pl.Expr:
    return _text(name).str.strip_chars().str.len_chars() > 0


def _length(kind: Kind) -> pl.Expr:
    return pl.sum_horizontal(_text(name).str.len_chars() for name in kind.prompt)


def _free_of(pattern: str) -> Callable[[Kind, Quality], pl.Expr]:
    return lambda kind, _: pl.all_horizontal(~_text(name).str.contains(pattern) for name in kind.columns)


def _all_text(kind: Kind, _: Quality) -> pl.Expr:
    # A label may be a number: it names a class all the same.
    columns = kind.columns if kind.answer == "output" else kind.prompt
    return ~pl.any_horizontal(pl.col(name + NOT_TEXT_SUFFIX) for name in columns)


def _no_copy(kind: Kind, _: Quality) -> pl.Expr:
    # Short ones are left alone: "Repeat: yes" is a fair row.
    differs = pl.all_horizontal(_squeezed("output") != _squeezed(name) for name in kind.prompt)
    return (_squeezed("output").str.len_chars() < 10) | differs


def _no_loop(_: Kind, __: Quality) -> pl.Expr:
    """A tenth of the words at least are distinct in an output of 20 or more, an eighth of 40 or more Han characters."""

    def varied(piece: str, from_count: int, times: int) -> pl.Expr:
        pieces = _text("output").str.extract_all(piece)
        return (pieces.list.len() < from_count) | (pieces.list.n_unique() * times >= pieces.list.len())

    return varied(r"[\p{L}\p{N}]+", 20, 10) & varied(r"\p{Han}", 40, 8)


def _long_enough(_: Kind, quality: Quality) -> pl.Expr:
    length = _text("output").str.strip_chars().str.len_chars()
    return (length >= quality.min_output_chars) | (length == 0)


_INSTRUCTION, _CLASSIFICATION = ("instruction",), ("classification",)

RULES: tuple[Rule, ...] = (
    Rule("not_text", "a field is not text", _all_text),
    Rule("empty_instruction", "no instruction", lambda *_: _filled("instruction"), _INSTRUCTION),
    Rule("empty_output", "no output", lambda *_: _filled("output"), _INSTRUCTION),
    Rule("empty_text", "no text", lambda *_: _filled("text"), _CLASSIFICATION),
    Rule("empty_label", "no label", lambda *_: _filled("label"), _CLASSIFICATION),
    Rule(
        "placeholder_output",
        "the output is a placeholder",
        lambda *_: ~(_bare("output").is_in(_PLACEHOLDERS) | _text("output").str.strip_chars().is_in(_PLACEHOLDERS)),
        _INSTRUCTION,
    ),
    Rule("short_output", "the output is shorter than min_output_chars", _long_enough, _INSTRUCTION),
    Rule(
        "long_output",
        "the output is longer than max_output_chars",
        lambda _, quality: _text("output").str.len_chars() <= quality.max_output_chars,
        _INSTRUCTION,
    ),
    Rule(
        "long_prompt",
        "what the model is given is longer than max_prompt_chars",
        lambda kind, quality: _length(kind) <= quality.max_prompt_chars,
    ),
    Rule(
        "merged_record",
        "another record begins inside the output",
        lambda *_: ~_text("output").str.contains(_MERGED),
        _INSTRUCTION,
    ),
    Rule("control_characters", "control characters", _free_of(_CONTROL)),
    Rule("mojibake", "wrongly decoded characters", _free_of(_MOJIBAKE)),
    Rule(
        "url_only_input", "the input is a bare link", lambda *_: ~_text("input").str.contains(_URL_ONLY), _INSTRUCTION
    ),
    Rule("copied_output", "the output repeats the prompt", _no_copy, _INSTRUCTION),
    Rule("repeated_loop", "the output goes round in a loop", _no_loop, _INSTRUCTION),
    Rule("duplicate", "an exact copy of an earlier row", lambda kind, _: pl.struct(kind.columns).is_first_distinct()),
)


@dataclass(frozen=True)
class Checked:
    """A frame parted by the contract.

    Attributes:
        good: the rows that keep every rule; the text columns and the metadata, without companions.
        quarantine: `row`, `reasons` (list of rule names), then the row's text as it was read.
        broken: rule → number of rows that break it; a row may break several.
    """

    good: pl.DataFrame
    quarantine: pl.DataFrame
    broken: dict[str, int]


def check_examples(frame: pl.DataFrame, kind: str, quality: Quality) -> Checked:
    """Part a frame (see `sources.read_examples`) of a kind into good rows and quarantine.

    Errors: `BiaslineError` where `quality.off` names no rule, or the rate of broken rows passes
    `quality.max_quarantine`.
    """
    names = [rule.name for rule in RULES if kind in rule.kinds]
    if unknown := [name for name in quality.off if name not in names]:
        raise BiaslineError(f"quality.off: {unknown[0]!r} is no rule; expected some of {', '.join(names)}")
    failures = _failures(
        frame, [rule for rule in RULES if rule.name in {*names} - {*quality.off}], KINDS[kind], quality
    )

    reasons: dict[int, list[str]] = {}
    for name, index in failures:
        reasons.setdefault(index, []).append(name)
    bad = sorted(reasons)
    keep = [name for name in frame.columns if not name.endswith(NOT_TEXT_SUFFIX)]
    listed = pl.Series("reasons", [sorted(reasons[index], key=names.index) for index in bad], dtype=pl.List(pl.String))
    quarantine = frame.select(keep)[bad].insert_column(1, listed)
    is_bad = pl.Series([index in reasons for index in range(frame.height)])
    good = frame.select(keep).filter(~is_bad).with_columns(pl.col(KINDS[kind].columns).fill_null(""))
    if kind == "classification":
        good = good.with_columns(pl.col("label").str.strip_chars())
    broken = {name: sum(1 for failed, _ in failures if failed == name) for name in names}
    broken = {name: count for name, count in broken.items() if count}

    share = quarantine.height / frame.height
    if share > quality.max_quarantine or good.is_empty():
        told = ", ".join(f"{name} {count}" for name, count in sorted(broken.items(), key=lambda item: -item[1]))
        first = quarantine.row(0, named=True)
        raise BiaslineError(
            f"{quarantine.height} of {frame.height} rows ({share:.1%}) break the contract, "
            f"{quality.max_quarantine:.1%} allowed: {told}; the first is row {first['row']}: "
            f"{', '.join(first['reasons'])}",
            "mend the data, map its columns (source.columns), or change quality.max_quarantine",
        )
    return Checked(good, quarantine, broken)


def _failures(frame: pl.DataFrame, rules: list[Rule], kind: Kind, quality: Quality) -> list[tuple[str, int]]:
    """(rule, index) of every failure, from one lazy Pandera validation of the eager frame."""
    checks = [
        pa.Check(
            lambda data, rule=rule: data.lazyframe.select(rule.good(kind, quality)), name=rule.name, error=rule.told
        )
        for rule in rules
    ]
    columns = {name: pa.Column(pl.String, nullable=True) for name in kind.columns}
    schema = pa.DataFrameSchema({"row": pa.Column(pl.Int64), **columns}, checks=checks)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            schema.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as errors:
        found = []
        for error in errors.schema_errors:
            if error.check is None or error.check_output is None:
                raise BiaslineError(f"the data breaks the schema: {error}") from None
            passed = error.check_output["check_output"].fill_null(False)
            found += [(str(error.check.name), index) for index in passed.not_().arg_true().to_list()]
        return found
    return []
