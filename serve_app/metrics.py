"""Metrics and the request log, through Ray Serve. Ray adds deployment, replica and application."""

import logging
from typing import Any

from ray.serve import metrics

from serve_app.api.exchange import Exchange
from serve_app.engines.base import EngineStatus

# Seconds. First tokens come within milliseconds from a cache and minutes from a long queue.
TTFT_BUCKETS = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120]
GAP_BUCKETS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5]
DURATION_BUCKETS = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600]

_LABELS: Any = ("model", "dialect")  # Ray annotates a tuple of one


class ServeObserver:
    """Counts every exchange and writes its log line."""

    def __init__(self, logger: logging.Logger, log_requests: bool) -> None:
        self._logger = logger
        self._log_requests = log_requests
        outcome: Any = (*_LABELS, "outcome")
        self._requests = metrics.Counter("llm_requests_total", "Requests by outcome.", outcome)
        self._in_flight = metrics.Gauge("llm_requests_in_flight", "Requests being answered.")
        self._ttft = metrics.Histogram(
            "llm_ttft_seconds", "Arrival to first byte of the answer.", TTFT_BUCKETS, _LABELS
        )
        self._gap = metrics.Histogram(
            "llm_inter_token_seconds", "Gaps between chunks (sampled).", GAP_BUCKETS, _LABELS
        )
        self._duration = metrics.Histogram(
            "llm_request_seconds", "Arrival to last byte.", DURATION_BUCKETS, _LABELS
        )
        self._tokens = {
            name: metrics.Counter(
                f"llm_{name}_tokens_total", f"{text}, as the engine counted.", _LABELS
            )
            for name, text in {
                "prompt": "Prompt tokens",
                "generated": "Generated tokens",
                "cached": "Prompt tokens found in the prefix cache",
            }.items()
        }
        self._running = 0

    def began(self, exchange: Exchange) -> None:
        self._running += 1
        self._in_flight.set(self._running)

    def ended(self, exchange: Exchange) -> None:
        self._running -= 1
        self._in_flight.set(self._running)
        self._count(exchange)
        if self._log_requests and not exchange.quiet:
            self._log(exchange)

    def _count(self, exchange: Exchange) -> None:
        labels = {"model": exchange.model, "dialect": exchange.dialect}
        self._requests.inc(1, {**labels, "outcome": exchange.outcome})
        if not exchange.model:
            return  # nothing reached an engine
        self._duration.observe(exchange.seconds, labels)
        if exchange.ttft is not None:
            self._ttft.observe(exchange.ttft, labels)
        for gap in exchange.gaps:
            self._gap.observe(gap, labels)
        for name, counter in self._tokens.items():
            if number := getattr(exchange.usage, name):
                counter.inc(number, labels)

    def _log(self, exchange: Exchange) -> None:
        ttft = "-" if exchange.ttft is None else f"{1000 * exchange.ttft:.0f}"
        self._logger.info(
            "%s %s %d %s key=%s model=%s ttft_ms=%s ms=%.0f tokens=%s",
            *(exchange.method, exchange.printable_path, exchange.status, exchange.outcome),
            *(exchange.key_name or "-", exchange.model or "-", ttft, 1000 * exchange.seconds),
            "-" if exchange.usage.generated is None else exchange.usage.generated,
            extra=exchange.fields(),
        )


class EngineGauges:
    """What an engine's status says, for those who watch."""

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
