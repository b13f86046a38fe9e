"""exchanges and outcomes → **metrics**: the page that Prometheus scrapes.

Everything is counted on the event loop, so nothing needs the lock that each instrument
of prometheus-client takes: five histograms and two counters a request cost 1.7 µs
instead of 6.7. That package writes the page. One registry an application.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from service.contract import ModelKey, Timing
from service.problems import PROBLEM_TYPES

# 250 µs (a health check, a 28x28 PNG) to 10 s (the default timeout), about 2x apart.
SECONDS = (
    *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
# The padded sizes of a GPU, and one more. Unless told otherwise, a CPU stays in the
# first four, and on the event loop (tiny images) in the first six.
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)

# Code → status of what is the service's doing and not its client's.
ALERTED = {"ok": 200} | {
    code: int(kind.status)
    for code, kind in PROBLEM_TYPES.items()
    if kind.status >= HTTPStatus.INTERNAL_SERVER_ERROR
}

Labels = tuple[str, ...]  # label values, in the order of the names


class Counts:
    """A counter for each combination of label values."""

    def __init__(self, name: str, text: str, labels: Sequence[str]) -> None:
        self._facts = f"linnaeus_{name}", text
        self._names = labels
        self.values: dict[Labels, int] = {}

    def expect(self, *labels: str) -> None:
        """Show 0 until one comes: to Prometheus a counter born at 5 has not risen."""
        self.values.setdefault(labels, 0)

    def add(self, *labels: str) -> None:
        """Count one."""
        self.values[labels] = self.values.get(labels, 0) + 1

    def family(self) -> Metric:
        """For the page."""
        family = CounterMetricFamily(*self._facts, labels=self._names)
        for labels, value in self.values.items():
            family.add_metric(labels, value)
        return family


class Distribution:
    """How often a value fell into each range: one line of a histogram."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value; a bound belongs to the range below it."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Distributions:
    """A histogram for each combination of label values."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float]
    ) -> None:
        self._facts = f"linnaeus_{name}", text
        self._names = labels
        self._bounds = bounds
        self._lines: dict[Labels, Distribution] = {}

    def line(self, *labels: str) -> Distribution:
        """The one of these label values."""
        line = self._lines.get(labels)
        if line is None:
            line = self._lines[labels] = Distribution(self._bounds)
        return line

    def family(self) -> Metric:
        """For the page: cumulative, as Prometheus wants it."""
        family = HistogramMetricFamily(*self._facts, labels=self._names)
        for labels, line in self._lines.items():
            buckets, below = [], 0
            for bound, count in zip((*self._bounds, "+Inf"), line.counts, strict=True):
                below += count
                buckets.append((str(bound), below))
            family.add_metric(labels, buckets, line.total)
        return family


class Gauges:
    """Values that are read when the page is, one for each combination of labels."""

    def __init__(self, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self._facts = f"linnaeus_{name}", text
        self._names = labels
        self._reads: dict[Labels, Callable[[], float]] = {}

    def watch(self, read: Callable[[], float], *labels: str) -> None:
        """Read this value from now on."""
        self._reads[labels] = read

    def family(self) -> Metric:
        """For the page."""
        family = GaugeMetricFamily(*self._facts, labels=self._names)
        for labels, read in self._reads.items():
            family.add_metric(labels, read())
        return family


class ModelMetrics:
    """The instruments of one model, with their labels looked up once."""

    def __init__(self, metrics: "Metrics", key: ModelKey) -> None:
        labels = key[0], str(key[1])
        self._labels = labels
        self._images = metrics.images
        self._decode = metrics.decode.line(*labels)
        self._queue = metrics.queue.line(*labels)
        self._infer = metrics.infer.line(*labels)
        self._batch_size = metrics.batch_size.line(*labels)
        for code in ALERTED:
            metrics.images.expect(*labels, code)

    def answered(self, timing: Timing) -> None:
        """Count an image that has its answer."""
        self._images.add(*self._labels, "ok")
        self._decode.observe(timing.decode_ms / 1e3)
        self._queue.observe((timing.queue_ms + timing.batch_ms) / 1e3)
        self._infer.observe(timing.infer_ms / 1e3)
        self._batch_size.observe(timing.batch_size)

    def failed(self, code: str) -> None:
        """Count an image that has none, by the code of its problem."""
        self._images.add(*self._labels, code)


class Metrics(Collector):
    """Everything that is counted. Names and meanings are those of `docs/http.md`."""

    def __init__(self) -> None:
        model = ("model", "version")
        self.requests = Counts(
            "requests", "Requests answered.", ("route", "status", "code")
        )
        self.latency = Distributions(
            "request_seconds", "Complete head to ready answer.", ("route",), SECONDS
        )
        self.in_flight = 0
        self.images = Counts("images", "Images, by outcome.", (*model, "code"))
        self.decode = Distributions("decode_seconds", "Decode.", model, SECONDS)
        self.queue = Distributions("queue_seconds", "Waiting.", model, SECONDS)
        self.infer = Distributions("infer_seconds", "Batch run.", model, SECONDS)
        self.batch_size = Distributions(
            "batch_size", "Images in the run, seen by each.", model, BATCH_SIZES
        )
        self.connections = Gauges("connections", "Open, idle ones too.")
        self.connections_refused = Counts(
            "connections_refused", "Refused, because too many were open.", ()
        )
        self.connections_refused.expect()
        self.requests_in_flight = Gauges("requests_in_flight", "Being served now.")
        self.requests_in_flight.watch(lambda: self.in_flight)
        self.ready = Gauges("ready", "1 while traffic may come.")
        self.processes = Gauges("processes", "Those that serve.")
        self.processes.watch(lambda: 1)
        self.processes_wanted = Gauges("processes_wanted", "Those that should.")
        self.buffered_bytes = Gauges("buffered_bytes", "Request bodies held.")
        self.queued_images = Gauges("queued_images", "Images that wait.", model)
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(self)

    def expect(self, route: str) -> None:
        """Show what may be alerted of on this route, before it has happened."""
        for code, status in ALERTED.items():
            self.requests.expect(route, str(status), code)

    def answered(self, route: str, status: int, code: str, elapsed_s: float) -> None:
        """Count one request, however it ended."""
        self.requests.add(route, str(status), code)
        self.latency.line(route).observe(elapsed_s)

    def collect(self) -> Iterator[Metric]:
        """What prometheus-client asks for a page."""
        for instrument in vars(self).values():
            if isinstance(instrument, Counts | Distributions | Gauges):
                yield instrument.family()

    def page(self) -> bytes:
        """The text exposition format, version 0.0.4."""
        return generate_latest(self._registry)
