"""Serve's metrics of the requests that go past Serve, see direct_ingress.py.

Serve hands the latency of each request to two of Ray's histograms. In the replica and in Ray's
agent, which records it again, that takes a tenth of the CPU time of a short request.
"""

import asyncio
from collections import defaultdict
from contextvars import Context

from serve_app.ray_serve.private_replica import LATENCY_BUCKETS_MS, ReplicaMetrics
from serve_app.ray_serve.summed_metrics import SUMS_S, SummedHistogram


class ServeMetrics:
    """Holds the latencies of ended requests, and adds them to Serve's metrics once a second."""

    def __init__(self, metrics: ReplicaMetrics) -> None:
        self._metrics = metrics
        # Serve's names and labels, but gauges, see summed_metrics.py. Serve adds `application`.
        self._processing = SummedHistogram(
            "serve_deployment_processing_latency_ms",
            "The latency for queries to be processed.",
            LATENCY_BUCKETS_MS,
            ("route",),
        )
        self._http = SummedHistogram(
            "serve_http_request_latency_ms",
            "The end-to-end latency of HTTP requests (measured from the Serve HTTP ingress).",
            LATENCY_BUCKETS_MS,
            ("method", "route", "status_code"),
        )
        self._latencies_ms: defaultdict[tuple[str, int, str], list[float]] = defaultdict(list)

    def record(self, method: str, status: int, seconds: float, exception: str) -> None:
        """Note an ended request; `status` 0: its answer never began."""
        if not self._latencies_ms:
            # In no caller's context: Serve would write the caller's id into every line.
            loop = asyncio.get_running_loop()
            loop.call_later(SUMS_S, self.report, context=Context())
        self._latencies_ms[method, status, exception].append(1000 * seconds)

    def report(self) -> None:
        """Add the requests since the last report to Serve's metrics."""
        ended, self._latencies_ms = self._latencies_ms, defaultdict(list)
        for (method, status, exception), latencies_ms in ended.items():
            self._metrics.count_processed(len(latencies_ms), exception)
            self._metrics.note_latencies(sum(latencies_ms), max(latencies_ms))
            for latency_ms in latencies_ms:
                self._processing.observe(latency_ms, self._metrics.route)
            if status:
                self._metrics.count_answered(len(latencies_ms), method, status)
                self._observe_answers(latencies_ms, method, str(status))
        self._processing.report()
        self._http.report()

    def _observe_answers(self, latencies_ms: list[float], method: str, status: str) -> None:
        labels = (method, self._metrics.route, status)
        for latency_ms in latencies_ms:
            self._http.observe(latency_ms, *labels)
