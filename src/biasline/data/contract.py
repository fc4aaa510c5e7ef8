"""The contract: rules held by Pandera over an eager frame, all failures at once.

Rows that break any rule go to quarantine with every reason.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandera.polars as pa
import polars as pl

from biasline.data.dialogues import PROBLEM
from biasline.data.raw import FIXED_SPLIT, NOT_TEXT_SUFFIX
from biasline.data.rules import COMPARED, SECRETS, Rule, Terms, active_rules
from biasline.errors import BiaslineError
from biasline.kinds.learning import columns_of
from biasline.params import Quality

# An input that says there is none: "<noinput>", "No input required.", "“&lt;无输入&gt;”".
_NO_INPUT = r"(?i)^\W*(?:no[ -]?input(?: (?:is )?(?:required|needed|necessary|provided|given))?|n/?a|none|null|"
_NO_INPUT += r"not applicable|(?:无|没有|无需|不需要|暂无)(?:任何)?输入|无)\W*$"


@dataclass(frozen=True)
class Checked:
    """A frame parted by the contract.

    Attributes:
        good: the rows that keep every rule; the text columns and the metadata, without companions.
        quarantine: `row`, `reasons` (list of rule names), then the row's text as it was read, secrets blotted out.
        broken: rule → number of rows that break it; a row may break several.
        told: rule → what is wrong, for people.
    """

    good: pl.DataFrame
    quarantine: pl.DataFrame
    broken: dict[str, int]
    told: dict[str, str]

    @property
    def rows(self) -> int:
        """All rows that were checked."""
        return self.good.height + self.quarantine.height


def check_examples(
    frame: pl.DataFrame,
    kind: str,
    quality: Quality,
    labels: Sequence[str] = (),
    own: Sequence[Rule] = (),
    tenants: str = "",
) -> Checked:
    """Part a frame (see `sources.read_examples`) of a kind into good rows and quarantine.

    Args:
        frame: the rows.
        kind: the task's kind.
        quality: thresholds, and which rules are on.
        labels: the labels that are allowed; empty for any.
        own: rules of the project's own.
        tenants: a column within whose values alone rows are compared; empty: with all rows.

    Raises:
        BiaslineError: where `quality` names no rule.
    """
    terms = Terms(columns_of(kind), quality, tuple(labels), tenants)
    rules = active_rules(kind, quality, own)
    failures = _failures(frame, rules, terms)
    rounds = _earlier_rounds(frame) if terms.kind.context else frame.clear()
    if rounds.height:
        for name, failed in _failures(rounds, [rule for rule in rules if rule.rounds], terms).items():
            broken_there = frame["row"].is_in(rounds["row"].filter(failed).unique().implode())
            failures[name] = broken_there | failures[name] if name in failures else broken_there
    broken = {rule.name: int(failures[rule.name].sum()) for rule in rules if rule.name in failures}
    any_failed = pl.DataFrame(failures).select(pl.any_horizontal(pl.all())).to_series() if failures else None
    keep = [name for name in frame.columns if not name.endswith(NOT_TEXT_SUFFIX) and name != PROBLEM]
    if any_failed is None:
        good, quarantine = frame.select(keep), frame.select(keep).clear()
        reasons: list[list[str]] = []
    else:
        good, quarantine = frame.select(keep).filter(~any_failed), frame.select(keep).filter(any_failed)
        marks = pl.DataFrame(failures).filter(any_failed)
        reasons = [[name for name, failed in zip(marks.columns, row, strict=True) if failed] for row in marks.rows()]
    quarantine = quarantine.drop(FIXED_SPLIT).insert_column(1, pl.Series("reasons", reasons, dtype=pl.List(pl.String)))
    good = good.with_columns(pl.col(terms.kind.columns).fill_null(""))
    if terms.kind.looks != "text":
        good = good.with_columns(pl.col(terms.kind.answer).str.strip_chars())
    return Checked(good, _blotted(quarantine, tenants), broken, {rule.name: rule.told for rule in rules} | COMPARED)


def with_quarantined(checked: Checked, splits: Mapping[str, pl.DataFrame], more: Mapping[str, pl.DataFrame]) -> Checked:
    """The same with further rows in quarantine: reason → good rows that are good no longer; in row order."""
    quarantine, good = checked.quarantine, pl.concat(list(splits.values()))
    for reason, rows in more.items():
        marked = rows.insert_column(1, pl.Series("reasons", [[reason]] * rows.height, dtype=pl.List(pl.String)))
        quarantine = pl.concat([quarantine, marked], how="diagonal")
    broken = checked.broken | {reason: rows.height for reason, rows in more.items()}
    return replace(checked, good=good, quarantine=quarantine.sort("row"), broken=broken)


def emptied_inputs(frame: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The frame with inputs that only say that there is none made empty, and how many there were."""
    says_none = pl.col("input").fill_null("").str.replace_all("&[lg]t;", "").str.contains(_NO_INPUT)
    count = int(frame.select(says_none.sum()).item())
    return frame.with_columns(pl.when(says_none).then(pl.lit("")).otherwise("input").alias("input")), count


