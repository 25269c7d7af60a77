"""Metrics, exported by Ray Serve, which adds deployment, replica and application."""

import asyncio
from collections import Counter
from contextvars import Context
from typing import Any, Protocol

from ray.serve import metrics

from serve_app.api.request_trace import RequestTrace
from serve_app.engines.base import EngineStatus
from serve_app.ray_serve.key_metrics import KeyMetrics
from serve_app.ray_serve.request_log import EndedRequest, RequestLog

# Seconds: milliseconds to a first token from a cache, minutes to one behind a long queue.
TTFT_BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120]
GAP_BUCKETS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]
DURATION_BUCKETS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600]

_REPORT_S = 0.1
_LABELS: Any = ("model", "dialect")  # Ray annotates a tuple of one


class RequestCounter(Protocol):
    def count(self, trace: RequestTrace) -> None: ...


class ServeObserver:
    """Counts every trace and writes its log line, in batches of a tenth of a second.

    Ray gets counts as sums, since reporting one costs more than relaying a token. Observations of
    histograms can't be summed, but made in a row they take a third of the time.
    """

    def __init__(self, log: RequestLog | None, keys: KeyMetrics, *others: RequestCounter) -> None:
        self._log = log
        self._keys = keys
        self._others = others
        outcome: Any = (*_LABELS, "outcome")
        self._in_flight = metrics.Gauge("llm_requests_in_flight", "Requests being answered.")
        self._ttft = metrics.Histogram(
            "llm_ttft_seconds", "Arrival to first byte of the answer.", TTFT_BUCKETS, _LABELS
        )
        self._predicted = metrics.Histogram(
            "llm_predicted_ttft_seconds",
            "Time to first token that a gateway predicted for the replica that it chose.",
            TTFT_BUCKETS,
            _LABELS,
        )
        self._gap = metrics.Histogram(
            "llm_inter_token_seconds", "Gaps between chunks (sampled).", GAP_BUCKETS, _LABELS
        )
        self._duration = metrics.Histogram(
            "llm_request_seconds", "Arrival to last byte.", DURATION_BUCKETS, _LABELS
        )
        self._tasks = metrics.Gauge("llm_event_loop_tasks", "Tasks of the replica's event loop.")
        self._counters = {
            "requests": metrics.Counter("llm_requests_total", "Requests by outcome.", outcome)
        } | {
            name: metrics.Counter(
                f"llm_{name}_tokens_total",
                f"{text}, counted or, where the engine did not, estimated.",
                _LABELS,
            )
            for name, text in {
                "prompt": "Prompt tokens",
                "generated": "Generated tokens",
                "cached": "Prompt tokens found in the prefix cache",
            }.items()
        }
        for name, text in (
            ("predicted_cached_tokens", "Prompt tokens that a gateway expected in the cache."),
            ("placement_moves", "Requests sent to a replica that had less of them cached."),
        ):
            self._counters[name] = metrics.Counter(f"llm_{name}_total", text, _LABELS)
        self._sums: Counter[tuple[str, str, str, str]] = Counter()
        self._ended: list[EndedRequest] = []
        self._running = 0
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def began(self, trace: RequestTrace) -> None:
        self._running += 1
        if self._timer is None and not self._closed:
            self._report_later()

    def ended(self, trace: RequestTrace) -> None:
        self._running -= 1
        self._ended.append(EndedRequest.now(trace))
        if self._closed:
            self._report()

    def note_keys_file(self, valid: bool) -> None:
        self._keys.note_file(valid)

    def close(self) -> None:
        """Report ended requests now, and later ones at once: no timer is left behind."""
        self._closed = True
        if self._timer:
            self._timer.cancel()
        self._report()

    def _report_later(self) -> None:
        # In no caller's context: Serve would write the caller's id into every line.
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_REPORT_S, self._report, context=Context())

    def _report(self) -> None:
        self._timer = None
        ended, self._ended = self._ended, []
        # Once more after the last request, so that the gauge falls to 0. Before anything below
        # can fail.
        if (self._running or ended) and not self._closed:
            self._report_later()
        if self._log:
            self._log.write(ended)
        for request in ended:
            self._count(request.trace)
            self._keys.count(request.trace)
            for other in self._others:
                other.count(request.trace)
        self._keys.report()
        self._report_sums()
        self._in_flight.set(self._running)
        self._tasks.set(len(asyncio.all_tasks()))

    def _count(self, trace: RequestTrace) -> None:
        model, dialect = trace.model, trace.dialect
        self._sums["requests", model, dialect, trace.outcome] += 1
        if not model:
            return  # nothing reached an engine
        labels = {"model": model, "dialect": dialect}
        self._duration.observe(trace.seconds, labels)
        if trace.ttft is not None:
            self._ttft.observe(trace.ttft, labels)
        for gap in trace.gaps:
            self._gap.observe(gap, labels)
        if placed := trace.placed:
            self._predicted.observe(placed.predicted_s, labels)
            self._sums["predicted_cached_tokens", model, dialect, ""] += placed.cached_tokens
            self._sums["placement_moves", model, dialect, ""] += placed.moved
        usage = trace.usage
        for name, number in (
            ("prompt", usage.prompt),
            ("generated", usage.generated),
            ("cached", usage.cached),
        ):
            if number and number > 0:
                self._sums[name, model, dialect, ""] += number

    def _report_sums(self) -> None:
        sums, self._sums = self._sums, Counter()
        for (name, model, dialect, outcome), number in sums.items():
            if not number:
                continue  # Ray takes no 0
            labels = {"model": model, "dialect": dialect}
            if name == "requests":
                labels["outcome"] = outcome
            self._counters[name].inc(number, labels)


class EngineGauges:
    """Shows an engine's status as gauges."""

    def __init__(self) -> None:
        self._ready = metrics.Gauge("llm_engine_ready", "1 while the engine is ready.")
        self._restarts = metrics.Gauge("llm_engine_restarts", "Starts after the first.")
        self._phases = metrics.Gauge(
            "llm_engine_start_seconds", "Seconds of the last start, by phase.", ("phase",)
        )

    def show(self, status: EngineStatus) -> None:
        self._ready.set(float(status.state == "ready"))
        self._restarts.set(status.restarts)
        for name, seconds in status.phases:
            self._phases.set(seconds, {"phase": name})
