"""Metrics for Prometheus: every stage of an event's way, in a registry of our own.

Labels are few and closed (no ids of users or keys); their children are bound once, because looking one up costs
three times as much as counting. Each part of the program counts through its own small object.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
    start_http_server,
)
from prometheus_client.metrics_core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_TYPE
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from hub import __version__

LATENCY_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
TEXT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_BUCKET_NAMES: Final = (*map(str, LATENCY_BUCKETS), "+Inf")
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


class _Children:
    """The children of one metric by their label values, each bound at its first use."""

    def __init__(self, metric: Counter | Gauge | Histogram) -> None:
        self._metric = metric
        self._bound: dict[tuple[str, ...], Any] = {}

    def __call__(self, *values: str) -> Any:
        child = self._bound.get(values)
        if child is None:
            child = self._metric.labels(*values) if values else self._metric
            self._bound[values] = child
        return child


class IntakeCounters:
    """What came in, by way ("http" or "redis")."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._accepted = _Children(
            Counter("clarion_events_accepted", "Events that are on disk.", ["source"], registry=registry)
        )
        self._refused = _Children(
            Counter(
                "clarion_events_refused", "Events that were refused.", ["source", "code"], registry=registry
            )
        )

    def accepted(self, source: str, count: int) -> None:
        """`count` events are on disk."""
        self._accepted(_way(source)).inc(count)

    def refused(self, source: str, code: str) -> None:
        """An event was refused with a problem code."""
        self._refused(_way(source), code).inc()


class GeneratorCounters:
    """What became of events, by partition."""

    def __init__(self, registry: CollectorRegistry) -> None:
        names = ["partition"]
        self._generated = _Children(
            Counter("clarion_notifications_generated", "Notifications planned.", names, registry=registry)
        )
        self._published = _Children(
            Counter("clarion_publications", "Publications on live channels.", names, registry=registry)
        )
        self._rejected = _Children(
            Counter("clarion_events_rejected", "Events that could not be planned.", names, registry=registry)
        )
        self._behind = _Children(
            Gauge("clarion_queue_lag_seconds", "Age of the events planned last.", names, registry=registry)
        )

    def generated(self, partition: str, notifications: int, seconds_behind: float) -> None:
        """A batch was committed."""
        self._generated(partition).inc(notifications)
        self._behind(partition).set(seconds_behind)

    def published(self, partition: str, publications: int) -> None:
        """A batch was announced."""
        self._published(partition).inc(publications)

    def rejected(self, partition: str) -> None:
        """An event was set aside."""
        self._rejected(partition).inc()


class LiveCounters:
    """Connections and what goes to them; implements `hub.live.metrics.LiveMetrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, help_text: str, *labels: str) -> _Children:
            return _Children(Counter(name, help_text, labels, registry=registry))

        self._connections = _Children(
            Gauge("clarion_connections", "Live connections.", ["transport"], registry=registry)
        )
        self._refused = counter("clarion_live_refused", "Joins and calls that were refused.", "code")
        self._received = counter("clarion_live_received", "Publications from the bus.", "kind")
        self._delivered = counter("clarion_live_delivered", "Frames handed to connections.", "kind")
        self._repaired = counter("clarion_live_repaired", "Missed publications found in history.", "kind")
        self._gapped = counter("clarion_live_gaps", "Connections told to refetch.", "kind")
        self._reached = counter("clarion_reached", "Reports of reached notifications.")
        self._dropped = counter("clarion_reports_dropped", "Reports that could not be stored.")
        self._latency = _Children(
            Histogram(
                "clarion_accept_to_socket_seconds",
                "From the event's acceptance to the socket.",
                ["kind"],
                buckets=LATENCY_BUCKETS,
                registry=registry,
            )
        )

    def connections(self, transport: str, change: int) -> None:
        """A connection came (+1) or went (-1)."""
        self._connections(transport).inc(change)

    def refused(self, code: str) -> None:
        """A join or a call was refused."""
        self._refused(code).inc()

    def received(self, kind: str, publications: int) -> None:
        """Publications came over the bus."""
        self._received(kind).inc(publications)

    def delivered(self, kind: str, frames: int) -> None:
        """Frames were handed to connections."""
        self._delivered(kind).inc(frames)

    def latency(self, kind: str, microseconds: int) -> None:
        """One way from acceptance to socket. Accepted by Redis' clock, written by ours: another machine's may be ahead."""
        self._latency(kind).observe(max(0, microseconds) / 1_000_000)

    def repaired(self, kind: str, publications: int) -> None:
        """History gave back what was missed."""
        self._repaired(kind).inc(publications)

    def gapped(self, kind: str, wires: int) -> None:
        """Connections were told to refetch."""
        self._gapped(kind).inc(wires)

    def reached(self, reports: int) -> None:
        """Reports were stored."""
        self._reached().inc(reports)

    def reports_dropped(self, reports: int) -> None:
        """Reports were lost."""
        self._dropped().inc(reports)


class SenderCounters:
    """What senders try and what comes of it; implements `workers.deliver.DeliveryMetrics`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        names = ["channel", "provider", "outcome"]
        self._attempts = _Children(
            Counter("clarion_attempts", "Tries of deliveries by providers.", names, registry=registry)
        )
        self._seconds = _Children(
            Histogram(
                "clarion_attempt_seconds",
                "Duration of tries.",
                ["channel", "provider"],
                buckets=LATENCY_BUCKETS,
                registry=registry,
            )
        )
        self._ended = _Children(
            Counter("clarion_deliveries", "Moves of deliveries.", ["channel", "state"], registry=registry)
        )
        self._behind = _Children(
            Gauge(
                "clarion_delivery_lag_seconds",
                "How late the delivery that moved last was.",
                ["channel"],
                registry=registry,
            )
        )

    def attempted(self, channel: str, provider: str, outcome: str, seconds: float) -> None:
        """A provider was asked."""
        self._attempts(channel, provider, outcome).inc()
        self._seconds(channel, provider).observe(seconds)

    def ended(self, channel: str, state: str, seconds_behind: float) -> None:
        """A delivery moved on."""
        self._ended(channel, state).inc()
        self._behind(channel).set(seconds_behind)


