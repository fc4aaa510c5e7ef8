"""A fleet's test rows tenant by tenant: the base, the delta that all share, and what serves each."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from scipy.stats import false_discovery_control

from biasline.evaluation.cells import cell
from biasline.evaluation.intervals import format_interval
from biasline.evaluation.statistics import paired_interval, sign_flip_p

# Of the tenants that are called better or worse, so many may be called so by chance.
FALSE_DISCOVERIES = 0.1
# The verdict on a tenant whose delta is that of an earlier version.
CARRIED = "carried over"
_SHOWN = 20
_BINS = 10
_BAR = 40
_WHO = ("base", "shared", "tuned")
_CALLED = ("base", "shared", "what serves")


@dataclass(frozen=True)
class Values:
    """A metric's value of each test row, (rows,) each; NaN for rows that have none.

    Attributes:
        base: of the untuned base.
        shared: of the shared delta.
        tuned: of the delta that serves the row's tenant.
        sign: -1 where less is better.
    """

    base: np.ndarray
    shared: np.ndarray
    tuned: np.ndarray
    sign: float = 1.0


def tenant_table(owners: Sequence[str], values: Values, trained: pl.DataFrame) -> pl.DataFrame:
    """Each tenant's test rows in numbers.

    Args:
        owners: the tenant of each test row.
        values: of the rows.
        trained: a row for each tenant, with `tenant`, `train`, `serves` and `why`.

    Returns:
        a row for each tenant, in their order: its rows, what serves it, means of the three models, what the one that
        serves is better by than the shared one (`gain`, with the ends of its interval), and a verdict, `better`,
        `worse` or `undecided`, of those that have a delta of their own and a test row.
    """
    rows = pl.DataFrame({"tenant": list(owners), **{who: getattr(values, who).astype(np.float64) for who in _WHO}})
    rows = rows.filter(~pl.any_horizontal(pl.col(who).is_nan() for who in _WHO))
    found, judged = [], []
    parts = {name: part for (name,), part in rows.group_by("tenant", maintain_order=True)}
    for told in trained.select("tenant", "train", "serves", "why").iter_rows(named=True):
        part = parts.get(told["tenant"])
        row: dict[str, Any] = {**told, "rows": 0 if part is None else part.height, "verdict": ""}
        if part is not None:
            row |= {who: float(part[who].to_numpy().mean()) for who in _WHO}
            tuned, shared = part["tuned"].to_numpy(), part["shared"].to_numpy()
            if told["serves"] == "own":
                better, other = (tuned, shared) if values.sign > 0 else (shared, tuned)
                row |= dict(zip(("gain", "low", "high"), paired_interval(better, other), strict=True))
                row["p"] = sign_flip_p(tuned - shared)
                judged.append(row)
        found.append(row)
    for row, verdict in zip(judged, called([row["gain"] for row in judged], [row["p"] for row in judged]), strict=True):
        row["verdict"] = verdict
    return pl.DataFrame(found, schema=_SCHEMA, orient="row")


def called(gains: Sequence[float], p_values: Sequence[float]) -> list[str]:
    """What tenants are called whose gains were tested: `better`, `worse` or `undecided`.

    Of those that are called better or worse, a share of `FALSE_DISCOVERIES` may be so by chance (Benjamini and
    Hochberg, 1995).
    """
    adjusted = false_discovery_control(p_values) if len(p_values) else []
    return [
        "undecided" if p > FALSE_DISCOVERIES else "better" if gain > 0 else "worse"
        for gain, p in zip(gains, adjusted, strict=True)
    ]


_SCHEMA: dict[str, Any] = {
    "tenant": pl.String,
    "train": pl.Int64,
    "rows": pl.Int64,
    "serves": pl.String,
    "why": pl.String,
    **{name: pl.Float64 for name in (*_WHO, "gain", "low", "high", "p")},
    "verdict": pl.String,
}


def tenant_numbers(table: pl.DataFrame) -> dict[str, Any]:
    """What the table comes to, for metrics.json; means are over tenants, each of which counts the same."""
    tested = table.filter(pl.col("rows") > 0)
    verdicts = {name: int((table["verdict"] == name).sum()) for name in ("better", "worse", "undecided")}
    return {
        "count": table.height,
        "tested": tested.height,
        "own": int((table["serves"] == "own").sum()),
        **verdicts,
        **({"carried": carried} if (carried := int((table["verdict"] == CARRIED).sum())) else {}),
        "false_discovery_rate": FALSE_DISCOVERIES,
        "macro": {who: round(float(tested[who].to_numpy().mean()), 6) for who in _WHO if tested.height},
    }


def means_told(numbers: dict[str, Any]) -> str:
    """The means over tenants, as a part of a sentence."""
    macro = numbers["macro"]
    told = ", ".join(f"{what} {macro[who]:.3f}" for who, what in zip(_WHO, _CALLED, strict=True) if who in macro)
    return told or "not measured"


def tenant_lines(numbers: dict[str, Any]) -> list[str]:
    """What the card says of the tenants; `numbers` as metrics.json has them."""
    macro = means_told(numbers)
    others = ", the shared one serves the others" if numbers["own"] < numbers["count"] else ""
    told = (
        f"{numbers['own']:,} of {numbers['count']:,} tenants have a delta of their own{others}. "
        f"{numbers['label']}, mean over {numbers['tested']:,} tenants: {macro}. Beside the shared delta the own one is "
        f"better for {numbers['better']:,}, worse for {numbers['worse']:,}, undecided for {numbers['undecided']:,} "
        f"(false discovery rate {numbers['false_discovery_rate']:g}); all of them: `tenants/page.md`."
    )
    if carried := numbers.get("carried"):
        told += (
            f" {carried:,} have the delta of an earlier version, since these rows showed them to be worse off without: "
            "the means are the better for that choice."
        )
    return ["", "## Tenants", "", told]


def tenants_page(table: pl.DataFrame, numbers: dict[str, Any], label: str) -> str:
    """tenants.md: means, how many are better or worse, a histogram, those that gain and lose most.

    Args:
        table: see `tenant_table`.
        numbers: see `tenant_numbers`.
        label: of the metric.
    """
    tested, macro = table.filter(pl.col("rows") > 0), numbers["macro"]
    lines = ["# Tenants", "", f"{label}, on {tested['rows'].sum():,} test rows of {tested.height:,} tenants.", ""]
    lines += ["| | base | shared | what serves |", "|---|---:|---:|---:|"]
    weights = tested["rows"].to_numpy()
    if tested.height:
        over_rows = {who: float(np.average(tested[who].to_numpy(), weights=weights)) for who in _WHO}
        for name, means in (("mean over tenants", macro), ("mean over rows", over_rows)):
            lines.append(f"| {name} | " + " | ".join(f"{means[who]:.3f}" for who in _WHO) + " |")
    untested = table.filter(pl.col("rows") == 0)
    lines += [
        "",
        f"{numbers['own']:,} of {numbers['count']:,} tenants have a delta of their own. Beside the shared one it is "
        f"better for {numbers['better']:,}, worse for {numbers['worse']:,}, undecided for {numbers['undecided']:,} "
        f"(sign-flip tests; false discovery rate {FALSE_DISCOVERIES:g}).",
    ]
    if untested.height:
        named = ", ".join(cell(name) for name in untested["tenant"].head(_SHOWN))
        more = f" and {untested.height - _SHOWN} more" * (untested.height > _SHOWN)
        lines += ["", f"{untested.height:,} tenants have no test row and are in no mean: {named}{more}."]
    if (kept := table.filter(pl.col("verdict") == CARRIED)).height:
        lines += [
            "",
            f"{kept.height:,} tenants have the delta of an earlier version, since these rows showed them to be ",
        ]
        lines[-1] += f"worse off without: {', '.join(map(cell, kept['tenant']))}."
    own = tested.filter((pl.col("serves") == "own") & pl.col("gain").is_not_null()).sort(["gain", "tenant"])
    if own.height:
        lines += ["", "## Gains over the shared delta", ""]
        if own.height > 2 * _SHOWN:
            lines += _histogram(own["gain"].to_numpy())
            lines += ["", "## Largest gains", "", *_rows_told(own.reverse().head(_SHOWN))]
            lines += ["", "## Smallest gains and losses", "", *_rows_told(own.head(_SHOWN))]
        else:
            lines += _rows_told(own.reverse())
        lines += [
            "",
            "In brackets: 95 % intervals of each tenant alone. Verdicts allow for how many tenants are looked at.",
        ]
    if (shared := table.filter(pl.col("serves") == "shared")).height:
        named = "; ".join(f"{cell(row['tenant'])}: {row['why']}" for row in shared.head(_SHOWN).iter_rows(named=True))
        more = f"; and {shared.height - _SHOWN} more" * (shared.height > _SHOWN)
        lines += ["", "## Served by the shared delta", "", f"{named}{more}."]
    return "\n".join([*lines, ""])


def _histogram(gains: np.ndarray) -> list[str]:
    counts, edges = np.histogram(gains.round(9), _BINS)  # those that differ by rounding alone have no bins between
    lines = ["| gain | tenants | |", "|---|---:|---|"]
    for count, low, high in zip(counts.tolist(), edges[:-1], edges[1:], strict=True):
        lines.append(f"| {low:+.3f} … {high:+.3f} | {count} | {'█' * round(_BAR * count / counts.max())} |")
    return lines


def _rows_told(rows: pl.DataFrame) -> list[str]:
    lines = [
        "| tenant | training rows | test rows | base | shared | own | gain | |",
        "|---|---:|---:|---:|---:|---:|---|---|",
    ]
    for row in rows.iter_rows(named=True):
        means = " | ".join(f"{row[who]:.3f}" for who in _WHO)
        gain = f"{row['gain']:+.3f}"
        if math.isfinite(row["low"]):  # of one row there is none
            gain += format_interval(row["low"], row["high"], "+.3f")
        lines.append(
            f"| {cell(row['tenant'])} | {row['train']} | {row['rows']} | {means} | {gain} | {row['verdict']} |"
        )
    return lines
