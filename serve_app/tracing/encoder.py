"""Encodes the notes on requests as spans, in the thread that sends them.

The SDK's spans surround code and take 12 us each, and its encoder as long again. Here the spans of
many requests are encoded one after another: code that runs now and then, between other requests,
takes several times as long. Most attributes are the same again and again, so that their encoded
form is kept. To merge it into a span is to append it, as protobuf defines for repeated fields.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from time import perf_counter, time
from typing import Any

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext

from serve_app.engines.span import Attributes, AttributeValue, Step
from serve_app.tracing import genai
from serve_app.tracing.notes import NotedEvent
from serve_app.tracing.spans import EndedSpan

# Shorter steps explain nothing, and their spans would cost as much as those of long ones.
MIN_STEP_S = 0.001

_VALUES = {bool: "bool_value", str: "string_value", int: "int_value", float: "double_value"}
_MAX_KEPT = 1024
_MAX_KEPT_LENGTH = 64
_UNIQUE = genai.REQUEST_ID
_ALWAYS_SHOWN = str(Step.CHOOSE_REPLICA)
_INTERNAL = trace_pb2.Span.SPAN_KIND_INTERNAL
_ERROR = trace_pb2.Status.STATUS_CODE_ERROR
_HAS_IS_REMOTE = trace_pb2.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_IS_REMOTE = _HAS_IS_REMOTE | trace_pb2.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


def _epoch() -> float:
    """Return the zero of the clock `perf_counter`, in seconds since 1970."""
    return time() - perf_counter()


class SpanEncoder:
    """Encodes the spans of one process, which have one resource and one scope and no links.

    `min_step_s`: shorter steps get no span, except the choice of a replica. `epoch`: see `_epoch`.
    """

    def __init__(
        self,
        resource: Resource,
        min_step_s: float = MIN_STEP_S,
        ids: IdGenerator | None = None,
        epoch: Callable[[], float] = _epoch,
    ) -> None:
        self._empty = _empty_request(resource)
        self._min_step_s = min_step_s
        self._ids = ids or RandomIdGenerator()
        self._epoch = epoch
        self._kept = lru_cache(_MAX_KEPT, typed=True)(_attribute)

    def encode(self, batch: Iterable[EndedSpan]) -> ExportTraceServiceRequest:
        """Encode each span, after those of its steps."""
        request = ExportTraceServiceRequest()
        request.CopyFrom(self._empty)
        spans, epoch = request.resource_spans[0].scope_spans[0].spans, self._epoch()
        for ended in batch:
            self._add_steps(spans, ended, epoch)
            self._add(spans, ended, epoch)
        return request

    def _add_steps(self, spans: Any, ended: EndedSpan, epoch: float) -> None:
        notes = ended.notes
        trace_id, own_id = _ids(ended)
        for name, began, done, attributes in notes.steps:
            if done - began < self._min_step_s and name != _ALWAYS_SHOWN:
                continue
            encoded = spans.add(
                trace_id=trace_id,
                span_id=self._ids.generate_span_id().to_bytes(8, "big"),
                trace_state=notes.context.state,
                parent_span_id=own_id,
                name=name,
                kind=_INTERNAL,
                start_time_unix_nano=int((epoch + began) * 1e9),
                end_time_unix_nano=int((epoch + done) * 1e9),
                flags=_HAS_IS_REMOTE,
            )
            self._add_attributes(encoded, attributes)

    def _add(self, spans: Any, ended: EndedSpan, epoch: float) -> None:
        notes = ended.notes
        trace_id, own_id = _ids(ended)
        encoded = spans.add(
            trace_id=trace_id,
            span_id=own_id,
            trace_state=notes.context.state,
            parent_span_id=notes.parent_id.to_bytes(8, "big") if notes.parent_id else b"",
            name=ended.name,
            kind=ended.kind.value + 1,
            start_time_unix_nano=int((epoch + notes.began) * 1e9),
            end_time_unix_nano=int((epoch + ended.ended) * 1e9),
            flags=_IS_REMOTE if notes.parent_id else _HAS_IS_REMOTE,
        )
        self._add_attributes(encoded, ended.attributes())
        if notes.events:
            encoded.events.extend([_event(event, epoch) for event in notes.events])
        if ended.is_error:
            encoded.status.code = _ERROR

    def _add_attributes(self, encoded: trace_pb2.Span, attributes: Attributes) -> None:
        kept = []
        for key, value in attributes.items():
            if _is_kept(key, value):
                kept.append(self._kept(key, value))
            else:
                _set(encoded.attributes.add(key=key).value, value)
        if kept:
            encoded.MergeFromString(b"".join(kept))


def _is_kept(key: str, value: AttributeValue) -> bool:
    """Whether the encoded form of an attribute is kept: values of other types seldom come again."""
    if isinstance(value, str):
        return len(value) <= _MAX_KEPT_LENGTH and key != _UNIQUE
    return isinstance(value, int)


def _empty_request(resource: Resource) -> ExportTraceServiceRequest:
    """Return a request without spans, of this resource and the service's scope."""
    scope = InstrumentationScope(genai.SCOPE)
    context = SpanContext(1, 1, is_remote=False)
    span = ReadableSpan("", context, resource=resource, instrumentation_scope=scope)
    request = encode_spans([span])
    del request.resource_spans[0].scope_spans[0].spans[:]
    return request


def _ids(ended: EndedSpan) -> tuple[bytes, bytes]:
    context = ended.notes.context
    return context.trace_id.to_bytes(16, "big"), context.span_id.to_bytes(8, "big")


def _event(event: NotedEvent, epoch: float) -> trace_pb2.Span.Event:
    name, at, attributes = event
    encoded = trace_pb2.Span.Event(name=name, time_unix_nano=int((epoch + at) * 1e9))
    for key, value in attributes.items():
        _set(encoded.attributes.add(key=key).value, value)
    return encoded


def _attribute(key: str, value: AttributeValue) -> bytes:
    """Return a span with this attribute alone, encoded."""
    span = trace_pb2.Span()
    _set(span.attributes.add(key=key).value, value)
    encoded: bytes = span.SerializeToString()
    return encoded


def _set(encoded: AnyValue, value: Any) -> None:
    if isinstance(value, list | tuple):
        for item in value:
            _set(encoded.array_value.values.add(), item)
    else:
        setattr(encoded, _VALUES[type(value)], value)
