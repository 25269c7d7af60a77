"""The encoder of spans, beside the SDK's own."""

from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from serve_app.engines.span import Step
from serve_app.tracing.context import TraceContext
from serve_app.tracing.encoder import SpanEncoder
from serve_app.tracing.notes import SpanNotes
from serve_app.tracing.spans import EndedSpan

RESOURCE = Resource({"service.name": "x"}, "https://opentelemetry.io/schemas/1.0.0")
VALUES: dict[str, Any] = {
    "text": "a",
    "long": "x" * 1000,
    "number": 1,
    "yes": True,
    "share": 1.0,
    "list": ["a", "b"],
    "numbers": [0.5, 1.0],
}
EPOCH, SECOND = 100.0, 10**9


class Ids(IdGenerator):
    """Span 5 for every step."""

    def generate_span_id(self) -> int:
        return 5

    def generate_trace_id(self) -> int:
        raise NotImplementedError


def ended(values: dict[str, Any], **fields: Any) -> EndedSpan:
    """A span of the trace 7 from 101 to 102 s after 1970, called by the span 9."""
    notes = SpanNotes(TraceContext(7, 8, True, "vendor=1"), 9, 1.0)
    return EndedSpan(notes, "chat", 2.0, lambda: values, **fields)


def theirs(name: str, span_id: int, **fields: Any) -> ReadableSpan:
    context = SpanContext(7, span_id, False, TraceFlags(1), TraceState([("vendor", "1")]))
    scope = InstrumentationScope("serve_app")
    return ReadableSpan(name, context, resource=RESOURCE, instrumentation_scope=scope, **fields)


def caller(is_remote: bool = True, span_id: int = 9) -> SpanContext:
    return SpanContext(7, span_id, is_remote, TraceFlags(1))


@pytest.mark.parametrize("values", [VALUES, {"number": True, "yes": 1, "share": 1}, {}])
def test_it_encodes_as_the_sdk_does(values: dict[str, Any]) -> None:
    """Every field, also of values that equal those of an earlier span but have another type."""
    encoder = SpanEncoder(RESOURCE, epoch=lambda: EPOCH)
    encoder.encode([ended(VALUES)])
    encoded = encoder.encode([ended(values, kind=SpanKind.SERVER)])
    times = {"start_time": 101 * SECOND, "end_time": 102 * SECOND}
    span = theirs("chat", 8, parent=caller(), attributes=values, kind=SpanKind.SERVER, **times)
    assert normal(encoded) == normal(encode_spans([span]))


def test_steps_and_events_are_encoded_as_by_the_sdk() -> None:
    """Below their span, with attributes of their own; the span may be an error."""
    failed = ended({}, is_error=True)
    failed.notes.steps += [(Step.DECODE, 1.25, 1.5, {"a": 1}), (Step.QUEUE, 1.0, 1.0005, {})]
    failed.notes.events.append(("retry", 1.5, {"error.type": "lost"}))
    encoded = SpanEncoder(RESOURCE, ids=Ids(), epoch=lambda: EPOCH).encode([failed])
    step = theirs(
        *("decode", 5),
        parent=caller(is_remote=False, span_id=8),
        attributes={"a": 1},
        start_time=int(101.25 * SECOND),
        end_time=int(101.5 * SECOND),
    )
    whole = theirs(
        *("chat", 8),
        parent=caller(),
        status=Status(StatusCode.ERROR),
        events=[Event("retry", {"error.type": "lost"}, int(101.5 * SECOND))],
        start_time=101 * SECOND,
        end_time=102 * SECOND,
    )
    assert normal(encoded) == normal(encode_spans([step, whole]))


def normal(request: Any) -> Any:
    """The same at the wire's other end: no empty status, attributes in the order of their names."""
    for span in request.resource_spans[0].scope_spans[0].spans:
        span.attributes.sort(key=lambda pair: pair.key)
        if not span.status.code:
            span.ClearField("status")
    return request
