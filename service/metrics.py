"""exchanges and outcomes → **metrics**: the page that Prometheus scrapes.

One registry an application, so that two applications in one process share nothing.
"""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from service.contract import ModelKey, Timing

# 250 µs (a health check, a 28x28 PNG) to 10 s (the default timeout), about 2x apart.
SECONDS = (
    *(0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
# The padded sizes of a GPU; a CPU stays in the first four.
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class ModelMetrics:
    """The counters of one model, with their labels looked up once."""

    def __init__(self, metrics: "Metrics", key: ModelKey) -> None:
        name, version = key[0], str(key[1])
        self._images = metrics.images
        self._labels = (name, version)
        self._answered = metrics.images.labels(name, version, "ok")
        self._decode = metrics.decode.labels(name, version)
        self._queue = metrics.queue.labels(name, version)
        self._infer = metrics.infer.labels(name, version)
        self._batch_size = metrics.batch_size.labels(name, version)

    def answered(self, timing: Timing) -> None:
        """Count an image that has its answer."""
        self._answered.inc()
        self._decode.observe(timing.decode_ms / 1e3)
        self._queue.observe((timing.queue_ms + timing.batch_ms) / 1e3)
        self._infer.observe(timing.infer_ms / 1e3)
        self._batch_size.observe(timing.batch_size)

    def failed(self, code: str) -> None:
        """Count an image that has none, by the code of its problem."""
        self._images.labels(*self._labels, code).inc()


class Metrics:
    """Everything that is counted. Names and meanings are those of `docs/http.md`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        of_model = ("model", "version")
        self._requests = self._counter(
            "requests", "Requests answered.", ("route", "status", "code")
        )
        self._latency = self._histogram(
            "request_seconds", "First byte in to last byte out.", ("route",), SECONDS
        )
        self.in_flight = Gauge(
            "linnaeus_requests_in_flight",
            "Requests being served now.",
            registry=self.registry,
        )
        self.images = self._counter(
            "images", "Images, by outcome.", (*of_model, "code")
        )
        self.decode = self._histogram(
            "decode_seconds", "Bytes to pixels.", of_model, SECONDS
        )
        self.queue = self._histogram(
            "queue_seconds", "Waiting for a lane and for mates.", of_model, SECONDS
        )
        self.infer = self._histogram(
            "infer_seconds", "The run of the batch.", of_model, SECONDS
        )
        self.batch_size = self._histogram(
            "batch_size", "Images in the run, seen by each.", of_model, BATCH_SIZES
        )
        self._gauges: dict[str, Gauge] = {}

    def answered(self, route: str, status: int, code: str, elapsed_s: float) -> None:
        """Count one request, however it ended."""
        self._requests.labels(route, status, code).inc()
        self._latency.labels(route).observe(elapsed_s)

    def watch(
        self, name: str, text: str, read: Callable[[], float], **labels: str
    ) -> None:
        """Add a gauge that is read when the page is scraped."""
        if name not in self._gauges:
            self._gauges[name] = Gauge(
                f"linnaeus_{name}", text, tuple(labels), registry=self.registry
            )
        gauge = self._gauges[name]
        (gauge.labels(**labels) if labels else gauge).set_function(read)

    def page(self) -> bytes:
        """The text exposition format, version 0.0.4."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"linnaeus_{name}", text, labels, registry=self.registry)

    def _histogram(
        self,
        name: str,
        text: str,
        labels: tuple[str, ...],
        buckets: tuple[float, ...],
    ) -> Histogram:
        return Histogram(
            f"linnaeus_{name}", text, labels, buckets=buckets, registry=self.registry
        )
