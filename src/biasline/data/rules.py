"""Rules: named demands on a row, as Polars expressions; the built-in ones, and a project's own.

Thresholds come from params; rules are switched off and on by name.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FunctionType

import polars as pl

from biasline.custom import own_functions
from biasline.data.dialogues import NOT_LEARNED, PROBLEM, TOOL_TURNS
from biasline.data.raw import FIXED_SPLIT, NOT_TEXT_SUFFIX
from biasline.errors import BiaslineError, first_line, shown
from biasline.kinds.columns import Columns
from biasline.kinds.learning import find_learning
from biasline.params import Quality

_PLACEHOLDERS: tuple[str, ...] = ("n/a", "na", "none", "null", "nil", "nan", "tbd", "todo", "-", "--", "---", "…")
_PLACEHOLDERS += ("...", "?", "无", "暂无", "暂无数据", "略", "<nooutput>", "<no output>", "[no output]", "nooutput")
# What marks the beginning of another record inside an output.
_MERGED = r"(?m)^\s*(?:Human|Assistant)\s*[::]|###\s*(?:Instruction|Input|Response)|\"(?:instruction|output)\"\s*:"
_CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u{fffe}\u{ffff}]"
# The replacement character, or UTF-8 bytes that were read as Latin-1 or Windows-1252.
_MOJIBAKE = r"\u{fffd}|(?:[\u{e0}-\u{ef}][\u{80}-\u{bf}\u{2013}-\u{2122}\u{152}-\u{178}]{2}){2}|(?:Ã[\u{80}-\u{bf}]){1}"
# What asks for something about an address itself, whose page nobody needs to see.
_ABOUT_LINKS = r"(?i)\bdomain|\bblock\b|\bnormali[sz]e\b|\bshorten\b|\bAPI\b|\bcode\b|\bcreate a (?:link|bookmark)"
_ABOUT_LINKS += r"|\blink to\b|\b(?:type|kind) of\b|\bclassify\b|\bcategori[sz]e\b|\btrust|\brelated URL"
_ABOUT_LINKS += r"|域|屏蔽|规范化|缩短|代码|创建.*链接|书签|类型|分类|可信"
_URL_ONLY = r"^\s*(?:https?://|www\.)\S+\s*$"
# An input that stands for a picture, a sound or a file which nobody can see: "[image]", "<photo attached>", "![](…)".
_MEDIUM = r"(?:image|picture|photo|photograph|video|audio|file|attachment|图片|图像|照片|视频|音频|附件)"
_ATTACHMENT = rf"(?i)^\s*[\[<(][^\])>]{{0,40}}{_MEDIUM}[^\])>]{{0,60}}[\])>]\W*$"
_ATTACHMENT += r"|^\s*!\[[^\]]*\]\s*[(\[]\S*[)\]]\s*(?:\[\d+\]:\s*\S+\s*)?$"
# A prompt that speaks of another language, of words or of code; an output that is code.
_OTHER_TONGUE = r"[英译語语文码]|代码|程序|函数|编程|单词|字母|缩写|[A-Za-z]"
_CODE = r"(?m)```|[{};]|=\s|</|^\s*(?:def|class|import|SELECT|select|print)\b"
_WORD = r"[A-Za-z]{2,}"
# What asks for an answer that may well be the input as it stands: sorting, choosing, looking for mistakes.
_MAY_STAY = (
    r"(?i)\b(?:sort|order|arrange|sequence|correct|mistakes?|errors?|typos?|whether|select|choose|find|identify)\b"
)
_MAY_STAY += r"|排序|排列|顺序|正确|错误|是否|判断|选择|找出|识别|确保|检查"
# Where a Latin word ends: in running Chinese there is no space around a number or an address.
_EDGE = r"(?-u:\b)"
_EMAIL = rf"(?i){_EDGE}[a-z0-9._%+-]+@[a-z0-9-]+(?:\.[a-z0-9-]+)*\.[a-z]{{2,}}{_EDGE}"
_PHONE = rf"(?:\+\d{{1,3}}[ -]?)?\(?{_EDGE}\d{{3}}\)?[ .-]\d{{3}}[ .-]\d{{4}}{_EDGE}"
_PHONE += rf"|{_EDGE}(?:86[ -]?)?1[3-9]\d[ -]?\d{{4}}[ -]?\d{{4}}{_EDGE}"
# Visa, Mastercard, American Express, Discover, UnionPay; no digits of a decimal number: 6.4031242374328485.
_CARD = r"(?P<before>^|[^0-9A-Za-z.,_]|(?:^|[^0-9])[.,])(?:"
_CARD += r"(?:4\d{3}|5[1-5]\d{2}|2[2-7]\d{2}|6(?:011|[25]\d{2}))[ -]?\d{4}[ -]?\d{4}[ -]?\d{4}"
_CARD += rf"|3[47]\d{{2}}[ -]?\d{{6}}[ -]?\d{{5}}){_EDGE}"
_KEY = rf"{_EDGE}(?:AKIA[0-9A-Z]{{16}}{_EDGE}|sk-[A-Za-z0-9_-]{{20,}}|gh[pousr]_[A-Za-z0-9]{{30,}}|github_pat_\w{{30,}}"
_KEY += r"|glpat-[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{30,}|AIza[A-Za-z0-9_-]{35}|xox[abpr]-[A-Za-z0-9-]{10,}"
_KEY += r"|eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{5,})|-----BEGIN [A-Z ]*PRIVATE KEY-----"
# Rules about what must not be told on; their matches are blotted out wherever a broken row is shown.
SECRETS = {"email": _EMAIL, "phone": _PHONE, "card": _CARD, "key": _KEY}


@dataclass(frozen=True)
class Terms:
    """What the rules are about.

    Attributes:
        kind: its columns.
        quality: thresholds.
        labels: those that are allowed; empty for any.
        tenants: a column within whose values alone rows are compared; empty: with all rows.
        errors: what a project's own rules raised: Polars and Pandera would tell it in their own ways.
    """

    kind: Columns
    quality: Quality
    labels: tuple[str, ...] = ()
    tenants: str = ""
    errors: list[BiaslineError] = field(default_factory=list, compare=False)


Good = Callable[[Terms], pl.Expr]


@dataclass(frozen=True)
class Rule:
    """One named demand on a row.

    Attributes:
        name: stands in the quarantine and in `quality.off`.
        told: what is wrong with a row that breaks it, for people.
        good: an expression that is true for good rows (null counts as broken).
        columns: those of ours that it is about; it holds for each kind that has them.
        on: whether it holds unless switched off; one that does not is switched on by `quality.on`.
        rounds: whether it holds for each round of a dialogue by itself, as if that were a row.
        structural: whether it cannot be switched off, since no later step can read a row that breaks it.
    """

    name: str
    told: str
    good: Good
    columns: tuple[str, ...] = ()
    on: bool = True
    rounds: bool = True
    structural: bool = False


def _text(name: str) -> pl.Expr:
    return pl.col(name).fill_null("")


def _bare(name: str) -> pl.Expr:
    """Lower case, without white space and full stops around."""
    return _text(name).str.to_lowercase().str.strip_chars().str.strip_chars(".。!")


def _squeezed(name: str) -> pl.Expr:
    return _text(name).str.replace_all(r"\s+", " ").str.strip_chars()


def _filled(name: str) -> Good:
    def good(terms: Terms) -> pl.Expr:
        filled = _text(name).str.strip_chars().str.len_chars() > 0
        # A broken dialogue has a rule of its own.
        return filled | pl.col("history").is_null() if terms.kind.context else filled

    return good


def _free_of(pattern: str) -> Good:
    return lambda terms: pl.all_horizontal(~_text(name).str.contains(pattern) for name in terms.kind.columns)


def _all_text(terms: Terms) -> pl.Expr:
    # Of labels and scores the reader marks what is neither text nor a plain value: a number names a class all the same.
    return ~pl.any_horizontal(pl.col(name + NOT_TEXT_SUFFIX) for name in terms.kind.columns)


def _without(problem: str) -> Good:
    return lambda _: pl.col(PROBLEM).ne_missing(problem)


def _short_enough(terms: Terms) -> pl.Expr:
    length = pl.sum_horizontal(_text(name).str.len_chars() for name in terms.kind.given)
    return length <= terms.quality.max_prompt_chars


def _long_enough(terms: Terms) -> pl.Expr:
    length = _text("output").str.strip_chars().str.len_chars()
    return (length >= terms.quality.min_output_chars) | (length == 0)


def _no_copy(terms: Terms) -> pl.Expr:
    # Short ones are left alone: "Repeat: yes" is a fair row. So are sorted lists that were sorted already, and texts
    # that were laid out anew.
    differs = pl.all_horizontal(
        _text("output").str.strip_chars() != _text(name).str.strip_chars() for name in terms.kind.prompt
    )
    return (_squeezed("output").str.len_chars() < 10) | _text("instruction").str.contains(_MAY_STAY) | differs


def _no_loop(_: Terms) -> pl.Expr:
    """A tenth of the words at least are distinct in an output of 20 or more, a twelfth of 80 or more Han characters.

    Code, numbers and notes of music may repeat as they like.
    """

    def varied(piece: str, from_count: int, times: int) -> pl.Expr:
        pieces = _text("output").str.extract_all(piece)
        return (pieces.list.len() < from_count) | (pieces.list.n_unique() * times >= pieces.list.len())

    return _text("output").str.contains(_CODE) | (varied(r"\p{L}{2,}", 20, 10) & varied(r"\p{Han}", 80, 12))


def _translated(terms: Terms) -> pl.Expr:
    """In a Chinese task the prompt is Chinese, and so is the output, unless another language or code is in play."""
    if terms.quality.language != "zh":
        return pl.lit(True)
    prompt = pl.concat_str([_text(name) for name in terms.kind.prompt], separator="\n")
    prompted = prompt.str.contains(r"\p{Han}") | (prompt.str.count_matches(_WORD) < 4)
    if "output" not in terms.kind.columns:
        return prompted
    output = _text("output")
    foreign = ~output.str.contains(r"\p{Han}") & (output.str.count_matches(_WORD) >= 8)
    return prompted & (~foreign | output.str.contains(_CODE) | prompt.str.contains(_OTHER_TONGUE))


def agreed(answer: str, says: Good, fold: bool = True) -> Good:
    """No other row has the same text under another answer.

    A given test set stays whole: where it agrees with itself, the rows of other files that contradict it go.

    Args:
        answer: the column.
        says: whether a row's answer is one that says anything about the others.
        fold: whether texts that differ in case and white space alone are the same.
    """

    def good(terms: Terms) -> pl.Expr:
        folded = [_squeezed(name).str.to_lowercase() if fold else _text(name) for name in terms.kind.prompt]
        folded += [pl.col(terms.tenants)] if terms.tenants else []
        rank = pl.col(FIXED_SPLIT).replace_strict({"test": 0, "valid": 1}, default=2, return_dtype=pl.Int8)
        leads = rank == rank.min().over(folded)
        said = pl.when(says(terms)).then(_text(answer).str.strip_chars())
        every = said.drop_nulls().n_unique().over(folded) <= 1
        leading = pl.when(leads).then(said).drop_nulls().n_unique().over(folded) == 1
        return every | said.is_null() | (leads & leading) | (_squeezed("text") == "")

    return good


def _known_label(terms: Terms) -> pl.Expr:
    label = _text("label").str.strip_chars()
    return label.is_in(terms.labels) | (label == "") if terms.labels else pl.lit(True)


def _says_label(terms: Terms) -> pl.Expr:
    return _known_label(terms) & (_text("label").str.strip_chars() != "")


def _no_placeholder(_: Terms) -> pl.Expr:
    return ~(_bare("output").is_in(_PLACEHOLDERS) | _text("output").str.strip_chars().is_in(_PLACEHOLDERS))


def _a_number(terms: Terms) -> pl.Expr:
    score = _text("score").str.strip_chars()
    number = score.cast(pl.Float64, strict=False).cast(pl.Float32)  # as it is trained on
    return number.is_finite().fill_null(False) | (score == "")


RULES: tuple[Rule, ...] = (
    Rule("not_text", "a field is not text", _all_text, rounds=False),
    Rule(
        "broken_dialogue",
        "its turns are not user and assistant in turn",
        lambda _: pl.col("history").is_not_null() | pl.col(PROBLEM).is_not_null(),
        ("history",),
        rounds=False,
    ),
    Rule(
        TOOL_TURNS,
        "its turns call tools or come from tools, which no template here writes",
        _without(TOOL_TURNS),
        ("history",),
        rounds=False,
    ),
    Rule(
        NOT_LEARNED,
        "no answer of it is to be learned (weight 0)",
        _without(NOT_LEARNED),
        ("history",),
        rounds=False,
    ),
    Rule("empty_instruction", "no instruction", _filled("instruction"), ("instruction",)),
    Rule("empty_output", "no output", _filled("output"), ("output",)),
    Rule("empty_text", "no text", _filled("text"), ("text",)),
    Rule("empty_label", "no label", _filled("label"), ("label",)),
    Rule("unknown_label", "the label is none of source.labels", _known_label, ("label",)),
    Rule("empty_score", "no score", _filled("score"), ("score",)),
    Rule("no_number", "the score is no finite number", _a_number, ("score",)),
    Rule("placeholder_output", "the output is a placeholder", _no_placeholder, ("output",)),
    Rule("short_output", "the output is shorter than min_output_chars", _long_enough, ("output",)),
    Rule(
        "long_output",
        "the output is longer than max_output_chars",
        lambda terms: _text("output").str.len_chars() <= terms.quality.max_output_chars,
        ("output",),
    ),
    Rule("long_prompt", "what the model is given is longer than max_prompt_chars", _short_enough, rounds=False),
    Rule(
        "merged_record",
        "another record begins inside the output",
        lambda _: ~_text("output").str.contains(_MERGED),
        ("output",),
    ),
    Rule("control_characters", "control characters", _free_of(_CONTROL)),
    Rule("mojibake", "wrongly decoded characters", _free_of(_MOJIBAKE)),
    Rule(
        "url_only_input",
        "the input is a bare link",
        lambda _: ~_text("input").str.contains(_URL_ONLY) | _text("instruction").str.contains(_ABOUT_LINKS),
        ("instruction", "input"),
    ),
    Rule(
        "missing_attachment",
        "the input stands for a picture or file that is not there",
        lambda _: ~_text("input").str.contains(_ATTACHMENT),
        ("input",),
    ),
    Rule("untranslated", "not in the task's language (quality.language)", _translated),
    Rule("copied_output", "the output repeats the prompt", _no_copy, ("instruction", "output")),
    Rule("repeated_loop", "the output goes round in a loop", _no_loop, ("output",)),
    Rule("card", "a payment card's number", _free_of(_CARD)),
    Rule("key", "a secret key or token", _free_of(_KEY)),
    Rule("email", "an e-mail address", _free_of(_EMAIL), on=False),
    Rule("phone", "a phone number", _free_of(_PHONE), on=False),
    Rule(
        "conflicting_duplicate", "the same text has another label elsewhere", agreed("label", _says_label), ("label",)
    ),
    Rule(
        "duplicate",
        "an exact copy of an earlier row",
        lambda terms: pl.struct(*terms.kind.columns, *filter(None, [terms.tenants])).is_first_distinct(),
        rounds=False,
    ),
)
# Found by comparing rows after the split (see `nearness`), and switched off by name as the rules above.
NEAR_DUPLICATE, LEAK = "near_duplicate", "leak"
COMPARED = {
    NEAR_DUPLICATE: "nearly the same as an earlier row of its split",
    LEAK: "the prompt is nearly that of a held-out row",
}


def active_rules(kind: str, quality: Quality, own: Sequence[Rule] = ()) -> list[Rule]:
    """The rules that hold for a kind of example, but for those of `COMPARED`.

    Raises:
        BiaslineError: where `quality.off`, `quality.on` or `quality.hard` names none of them.
    """
    learning = find_learning(kind)
    columns = {*learning.columns.columns}
    rules = [rule for rule in (*RULES, *learning.rules(), *own) if columns.issuperset(rule.columns)]
    names = [*(rule.name for rule in rules), *COMPARED]
    for key, asked in (("off", quality.off), ("on", quality.on), ("hard", quality.hard)):
        if unknown := [name for name in asked if name not in names]:
            raise BiaslineError(f"quality.{key}: {unknown[0]!r} is no rule; expected some of {', '.join(names)}")
    if needed := [rule.name for rule in rules if rule.structural and rule.name in quality.off]:
        raise BiaslineError(
            f"quality.off: {needed[0]} cannot be switched off: no later step can read a row that breaks it",
            "take it out there, and mend the rows or leave them in quarantine (quality.max_quarantine)",
        )
    return [rule for rule in rules if (rule.on or rule.name in quality.on) and rule.name not in quality.off]


def own_rules(path: Path) -> list[Rule]:
    """A project's own rules: the public functions of a Python file.

    Each takes the frame and returns a Boolean series (or an expression) that is true for good rows; its name is the
    rule's, the first line of its docstring says what is wrong with a row that breaks it.

    Raises:
        BiaslineError: where the file is missing, does not run, or holds no function.
    """
    rules = [
        Rule(name, (function.__doc__ or name).strip().splitlines()[0], _own(path, function), rounds=False)
        for name, function in own_functions(path, "quality.checks").items()
    ]
    if clash := {rule.name for rule in rules} & {*COMPARED, *(rule.name for rule in RULES)}:
        raise BiaslineError(f"{shown(path)}: {min(clash)} is a rule already", "call the function something else")
    return rules


def _own(path: Path, function: FunctionType) -> Good:
    def told(rows: pl.DataFrame) -> pl.Series:
        try:
            found = function(rows)
            found = rows.select(found).to_series() if isinstance(found, pl.Expr) else found
        except Exception as error:  # whatever the user's code raises
            raise BiaslineError(
                f"{shown(path)}: {function.__name__}: {type(error).__name__}: {first_line(error)}", "mend the function"
            ) from None
        if not isinstance(found, pl.Series) or found.dtype != pl.Boolean or len(found) != rows.height:
            raise BiaslineError(
                f"{shown(path)}: {function.__name__}: a Boolean series of {rows.height} rows was expected, got "
                f"{getattr(found, 'dtype', type(found).__name__)}",
                "return one truth value per row",
            )
        return found

    def good(terms: Terms) -> pl.Expr:
        def checked(row: pl.Series) -> pl.Series:
            try:
                return told(row.struct.unnest())
            except BiaslineError as error:
                terms.errors.append(error)
                return pl.repeat(True, len(row), eager=True)

        return pl.struct(pl.all()).map_batches(checked, return_dtype=pl.Boolean)

    return good
