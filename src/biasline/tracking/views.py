"""How a task's experiment opens in MLflow's UI: its table's columns, and the charts that compare its runs.

MLflow opens an experiment of its own accord without params and metrics, and keeps no columns in the address. What it
does keep, for everyone, is a shared view: a tag of the experiment, which an address names by its key and the page's
menu "Views" by its name. The tag's content is the UI's own; MLflow documents none of it, so a test looks at the page.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from biasline.metrics.metric import Metric
from biasline.tracking.store import upsert

if TYPE_CHECKING:
    from mlflow import MlflowClient

_KEY = "biasline"
_TAG = f"mlflow.sharedViewState.{_KEY}"
_NOTE = "mlflow.note.content"
# The UI's ids of the columns that stay on screen while the table is scrolled.
_NAME, _CREATED = "attributes.`Run Name`", "runDateAndNestInfo"
_PARAMS = ("method", "part", "learning_rate", "trainable")
_LOSSES = ("train.loss", "valid.loss")


def table_path(experiment: str) -> str:
    """Path below the server's address of the table, by the experiment's id."""
    # Without the workflow a new visitor lands among the pages for traces and prompts.
    return f"/#/experiments/{experiment}/runs?viewStateShareKey={_KEY}&workflowType=machine_learning"


def chart_path(experiment: str) -> str:
    """Path below the server's address of the charts, by the experiment's id."""
    return f"{table_path(experiment)}&compareRunsMode=CHART"


def share_view_of(client: "MlflowClient", experiment: str, metric: Metric) -> None:
    """Give a task's experiment the view that suits the metric which its models are judged by."""
    decisive, ends = f"tuned.{metric.name}", (f"tuned.{end}" for end in metric.ends)
    metrics = (decisive, "valid.best_loss", "model.bytes", "train.seconds", *ends)
    charts, ascending = (decisive, "model.bytes"), not metric.higher_is_better
    share_view(client, experiment, _PARAMS, metrics, order_by=decisive, ascending=ascending, charts=charts)


def share_view(
    client: "MlflowClient",
    experiment: str,
    params: Sequence[str],
    metrics: Sequence[str],
    *,
    order_by: str,
    charts: Sequence[str],
    ascending: bool = False,
) -> None:
    """Write the view `Methods` on an experiment, and a description that links it where there is none.

    Does nothing where the experiment has both. Someone's own views, under other names, are left alone.

    Args:
        client: client of the tracking store.
        experiment: its id.
        params: the table's columns of parameters, in this order.
        metrics: its columns of metrics, likewise.
        order_by: the metric that the best run comes first by.
        charts: metrics with one value per run, compared as bars below the losses.
        ascending: whether the best run has the lowest value.
    """
    found = client.get_experiment(experiment)
    view = {
        "name": "Methods",
        "createdAt": found.creation_time,
        "state": _dump(_state(params, metrics, order_by, charts, ascending)),
    }
    tags = {_TAG: _dump(view)}
    if _NOTE not in found.tags:
        links = f"[table](.{table_path(experiment)}) · [charts](.{chart_path(experiment)})"
        tags[_NOTE] = f"Runs of the task `{found.name}`, the best by `{order_by}` first: {links}"
    for name, value in tags.items():
        if found.tags.get(name) != value:
            upsert(client.set_experiment_tag, experiment, name, value)


def _state(
    params: Sequence[str], metrics: Sequence[str], order_by: str, charts: Sequence[str], ascending: bool
) -> dict[str, Any]:
    """What the UI keeps of a page: columns, order, charts."""
    named = {f"params.`{name}`": name for name in params} | {f"metrics.`{name}`": name for name in metrics}
    shown, rest = "methods", "rest"
    return {
        "selectedColumns": [*named],
        "columnOrder": [_NAME, _CREATED, *named],
        # At its own width a column cuts the longer names.
        "columnWidths": {_NAME: 220} | {column: max(90, 30 + 8 * len(name)) for column, name in named.items()},
        "orderByKey": f"metrics.`{order_by}`",
        "orderByAsc": ascending,
        "compareRunCharts": [
            *(_line(name, shown) for name in _LOSSES),
            *(_card("BAR", name, shown) for name in charts),
        ],
        "compareRunSections": [
            {"uuid": shown, "name": "Methods", "display": True, "isReordered": True},
            # The UI draws every other metric into the section of this name: dozens, folded until someone asks.
            {"uuid": rest, "name": "Model metrics", "display": False, "isReordered": False},
        ],
    }


def _line(metric: str, section: str) -> dict[str, Any]:
    return {
        **_card("LINE", metric, section),
        "selectedMetricKeys": [metric],
        "xAxisKey": "step",
        "yAxisKey": "metric",
        "scaleType": "linear",
        "xAxisScaleType": "linear",
        "range": {},
        "useGlobalXaxisKey": True,
        "useGlobalLineSmoothing": True,
    }


def _card(kind: str, metric: str, section: str) -> dict[str, Any]:
    return {
        "uuid": metric,
        "type": kind,
        "metricKey": metric,
        "displayName": metric,
        "metricSectionId": section,
    }


def _dump(value: Any) -> str:
    # MLflow refuses tags over 5,000 characters.
    return json.dumps(value, separators=(",", ":"))
