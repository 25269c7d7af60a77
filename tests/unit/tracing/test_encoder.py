"""The encoder of spans, beside the SDK's own."""

from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.trace.v1.trace_pb2 import Status as EncodedStatus
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from serve_app.tracing.encoder import SpanEncoder

OWN = SpanContext(7, 8, False, TraceFlags(1), TraceState([("vendor", "1")]))
CALLER = SpanContext(7, 9, True, TraceFlags(1))
VALUES: dict[str, Any] = {
    "text": "a",
    "long": "x" * 1000,
    "number": 1,
    "yes": True,
    "share": 1.0,
    "list": ["a", "b"],
    "numbers": [0.5, 1.0],
}


def span(**fields: Any) -> ReadableSpan:
    shared = {"resource": Resource({"service.name": "x"}), "start_time": 1, "end_time": 2}
    return ReadableSpan(
        "chat", OWN, instrumentation_scope=InstrumentationScope("s"), **shared, **fields
    )


SPANS = [
    span(kind=SpanKind.SERVER, parent=CALLER, attributes=VALUES),
    span(status=Status(StatusCode.ERROR)),
    span(parent=OWN, events=[Event("retry", {"error.type": "lost"}, 5)], attributes=VALUES),
    span(attributes={"number": True, "yes": 1}),
]


def test_it_encodes_as_the_sdk_does() -> None:
    """Every field, also of a span whose values are those of an earlier one or only equal them."""
    encoder = SpanEncoder()
    for spans in (SPANS, SPANS[::-1]):
        theirs = encode_spans(spans)
        for encoded in theirs.resource_spans[0].scope_spans[0].spans[1:]:
            if encoded.status == EncodedStatus():
                encoded.ClearField("status")  # the same on the wire's other end
        assert encoder.encode(spans) == theirs
