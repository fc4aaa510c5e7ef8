"""The table of metrics: by kind of task, each by its name. An unknown name is an error."""

from collections.abc import Collection

from biasline.errors import BiaslineError
from biasline.metrics import labels, scores, texts
from biasline.metrics.metric import Metric

# Kind of task → name → metric, in the order of metrics.json.
_TABLE: dict[str, dict[str, Metric]] = {}
# Columns of predictions, beside those of metrics: a project's own metrics have a column each.
_COLUMNS = ("exact", "nll", "hits", "error")


def declare(metric: Metric) -> Metric:
    """Add a metric to the table.

    Raises:
        ValueError: where one of its kinds has a metric of that name.
    """
    if taken := [kind for kind in metric.kinds if metric.name in _TABLE.get(kind, {})]:
        raise ValueError(f"metric {metric.name}: a {taken[0]} has one of that name")
    for kind in metric.kinds:
        _TABLE.setdefault(kind, {})[metric.name] = metric
    return metric


for _metric in (*texts.METRICS, *labels.METRICS, *scores.METRICS):
    declare(_metric)


def metrics_of(kind: str) -> tuple[Metric, ...]:
    """All metrics of a kind of task, in the order of metrics.json; the first is its main one."""
    return tuple(_TABLE.get(kind, {}).values())


def main_metric(kind: str) -> Metric:
    """The metric that models of a kind are judged by unless parameters name another."""
    return metrics_of(kind)[0]


def deciding(kind: str) -> tuple[str, ...]:
    """Names of the metrics that `gates.metric` may name, a project's own ones aside."""
    return tuple(metric.name for metric in metrics_of(kind) if metric.decides)


def is_metric(kind: str, name: str) -> bool:
    """Whether the table has a metric of that name."""
    return name in _TABLE.get(kind, {})


def find_metric(kind: str, name: str) -> Metric:
    """A metric by its name.

    Raises:
        BiaslineError: for a name that the table does not have, with those that it has.
    """
    if not is_metric(kind, name):
        known = ", ".join(metric.name for metric in metrics_of(kind)) or "none"
        raise BiaslineError(f"{name!r} is no metric of kind {kind}; there are: {known}", "mend its name, or declare it")
    return _TABLE[kind][name]


def label_of(kind: str, name: str) -> str:
    """What tables call a metric; a project's own has its name, with spaces."""
    return _TABLE[kind][name].label if is_metric(kind, name) else name.replace("_", " ")


def reserved(kind: str) -> Collection[str]:
    """Names that a project's own metric cannot have."""
    return {*_TABLE.get(kind, {}), *_COLUMNS}


def described() -> str:
    """The metrics that may decide, kind by kind, for the description of `gates.metric`."""
    told = []
    for kind in _TABLE:
        chosen = [metric for metric in metrics_of(kind) if metric.decides]
        names = ", ".join(f"{metric.name} ({metric.note})" if metric.note else metric.name for metric in chosen)
        told.append(f"{kind}: {names}")
    return "; ".join(told)
