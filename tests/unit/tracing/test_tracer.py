"""Which requests are traced, and which of their steps get a span."""

import weakref
from collections.abc import Iterator
from math import inf
from typing import Any

import pytest
from opentelemetry import trace as global_trace
from opentelemetry.sdk.trace import (
    SpanProcessor,
    TracerProvider,
)
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.util._once import Once
from ray.serve._private import tracing_utils
from ray.serve.schema import TracingConfig

from serve_app.api.http import Request
from serve_app.api.request_trace import RequestTrace
from serve_app.engines.span import Step
from serve_app.errors import EngineLost
from serve_app.tracing.encoder import MIN_STEP_S, SpanEncoder
from serve_app.tracing.spans import EndedSpan
from serve_app.tracing.tracer import Tracer

PATH = "/v1/chat/completions"
CALLER = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7"


def own(
    provider: TracerProvider | None = None, min_step_s: float = inf
) -> tuple[Tracer, list[Any]]:
    """A tracer with a provider of its own, and the spans of its requests, without their steps."""
    spans: list[Any] = []
    provider = provider or TracerProvider(shutdown_on_exit=False)
    encoder = SpanEncoder(provider.resource, min_step_s)

    def send(ended: EndedSpan) -> None:
        spans.extend(encoder.encode([ended]).resource_spans[0].scope_spans[0].spans)

    return Tracer(provider, send), spans


def begun(tracer: Tracer, traceparent: str = "") -> RequestTrace:
    headers = [(b"traceparent", traceparent.encode())] if traceparent else []
    scope = {"method": "POST", "path": PATH, "headers": headers}
    trace = RequestTrace("POST", PATH, "openai", "id")

    async def receive() -> dict[str, Any]:
        return {}

    tracer.begin(Request(scope, receive), trace)
    return trace


@pytest.mark.parametrize(
    ("flags", "sampler", "argument", "is_traced"),
    [
        ("", "", "", True),
        ("00", "", "", False),
        ("", "parentbased_always_off", "", False),
        ("01", "parentbased_always_off", "", True),
        ("01", "always_off", "", False),
        ("", "traceidratio", "0", False),
        ("00", "traceidratio", "1", True),
    ],
)
def test_the_standard_environment_samples(
    monkeypatch: pytest.MonkeyPatch, flags: str, sampler: str, argument: str, is_traced: bool
) -> None:
    """Callers decide with the usual samplers, and the engine learns of the decision."""
    if sampler:
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", sampler)
        monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    tracer, made = own()
    trace = begun(tracer, f"{CALLER}-{flags}" if flags else "")
    assert (trace.span is not None) is is_traced
    if is_traced or flags:
        assert trace.span_headers[0][1].endswith("-01" if is_traced else "-00")
    tracer.end(trace)
    assert bool(made) is is_traced


def test_a_ratio_samples_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many requests about one in ten."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.1")
    tracer, _ = own()
    assert 50 < sum(begun(tracer).span is not None for _ in range(1000)) < 170


def test_a_ratio_decides_as_the_sdk_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the id, so that every service keeps the same traces."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.3")
    provider = TracerProvider(shutdown_on_exit=False)
    tracer, _ = own(provider)
    spans = [span for _ in range(200) if (span := begun(tracer).span)]
    ids = {span.context.trace_id for span in spans}
    assert len(ids) == len(spans) > 0
    for trace_id in ids:
        assert provider.sampler.should_sample(None, trace_id, "chat").decision.is_sampled()


def test_steps_that_explain_nothing_have_no_span() -> None:
    """Below a millisecond; the choice of a replica is told however quick it was."""
    tracer, made = own(min_step_s=MIN_STEP_S)
    trace = begun(tracer)
    assert trace.span
    names = ((Step.QUEUE, 0.0005), (Step.PREFILL, 0.002), (Step.CHOOSE_REPLICA, 0.0001))
    trace.span.steps += [(name, 1.0, 1.0 + seconds, {}) for name, seconds in names]
    tracer.end(trace)
    assert [span.name for span in made] == ["prefill", "choose replica", "chat"]


def test_a_request_is_not_kept_until_its_span_is_made() -> None:
    """Neither its prompt, nor a large answer, nor the frames of its error."""
    kept: list[EndedSpan] = []
    tracer = Tracer(TracerProvider(shutdown_on_exit=False), kept.append)
    large, failed = begun(tracer), begun(tracer)
    for trace in (large, failed):
        assert trace.span
        trace.span.ask({"messages": ["x"], "options": {"num_predict": 7}}, "")
        trace.span.answer = b'"finish_reason":"length"' + b" " * 100_000
        trace.note_chunk()
    failed.fail(EngineLost("gone"))
    error = weakref.ref(failed.error)
    for trace in (large, failed):
        tracer.end(trace)
    del trace, failed
    assert error() is None
    assert [(ended.notes.payload, ended.notes.answer) for ended in kept] == [({}, b"")] * 2
    attributes = [ended.attributes() for ended in kept]
    assert attributes[0]["gen_ai.response.finish_reasons"] == ["length"]
    assert attributes[0]["gen_ai.request.max_tokens"] == 7
    assert attributes[1]["error.type"] == "EngineLost"


SERVES = InMemorySpanExporter()


def serves_processors() -> list[SpanProcessor]:
    """Named in Serve's configuration of its own traces."""
    return [SimpleSpanProcessor(SERVES)]


@pytest.fixture
def serves_tracing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a replica with it: a global provider, which a process may set once."""
    monkeypatch.setattr(global_trace, "_TRACER_PROVIDER", None)
    monkeypatch.setattr(global_trace, "_TRACER_PROVIDER_SET_ONCE", Once())
    for name in ("_tracing_enabled", "_tracer"):
        monkeypatch.setattr(tracing_utils, name, None)
    path = f"{__name__}:serves_processors"
    monkeypatch.setattr(tracing_utils, "import_attr", lambda _: serves_processors)
    config = TracingConfig(enabled=True, exporter_import_path=path, sampling_ratio=1)
    assert tracing_utils.setup_tracing("replica", "one", tracing_config=config)
    yield
    SERVES.clear()


@pytest.mark.usefixtures("serves_tracing")
def test_serves_own_traces_are_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """With these on, and within a span of Serve's, every span is made once, by its own tracer."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    tracer, made = own()
    with tracing_utils.TraceContextManager("replica"):
        dropped, kept = begun(tracer), begun(tracer, f"{CALLER}-01")
        for trace in (dropped, kept):
            tracer.end(trace)
    assert [span.name for span in SERVES.get_finished_spans()] == ["replica"]
    assert [span.name for span in made] == ["chat"]
