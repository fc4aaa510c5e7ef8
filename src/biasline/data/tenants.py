"""A task of many tenants: whose rows are whose, and that each has rows in each split."""

import unicodedata
from collections.abc import Mapping, Sequence

import polars as pl

from biasline.data.rules import Rule
from biasline.errors import BiaslineError
from biasline.layout import SPLITS
from biasline.params import Split

# Distinct prompts that a tenant must have, for one of them to be held out for the test; and a second one to choose by.
_LEAST = {"test": 2, "valid": 3}
_STAYS = 2
# Tenants that a page lists.
_LISTED = 50


def tenant_rules(column: str) -> list[Rule]:
    """The rule that each row names its tenant."""

    def good(_: object) -> pl.Expr:
        return pl.col(column).fill_null("").str.strip_chars() != ""

    return [Rule("no_tenant", f"no tenant is named ({column})", good, rounds=False, structural=True)]


def folded(name: str) -> str:
    """What two spellings of one name have in common: width, case, form and white space."""
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())


def refuse_alike(good: pl.DataFrame, column: str) -> None:
    """Two names of which nobody could say whether they are one tenant's or two's.

    Raises:
        BiaslineError: naming both, with a row of each.
    """
    first: dict[str, tuple[str, int]] = {}
    for name, row in good.group_by(column).agg(pl.col("row").min()).sort("row").iter_rows():
        known, where = first.setdefault(folded(name), (name, row))
        if known != name:
            raise BiaslineError(
                f"tenants {known!r} (row {where}) and {name!r} (row {row}) differ in case, white space or Unicode form "
                "alone",
                f"write the column {column!r} alike for one tenant, or name two apart",
            )


def with_rows_of_each(
    placed: Sequence[str], tenants: Sequence[str], keys: Sequence[str], places: Sequence[float], split: Split
) -> list[str]:
    """Splits of rows, of which each tenant has one at least, where it has prompts enough.

    A tenant of few rows may have none that the hash deals to the test, or to validation. Then the prompt goes there
    that the hash would deal there next, were the share a little larger: which one that is changes only when a row comes
    that the hash itself deals there, or nearer to it.

    Args:
        placed: the split of each row, as the hash deals it.
        tenants: of each row.
        keys: what makes two prompts the same.
        places: where the hash puts each key, 0 … 1; test rows are the lowest.
        split: the shares; 0 of a split that a file fixes.
    """
    frame = pl.DataFrame(
        {"split": placed, "tenant": tenants, "key": keys, "place": places},
        schema={"split": pl.String, "tenant": pl.String, "key": pl.String, "place": pl.Float64},
    )
    for name, share, other, others in (
        ("test", split.test, "valid", split.valid),
        ("valid", split.valid, "test", split.test),
    ):
        if not share:
            continue
        counts = pl.col("key").n_unique().over("tenant")
        lacking = ~(pl.col("split") == name).any().over("tenant") & (counts >= _LEAST[name])
        # From the training rows where one prompt at least stays, else from what the hash dealt to the other split;
        # not from a split that a file fixes.
        trained = pl.when(pl.col("split") == "train").then("key").drop_nulls().n_unique().over("tenant")
        spare = pl.when(trained >= _STAYS).then(pl.lit("train")).otherwise(pl.lit(other if others else ""))
        free = pl.when(pl.col("split") == spare).then("place")
        nearest = free == free.min().over("tenant")
        frame = frame.with_columns(split=pl.when(lacking & nearest).then(pl.lit(name)).otherwise("split"))
    return frame["split"].to_list()


def tenant_table(splits: Mapping[str, pl.DataFrame], quarantine: pl.DataFrame, column: str) -> pl.DataFrame:
    """How many rows each tenant has: `tenant`, one column per split, `quarantined`; by name.

    Rows without a tenant are in quarantine, and of none.
    """
    parts = {**{name: splits[name] for name in SPLITS}, "quarantined": quarantine}
    counted = [part.select(tenant=pl.col(column).str.strip_chars(), part=pl.lit(name)) for name, part in parts.items()]
    rows = pl.concat(counted).filter(pl.col("tenant").fill_null("") != "")
    table = rows.group_by("tenant").agg((pl.col("part") == name).sum().alias(name) for name in parts)
    return table.sort("tenant").with_columns(pl.col(list(parts)).cast(pl.Int64))


def rows_of_others(splits: Mapping[str, pl.DataFrame], prompt: Sequence[str], column: str) -> int:
    """How many rows have the prompt of a row of another tenant."""
    rows = pl.concat([part.select(*prompt, column) for part in splits.values()])
    return int(rows.select((pl.col(column).n_unique().over(list(prompt)) > 1).sum()).item())


def tenant_notes(table: pl.DataFrame, min_rows: int) -> list[str]:
    """What should be said of tenants with few rows."""
    notes = [f"{table.height:,} tenants, of {_span(table['train'])} training rows each"]
    without = table.filter(pl.col("train") == 0)
    few = table.filter((pl.col("train") > 0) & (pl.col("train") < min_rows))
    untested = table.filter((pl.col("train") > 0) & (pl.col("test") == 0))
    for found, what in (
        (without, "have no training row"),
        (few, f"have fewer than tenants.min_rows ({min_rows}) training rows: the shared delta serves them"),
        (untested, "have no test row: nothing can be said of how well they are served"),
    ):
        if found.height:
            notes.append(f"{found.height:,} tenants {what}: {_named(found['tenant'])}")
    return notes


def tenant_section(table: pl.DataFrame) -> list[str]:
    """Lines of quality.md: rows of each tenant, those with the fewest to train on first."""
    lines = [
        "",
        "## Tenants",
        "",
        "| tenant | training | validation | test | quarantined |",
        "|---|---:|---:|---:|---:|",
    ]
    shown = table.sort(["train", "tenant"]).head(_LISTED)
    for name, *counts in shown.iter_rows():
        told = name.replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {_short(told)} | {' | '.join(f'{count:,}' for count in counts)} |")
    if table.height > _LISTED:
        lines += ["", f"And {table.height - _LISTED:,} more: `clean/tenants.parquet` has all."]
    return [*lines, ""]


def _short(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:57]}…"


def _span(counts: pl.Series) -> str:
    low, middle, high = (counts.quantile(share, "nearest") or 0 for share in (0, 0.5, 1))
    return f"{low:,.0f} to {high:,.0f} (median {middle:,.0f})"


def _named(names: pl.Series, most: int = 5) -> str:
    shown = ", ".join(repr(_short(name)) for name in names.head(most))
    return shown + (f" and {len(names) - most:,} more" if len(names) > most else "")
