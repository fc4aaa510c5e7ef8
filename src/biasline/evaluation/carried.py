"""A fleet's evaluation where some tenants are answered by other deltas than those that it was made with."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from biasline.errors import BiaslineError
from biasline.evaluation.compared import Compared
from biasline.evaluation.measure import Measured, has_row_values, measure, predictions_of, row_metric, row_values
from biasline.evaluation.outs import write_outs
from biasline.evaluation.references import Decisive
from biasline.evaluation.tenants import CARRIED
from biasline.jsonfile import load_json
from biasline.layout import TaskPlace
from biasline.params import Task

# What of the tuned model has no prefix.
_OF_TUNED = ("probability",)
_NOT_KNOWN = "not known of the tenants whose deltas are another version's"


def rows_of(task: Task, predictions: pl.DataFrame, tenants: Collection[str]) -> pl.Series:
    """Which test rows are of some tenants."""
    return predictions[task.tenants.column].is_in(list(tenants))


def with_answers(predictions: pl.DataFrame, given: pl.DataFrame, where: pl.Series) -> pl.DataFrame:
    """Predictions in which some rows have what another model gave them.

    Args:
        predictions: test rows with answers.
        given: the same rows in the same order, with those of the other model.
        where: whether a row is of those.

    Raises:
        BiaslineError: where the other model's answers lack something that these have.
    """
    names = [name for name in predictions.columns if name.split("_")[0] == "tuned" or name in _OF_TUNED]
    if lacking := [name for name in names if name not in given.columns]:
        raise BiaslineError(
            f"answers given again have no {lacking[0]}", "evaluate and register both versions anew, by the same metrics"
        )
    return predictions.with_columns(
        pl.when(where).then(given[name].cast(predictions[name].dtype)).otherwise(predictions[name]).alias(name)
        for name in names
    )


def measured_anew(
    task: Task, metrics: Mapping[str, Any], predictions: pl.DataFrame, references: Sequence[str] = ()
) -> Measured:
    """The tuned model's metrics, as metrics.json has them, of other answers.

    What answers alone do not tell is left out, with that reason.

    Args:
        task: its parameters.
        metrics: of the answers before.
        predictions: test rows with the answers now.
        references: the right answers as they are compared, where that is not as the rows have them.
    """
    names = [name for name in metrics["tuned"] if not name.endswith(("_low", "_high"))]
    declared = [task.declared(name, names) for name in names]
    known = [one for one in declared if one.row_values is None or has_row_values(predictions, one)]
    given = predictions_of(predictions, "tuned", task.kind, metrics.get("positive_label", ""))
    if references:
        given = dataclasses.replace(given, reference=np.array(references, dtype=object))
    found = measure(known, given)
    left_out = {one.name: _NOT_KNOWN for one in declared if one not in known}
    return Measured(found.values, found.signatures, {**metrics.get("left_out", {}), **found.left_out, **left_out})


def write_carried(
    task: Task,
    place: TaskPlace,
    predictions: pl.DataFrame,
    carried: Collection[str],
    references: Sequence[str] = (),
) -> None:
    """Write an evaluation anew.

    Args:
        task: the parameters that it was made with.
        place: where it lies, and the reports that it is told from; what of the model was replaced is there already.
        predictions: its test rows, those of the tenants as their deltas answer them.
        carried: tenants whose deltas are another version's.
        references: see `measured_anew`.

    Raises:
        BiaslineError: where it was made by code that kept less.
    """
    metrics, way_out = load_json(place.metrics, ""), "evaluate and register the candidate anew"
    table = place.by_tenant / "table.parquet"
    if not table.is_file():
        raise BiaslineError(f"{place.task}: evaluated before tenants had a table", way_out)
    tuned = measured_anew(task, metrics, predictions, references)
    found = Compared(
        metrics["base"],
        tuned.values,
        predictions,
        pl.read_csv(place.bias_change),
        metrics.get("probe", {}),
        metrics.get("signatures", {}),
        tuned.left_out,
        positive=metrics.get("positive_label", ""),
    )
    counted = row_metric(predictions, task.declared(metrics["metric"], metrics["tuned"]), task.kind)
    values = row_values(predictions, "tuned", counted, task.kind).astype(np.float64)
    tenants = _anew(pl.read_parquet(table), predictions[task.tenants.column], values, carried)
    write_outs(task, place, found, Decisive(metrics["metric"], metrics["metric_reason"]), tenants)


def _anew(table: pl.DataFrame, owners: pl.Series, values: np.ndarray, carried: Collection[str]) -> pl.DataFrame:
    """The table of tenants with the means of those whose deltas are others now; these are beside nothing."""
    rows = pl.DataFrame({"tenant": owners, "anew": values}).filter(~pl.col("anew").is_nan())
    means = rows.filter(pl.col("tenant").is_in(list(carried))).group_by("tenant").agg(pl.col("anew").mean())
    changed = pl.col("tenant").is_in(list(carried))
    nothing = [pl.when(changed).then(None).otherwise(pl.col(name)).alias(name) for name in ("gain", "low", "high", "p")]
    return (
        table.join(means, on="tenant", how="left", maintain_order="left")
        .with_columns(
            pl.coalesce("anew", "tuned").alias("tuned"),
            pl.when(changed).then(pl.lit("own")).otherwise(pl.col("serves")).alias("serves"),
            *(
                pl.when(changed).then(pl.lit(CARRIED)).otherwise(pl.col(name)).alias(name)
                for name in ("verdict", "why")
            ),
            *nothing,
        )
        .drop("anew")
    )