class HttpCounters(Collector):
    """Requests by route template, never by address. Counted in plain numbers: locks and labels wait for a scrape."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests: dict[tuple[str, str, int], int] = {}
        self._seconds: dict[str, float] = {}
        self._buckets: dict[str, list[int]] = {}
        registry.register(self)

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """A request was answered."""
        key = (method if method in METHODS else "other", route, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        self._seconds[route] = self._seconds.get(route, 0.0) + seconds
        buckets = self._buckets.get(route)
        if buckets is None:
            buckets = self._buckets[route] = [0] * (len(LATENCY_BUCKETS) + 1)
        buckets[bisect_left(LATENCY_BUCKETS, seconds)] += 1

    def collect(self) -> Iterable[Metric]:
        """As it is now."""
        requests = CounterMetricFamily(
            "clarion_http_requests", "Requests.", labels=["method", "route", "status"]
        )
        for (method, route, status), count in list(self._requests.items()):
            requests.add_metric([method, route, str(status)], count)
        seconds = HistogramMetricFamily(
            "clarion_http_request_seconds", "Duration of requests.", labels=["route"]
        )
        for route, buckets in list(self._buckets.items()):
            sums = zip(_BUCKET_NAMES, accumulate(buckets), strict=True)
            seconds.add_metric([route], list(sums), self._seconds[route])
        return requests, seconds


class Metrics:
    """All metrics of one process."""

    def __init__(self, role: str = "node", process_name: str | None = None) -> None:
        self._process_name = process_name
        self._deployment = CollectorRegistry()  # what every node would say alike: no process' own
        self.registry = CollectorRegistry()
        Gauge("clarion_build_info", "This process.", ["version", "role"], registry=self.registry).labels(
            __version__, role
        ).set(1)
        self.intake = IntakeCounters(self.registry)
        self.generator = GeneratorCounters(self.registry)
        self.live = LiveCounters(self.registry)
        self.http = HttpCounters(self.registry)
        self.senders = SenderCounters(self.registry)
        self._waiting = _Children(
            Gauge("clarion_queue_waiting", "Slices that wait.", ["partition"], registry=self._deployment)
        )

    def waiting(self, slices: Mapping[str, int]) -> None:
        """The queue's length by partition, as seen now."""
        for partition, count in slices.items():
            self._waiting(partition).set(count)

    def exposition(
        self, accept: str = "", peers: Sequence[str] = (), *, alone: bool = False
    ) -> tuple[bytes, str]:
        """The text for a scrape and its media type, as the scraper wants it.

        `peers`: the texts of other processes that are shown with this one (`clarion up` has one address for all).
        `alone`: only what is this process' own, for a node that shows it as a peer's.
        """
        own = _Named(self.registry, self._process_name)
        shown = own if alone else _Together([own, self._deployment], peers)
        if "application/openmetrics-text" in accept:
            text: bytes = generate_openmetrics(shown)  # type: ignore[no-untyped-call]
            return text, OPENMETRICS_TYPE
        return generate_latest(shown), TEXT_TYPE

    def serve(self, host: str, port: int) -> Callable[[], None]:
        """Answer scrapes from a thread of its own, for roles without an API; returns what ends it."""
        server, thread = start_http_server(port, host, _Named(self.registry, self._process_name))

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return stop


class _Named(Collector):
    """The families of one process, with its name as a label of every sample.

    A label and no sum: a process that ends takes its counters along, and a sum that falls looks like a restart of all.
    """

    def __init__(self, registry: CollectorRegistry, process_name: str | None) -> None:
        self._registry = registry
        self._label = {"process": process_name} if process_name else {}

    def collect(self) -> Iterable[Metric]:
        """As they are now."""
        for family in self._registry.collect():
            if self._label:
                family.samples = [
                    sample._replace(labels={**sample.labels, **self._label}) for sample in family.samples
                ]
            yield family


class _Together(Collector):
    """Families of several processes as one scrape: those with one name are joined."""

    def __init__(self, own: Sequence[Collector | CollectorRegistry], peers: Sequence[str]) -> None:
        self._own = own
        self._peers = peers

    def collect(self) -> Iterable[Metric]:
        """Own families first; a peer's sample with labels that are there already is left out."""
        families = {family.name: family for one in self._own for family in one.collect()}
        for text in self._peers:
            for family in text_string_to_metric_families(text):
                own = families.setdefault(family.name, family)
                if own is not family:
                    known = {(sample.name, *sorted(sample.labels.items())) for sample in own.samples}
                    own.samples += [
                        sample
                        for sample in family.samples
                        if (sample.name, *sorted(sample.labels.items())) not in known
                    ]
        return families.values()


def _way(source: str) -> str:
    """A source without the key or name in it, which are many."""
    return source.partition(":")[0]
