"""The Prometheus metrics of the service."""

from collections.abc import Callable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

from skincare.labels import UNKNOWN
from skincare.serving.answers import ImageAnswer

_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The metrics of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.request_seconds = Histogram(
            "skincare_request_seconds", "Time from acceptance to answer of /predict", ["code"], buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.batch_size = Histogram("skincare_batch_size", "Images per batch", buckets=_SIZES, registry=self.registry)
        self.batch_seconds = Histogram(
            "skincare_batch_seconds", "Time of a batch in its worker", buckets=_SECONDS, registry=self.registry
        )
        self.answers = Counter("skincare_answers", "Answered images", ["category", "status"], registry=self.registry)
        self.abstentions = Counter(
            "skincare_abstentions", "Images without a category that could be read", registry=self.registry
        )
        self.rejected = Counter("skincare_rejected", "Requests without an answer", ["reason"], registry=self.registry)
        self.worker_restarts = Counter(
            "skincare_worker_restarts", "Workers that were replaced", ["reason"], registry=self.registry
        )
        self.reloads = Counter("skincare_reloads", "Reloads of the model", ["result"], registry=self.registry)
        self._queue = Gauge("skincare_queue_images", "Images that wait for a worker", registry=self.registry)

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Read the queue's length whenever the metrics are collected."""
        self._queue.set_function(length)

    def count(self, answers: Sequence[ImageAnswer]) -> None:
        """Count answered images."""
        for one in answers:
            self.answers.labels(one.category or UNKNOWN, one.status).inc()
            if one.outcome == "abstained":
                self.abstentions.inc()

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(self.registry)