def refuse_too_many(checked: Checked, quality: Quality) -> None:
    """Stop the run where too many rows are broken.

    Raises:
        BiaslineError: where the rate of quarantined rows passes `quality.max_quarantine`, that of a hard rule its own
            threshold, or where no row is left.
    """
    if not checked.broken:
        return
    first = checked.quarantine.row(0, named=True)
    example = f"the first is row {first['row']}: {', '.join(first['reasons'])}"
    for name, allowed in quality.hard.items():
        rate = checked.broken.get(name, 0) / checked.rows
        if rate > allowed:
            row = checked.quarantine.filter(pl.col("reasons").list.contains(name))["row"][0]
            raise BiaslineError(
                f"{checked.broken[name]} of {checked.rows} rows ({rate:.1%}) break the hard rule {name} "
                f"({checked.told[name]}), {allowed:.1%} allowed; the first is row {row}",
                f"mend the data, or change quality.hard.{name}",
            )
    share = checked.quarantine.height / checked.rows
    if share > quality.max_quarantine or checked.good.is_empty():
        told = ", ".join(f"{name} {count}" for name, count in sorted(checked.broken.items(), key=lambda item: -item[1]))
        raise BiaslineError(
            f"{checked.quarantine.height} of {checked.rows} rows ({share:.1%}) break the contract, "
            f"{quality.max_quarantine:.1%} allowed: {told}; {example}",
            "mend the data, map its columns (source.columns), or change quality.max_quarantine",
        )


def _earlier_rounds(frame: pl.DataFrame) -> pl.DataFrame:
    """What was asked and answered before the last round of each dialogue, a round a row; `row` is the dialogue's.

    An answer that is not to be learned is part of what the next one is given, and free of the rules on outputs.
    """
    found: list[tuple[int, str, str, str | None]] = []
    dialogues = frame.select("row", "history", "output").filter(pl.col("history").fill_null("") != "")
    for row, history, output in dialogues.iter_rows():
        asked: list[str] = []
        unlearned = False
        for role, said, *weight in json.loads(history):
            if role != "assistant" or weight:
                asked.append(said)
                unlearned |= bool(weight)
                continue
            found.append((row, "\n".join(asked), "", said))
            asked, unlearned = [], False
        if unlearned:
            found.append((row, "\n".join(asked), "", output))
    schema = {"row": pl.Int64, "instruction": pl.String, "input": pl.String, "output": pl.String}
    rounds = pl.DataFrame(found, schema=schema, orient="row")
    companions = [pl.lit(False).alias(name) for name in frame.columns if name.endswith(NOT_TEXT_SUFFIX)]
    return rounds.with_columns(pl.lit("").alias("history"), *companions)


def _blotted(quarantine: pl.DataFrame, tenants: str) -> pl.DataFrame:
    """Secrets out of what is shown, whichever rule a row broke; tenants keep their names."""
    texts = [pl.col(name) for name, dtype in quarantine.schema.items() if dtype == pl.String and name != tenants]
    for name, pattern in SECRETS.items():
        before = "${before}" if "(?P<before>" in pattern else ""
        texts = [text.str.replace_all(pattern, f"{before}[{name}]") for text in texts]
    return quarantine.with_columns(texts)


def _failures(frame: pl.DataFrame, rules: list[Rule], terms: Terms) -> dict[str, pl.Series]:
    """Rule → which rows break it, for the rules that any row breaks, from one lazy Pandera validation."""
    checks = [
        pa.Check(lambda data, rule=rule: data.lazyframe.select(rule.good(terms)), name=rule.name, error=rule.told)
        for rule in rules
    ]
    columns = {name: pa.Column(pl.String, nullable=True) for name in terms.kind.columns}
    schema = pa.DataFrameSchema({"row": pa.Column(pl.Int64), **columns}, checks=checks)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            schema.validate(frame, lazy=True)
    except pa.errors.SchemaErrors as errors:
        _raise_first(terms)
        found = {}
        for error in errors.schema_errors:
            if error.check is None or error.check_output is None:
                raise BiaslineError(f"the data breaks the schema: {error}") from None
            found[str(error.check.name)] = error.check_output["check_output"].fill_null(False).not_()
        return {rule.name: found[rule.name] for rule in rules if rule.name in found}
    _raise_first(terms)
    return {}


def _raise_first(terms: Terms) -> None:
    """The first error of the project's own rules, if there is one."""
    if terms.errors:
        raise terms.errors[0]
