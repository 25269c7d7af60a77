"""Measures the cost of traces in one process: microseconds of CPU for a streamed request.

It covers the notes, the request's span with those of two steps, its metrics, and their encoding,
without the collector. The minimum of several turns counts, because other work on the machine only
adds.
"""

import os
from collections.abc import Callable
from time import process_time
from typing import Any

import click
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.trace import TracerProvider

from serve_app.api.http import Request
from serve_app.api.request_trace import RequestTrace
from serve_app.engines.base import Usage
from serve_app.engines.span import Step
from serve_app.tracing.build import process_resource
from serve_app.tracing.encoder import SpanEncoder
from serve_app.tracing.exporters import Losses
from serve_app.tracing.otlp import OtlpMetrics
from serve_app.tracing.spans import EndedSpan
from serve_app.tracing.tracer import Tracer

_PATH = "/v1/chat/completions"
_TURNS, _REQUESTS = 15, 500
_TAIL = b'data: {"choices":[{"delta":{},"finish_reason":"length"}]}\n\ndata: [DONE]\n\n'


@click.command(help=__doc__)
@click.option("--share", default=0.1, show_default=True, help="Of the requests that are traced.")
@click.option("--whole-us", default=440.0, show_default=True, help="Of CPU that a request takes.")
def main(share: float, whole_us: float) -> None:
    bare = _min_us(lambda: request(None))
    metrics = _metrics()
    ended = request(None)
    counted = _min_us(lambda: metrics.count(ended))
    untraced, traced = (_min_us(turn_of(ratio)) - bare for ratio in ("0", "1"))
    mean = (1 - share) * untraced + share * traced + counted
    click.echo(f"not traced {untraced:.1f} us, traced {traced:.1f} us, metrics {counted:.1f} us")
    click.echo(
        f"{share:.0%} traced, with metrics: {mean:.1f} us a request, x {1 + mean / whole_us:.3f}"
    )


class Encoded:
    """Encodes spans in batches, as the thread that sends them does."""

    def __init__(self, encoder: SpanEncoder) -> None:
        self._ended: list[EndedSpan] = []
        self._encoder = encoder

    def add(self, ended: EndedSpan) -> None:
        self._ended.append(ended)
        if len(self._ended) == 170:
            self._encoder.encode(self._ended).SerializePartialToString()
            self._ended.clear()


class Nowhere:
    """An exporter of metrics that sends nothing."""

    def export(self, *_: Any) -> MetricExportResult:
        return MetricExportResult.SUCCESS

    def shutdown(self) -> None: ...


def _metrics() -> OtlpMetrics:
    exporter: Any = Nowhere()
    return OtlpMetrics(exporter, process_resource({}), Losses("metrics"))


def turn_of(ratio: str) -> Callable[[], RequestTrace]:
    """Return a request of a process that traces this share of them."""
    os.environ |= {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": ratio}
    provider = TracerProvider(resource=process_resource({}), shutdown_on_exit=False)
    encoded = Encoded(SpanEncoder(provider.resource))
    tracer = Tracer(provider, encoded.add)
    return lambda: request(tracer)


def request(tracer: Tracer | None) -> RequestTrace:
    """Note one streamed request as the API and the dispatcher do."""
    trace = RequestTrace("POST", _PATH, "openai", "req-1")
    if tracer:
        tracer.begin(_ASKED, trace)
    trace.note_model("smollm2:135m")
    trace.status, trace.stream, trace.chunks = 200, True, 16
    trace.first_chunk_at = trace.started + 0.01
    trace.last_chunk_at = trace.started + 0.03
    trace.usage = Usage(9, 16, 4)
    if span := trace.span:
        span.end()
        span.ask({"max_tokens": 16}, "")
        span.wait("standard", 0)
        span.end()
        span.steps.append((Step.PREFILL, trace.started, trace.first_chunk_at, {}))
        span.steps.append((Step.DECODE, trace.first_chunk_at, trace.last_chunk_at, {}))
        span.answer = _TAIL
    trace.end()
    if tracer:
        tracer.end(trace)
    return trace


async def _receive() -> dict[str, Any]:
    return {}


_ASKED = Request({"method": "POST", "path": _PATH, "headers": [(b"host", b"x")]}, _receive)


def _min_us(once: Callable[[], object]) -> float:
    turns = []
    for _ in range(_TURNS):
        began = process_time()
        for _ in range(_REQUESTS):
            once()
        turns.append((process_time() - began) / _REQUESTS * 1e6)
    return min(turns)


if __name__ == "__main__":
    main()
