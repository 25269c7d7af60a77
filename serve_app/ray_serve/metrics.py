"""Metrics, exported by Ray Serve, which adds deployment, replica and application."""

import asyncio
import time
from contextvars import Context
from typing import Protocol

from ray.serve import metrics

from serve_app.api.request_trace import RequestTrace
from serve_app.engines.base import EngineStatus
from serve_app.ray_serve.key_metrics import KeyMetrics
from serve_app.ray_serve.request_log import EndedRequest, RequestLog
from serve_app.ray_serve.summed_metrics import SUMS_S, SummedCounter, SummedHistogram

# Seconds: milliseconds to a first token from a cache, minutes to one behind a long queue.
TTFT_BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120]
GAP_BUCKETS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]
DURATION_BUCKETS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600]

_REPORT_S = 0.1
_LABELS = ("model", "dialect")
_ESTIMATED = "counted or, where the engine did not, estimated"


class RequestCounter(Protocol):
    def count(self, trace: RequestTrace) -> None: ...

    def report(self) -> None:
        """Hand on what was counted, once a second."""


class RequestMetrics:
    """Counts requests by model and dialect."""

    def __init__(self) -> None:
        self._requests = SummedCounter(
            "llm_requests_total", "Requests by outcome.", (*_LABELS, "outcome")
        )
        self._duration, self._ttft, self._gap, self._predicted = (
            SummedHistogram(name, description, buckets, _LABELS)
            for name, description, buckets in (
                ("llm_request_seconds", "Arrival to last byte.", DURATION_BUCKETS),
                ("llm_ttft_seconds", "Arrival to first byte of the answer.", TTFT_BUCKETS),
                ("llm_inter_token_seconds", "Gaps between chunks (sampled).", GAP_BUCKETS),
                (
                    "llm_predicted_ttft_seconds",
                    "Time to first token that a gateway predicted for the replica that it chose.",
                    TTFT_BUCKETS,
                ),
            )
        )
        self._prompt, self._generated, self._cached, self._predicted_cached, self._moves = (
            SummedCounter(name, description, _LABELS)
            for name, description in (
                ("llm_prompt_tokens_total", f"Prompt tokens, {_ESTIMATED}."),
                ("llm_generated_tokens_total", f"Generated tokens, {_ESTIMATED}."),
                (
                    "llm_cached_tokens_total",
                    f"Prompt tokens found in the prefix cache, {_ESTIMATED}.",
                ),
                (
                    "llm_predicted_cached_tokens_total",
                    "Prompt tokens that a gateway expected in the cache.",
                ),
                (
                    "llm_placement_moves_total",
                    "Requests sent to a replica that had less of them cached.",
                ),
            )
        )

    def count(self, trace: RequestTrace) -> None:
        model, dialect = trace.model, trace.dialect
        self._requests.add(1, model, dialect, trace.outcome)
        if not model:
            return  # nothing reached an engine
        self._duration.observe(trace.seconds, model, dialect)
        if trace.ttft is not None:
            self._ttft.observe(trace.ttft, model, dialect)
        for gap in trace.gaps:
            self._gap.observe(gap, model, dialect)
        if placed := trace.placed:
            self._predicted.observe(placed.predicted_s, model, dialect)
            self._predicted_cached.add(placed.cached_tokens, model, dialect)
            self._moves.add(placed.moved, model, dialect)
        usage = trace.usage
        self._prompt.add(usage.prompt or 0, model, dialect)
        self._generated.add(usage.generated or 0, model, dialect)
        self._cached.add(usage.cached or 0, model, dialect)

    def report(self) -> None:
        """Hand the sums to Ray."""
        for metric in (
            *(self._requests, self._duration, self._ttft, self._gap, self._predicted),
            *(self._prompt, self._generated, self._cached),
            *(self._predicted_cached, self._moves),
        ):
            metric.report()


class ServeObserver:
    """Counts every trace and writes its log line, in batches of a tenth of a second."""

    def __init__(self, log: RequestLog | None, keys: KeyMetrics, *others: RequestCounter) -> None:
        self._log = log
        self._keys = keys
        self._counters: tuple[RequestCounter, ...] = (RequestMetrics(), keys, *others)
        self._in_flight = metrics.Gauge("llm_requests_in_flight", "Requests being answered.")
        self._tasks = metrics.Gauge("llm_event_loop_tasks", "Tasks of the replica's event loop.")
        self._ended: list[EndedRequest] = []
        self._running = 0
        self._has_sums = False
        self._next_sums_at = 0.0
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
        if (self._running or ended or self._has_sums) and not self._closed:
            self._report_later()
        if self._log:
            self._log.write(ended)
        for request in ended:
            for counter in self._counters:
                counter.count(request.trace)
        self._has_sums |= bool(ended)
        self._report_sums()
        self._in_flight.set(self._running)
        self._tasks.set(len(asyncio.all_tasks()))

    def _report_sums(self) -> None:
        now = time.monotonic()
        if not self._has_sums or (now < self._next_sums_at and not self._closed):
            return
        self._has_sums, self._next_sums_at = False, now + SUMS_S
        for counter in self._counters:
            counter.report()


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
