"""Figures for Prometheus."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from biasline.serving.engine.decoding import DecodingLane
from biasline.serving.engine.passes import PassLane

if TYPE_CHECKING:
    from biasline.serving.server.follower import Follower

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Figures:
    """What is counted of requests, and what models and engines say when they are asked.

    Models are told apart by task, and tenants are not: there may be thousands.

    Args:
        follower: of the registry, with what it serves.
    """

    def __init__(self, follower: "Follower") -> None:
        self.registry = known = CollectorRegistry()
        self.requests = Counter("biasline_requests", "Requests.", ("model", "route", "status"), registry=known)
        self.rows = Counter("biasline_rows", "Rows that were answered.", ("model",), registry=known)
        self.tokens = Counter("biasline_tokens", "Tokens.", ("model", "of"), registry=known)
        self.seconds = Histogram(
            "biasline_request_seconds", "Time of a request.", ("model", "route"), buckets=_SECONDS, registry=known
        )
        self.first = Histogram(
            "biasline_first_token_seconds", "Time to the first token.", ("model",), buckets=_SECONDS, registry=known
        )
        self.shadow = Counter(
            "biasline_shadow", "Rows that a shadow was asked as well.", ("model", "said"), registry=known
        )
        self.under_way = Gauge("biasline_requests_under_way", "Requests under way.", registry=known)
        self.registry.register(_Told(follower))


class _Told(Collector):
    """What models and engines say."""

    def __init__(self, follower: "Follower") -> None:
        self._follower = follower

    def collect(self) -> Iterator[Metric]:
        """Of each model its version, of each base its queue and passes, of the registry when it answered."""
        follower = self._follower
        info = GaugeMetricFamily(
            "biasline_model", "A version that is served.", labels=("task", "alias", "version", "fingerprint", "base")
        )
        for task, alias, served in follower.served:
            info.add_metric([task, alias, served.version, served.fingerprint, served.held.package.pin.name], 1)
        yield info
        odd = GaugeMetricFamily("biasline_model_problem", "A version that is not served.", labels=("task", "alias"))
        for task, alias in follower.problems:
            odd.add_metric([task, alias], 1)
        yield odd
        yield GaugeMetricFamily(
            "biasline_registry_heard_timestamp_seconds", "When the registry answered last.", value=follower.heard
        )
        waiting = GaugeMetricFamily("biasline_waiting_rows", "Rows that wait or are under way.", labels=("base", "of"))
        passes = CounterMetricFamily("biasline_passes", "Forward passes.", labels=("base", "of"))
        rows = CounterMetricFamily("biasline_pass_rows", "Rows of forward passes.", labels=("base", "of"))
        slots = GaugeMetricFamily("biasline_deltas", "Deltas in memory.", labels=("base",))
        for base in follower.bases:
            held = 0
            for kind, of in ((PassLane, "labels"), (DecodingLane, "texts")):
                lanes = [lane for lane in base.engine.lanes if isinstance(lane, kind)]
                names = [base.pin.name, of]
                waiting.add_metric(names, sum(lane.load for lane in lanes))
                passes.add_metric(names, sum(lane.passes for lane in lanes))
                rows.add_metric(names, sum(lane.rows for lane in lanes))
                held += sum(len(lane.bank.filled) for lane in lanes)
            slots.add_metric([base.pin.name], held)
        yield from (waiting, passes, rows, slots)
