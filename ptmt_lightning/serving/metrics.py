"""What the server counts, for ``/metrics``."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)  # memory, processor time and open files of the process that answers
        self.requests = Counter(
            "ptmt_http_requests", "requests that were answered", ["path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "ptmt_http_request_seconds", "from the headers to the answer", ["path"], buckets=_SECONDS,
            registry=self.registry,
        )  # fmt: skip
        self.texts = Counter("ptmt_texts", "texts that were predicted", registry=self.registry)
        self.batch_texts = Histogram(
            "ptmt_batch_texts", "texts that were predicted together", buckets=_TEXTS, registry=self.registry
        )
        self.waiting = Gauge("ptmt_waiting_requests", "requests that wait to be predicted", registry=self.registry)
        self.restarts = Counter("ptmt_worker_restarts", "starts of the process that predicts, after its death",
                                registry=self.registry)  # fmt: skip
        self.connections = Gauge("ptmt_connections", "open connections", registry=self.registry)
        self.closed = Counter(
            "ptmt_connections_closed", "connections that the server cut, by reason", ["reason"], registry=self.registry
        )
