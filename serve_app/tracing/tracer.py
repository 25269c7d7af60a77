"""Chooses the requests that are traced, and hands the notes on them to the thread that sends spans.

Sampling, identifiers and export are the SDK's.
"""

from collections.abc import Callable, Mapping
from functools import partial
from time import perf_counter

from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    set_span_in_context,
)

from serve_app.api.http import Request
from serve_app.api.outcome import Outcome
from serve_app.api.request_trace import RequestTrace
from serve_app.engines.span import Attributes, Step
from serve_app.tracing import genai
from serve_app.tracing.choice import new_traces
from serve_app.tracing.content import content_attributes
from serve_app.tracing.context import TRACEPARENT, TRACESTATE, TraceContext, parse_context
from serve_app.tracing.notes import NotedStep, SpanNotes
from serve_app.tracing.spans import EndedSpan

_TRACEPARENT, _TRACESTATE = TRACEPARENT.encode(), TRACESTATE.encode()
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
# The running code's context may hold a span of Serve's own tracing.
_NO_PARENT = Context()
# The maximum of an answer that is kept until its span is made.
_MAX_KEPT = 16_384
# Mistakes and disconnects of callers are no errors of the server.
_CALLERS = (Outcome.OK, Outcome.CLIENT_ERROR, Outcome.CANCELLED)


class Tracer:
    """Begins and ends the spans of one process.

    `provider`: has the sampler; never the global one. `send`: gets the spans that have ended; must
    be quick. `captures_content`: whether prompts and answers become attributes.
    """

    def __init__(
        self,
        provider: TracerProvider,
        send: Callable[[EndedSpan], object],
        captures_content: bool = False,
    ) -> None:
        self._sampler = provider.sampler
        self._new_traces = new_traces(provider.sampler)
        self._ids = provider.id_generator
        self._send = send
        self._captures_content = captures_content

    def begin(self, request: Request, trace: RequestTrace) -> None:
        """Begin a request's span if it is sampled; the caller's trace goes on in any case."""
        if self._new_traces and _TRACEPARENT not in request.headers:
            trace_id = self._new_traces.next_id()
            if trace_id is not None and request.path in genai.OPERATIONS:
                self._start(trace, trace_id, None)
        elif operation := genai.OPERATIONS.get(request.path):
            self._begin_as_sampler(request, trace, operation)

    def _begin_as_sampler(self, request: Request, trace: RequestTrace, operation: str) -> None:
        caller = _caller(request)
        trace_id = caller.trace_id if caller else self._ids.generate_trace_id()
        parent = _remote(caller) if caller else _NO_PARENT
        result = self._sampler.should_sample(parent, trace_id, operation, SpanKind.SERVER)
        if result.decision is Decision.RECORD_AND_SAMPLE:
            self._start(trace, trace_id, caller)
        elif caller:
            trace.span_headers = caller._replace(is_sampled=False).headers

    def _start(self, trace: RequestTrace, trace_id: int, caller: TraceContext | None) -> None:
        state = caller.state if caller else ""
        own = TraceContext(trace_id, self._ids.generate_span_id(), True, state)
        trace.span = SpanNotes(own, caller.span_id if caller else None, trace.started)
        trace.span.begin(Step.READ_BODY)
        trace.span_headers = own.headers

    def resume(self, headers: Mapping[str, str]) -> SpanNotes | None:
        """Begin the span of another process's call; None unless that process traces it."""
        caller = parse_context(headers.get(TRACEPARENT, ""), headers.get(TRACESTATE, ""))
        if caller is None or not caller.is_sampled:
            return None
        return SpanNotes(caller._replace(span_id=self._ids.generate_span_id()), caller.span_id)

    def end(self, trace: RequestTrace) -> None:
        """Hand on the notes on a request that has ended."""
        notes = trace.span
        if notes is None:
            return
        if trace.outcome is Outcome.CANCELLED:
            notes.event("client disconnected")
        notes.end()
        notes.steps += _timed_by_engine(trace)
        attributes = self._attributes(trace, notes)
        is_error = trace.outcome not in _CALLERS
        name = genai.span_name(trace)
        ended = EndedSpan(notes, name, perf_counter(), attributes, SpanKind.SERVER, is_error)
        self._send(ended)

    def _attributes(self, trace: RequestTrace, notes: SpanNotes) -> Callable[[], Attributes]:
        """Return the attributes, or a way to them that keeps no large content and no frames."""
        notes.max_tokens = genai.max_tokens(notes.payload)
        is_kept = trace.error is None and len(notes.answer) <= _MAX_KEPT
        if is_kept and not self._captures_content:
            notes.payload = {}
            return partial(genai.request_attributes, trace, notes)
        attributes = genai.request_attributes(trace, notes)
        if self._captures_content:
            attributes |= content_attributes(notes)
        notes.drop_content()
        return lambda: attributes

    def end_call(
        self, notes: SpanNotes, name: str, attributes: Attributes, *, is_error: bool = False
    ) -> None:
        """Hand on the notes on another process's call, which ends now."""
        notes.end()
        self._send(EndedSpan(notes, name, perf_counter(), lambda: attributes, is_error=is_error))


def _caller(request: Request) -> TraceContext | None:
    """Return the span of the caller that made the request, if it names one."""
    headers = request.headers
    parent = headers.get(_TRACEPARENT)
    if parent is None:
        return None
    return parse_context(parent.decode("latin-1"), headers.get(_TRACESTATE, b"").decode("latin-1"))


def _remote(caller: TraceContext) -> Context:
    """Convert the caller's span for the sampler."""
    flags = _SAMPLED if caller.is_sampled else TraceFlags(TraceFlags.DEFAULT)
    context = SpanContext(caller.trace_id, caller.span_id, is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(context), _NO_PARENT)


def _timed_by_engine(trace: RequestTrace) -> list[NotedStep]:
    """Return the steps of an unstreamed answer, from the times in the engine's report."""
    prefill_s, decode_s = trace.usage.prefill_s, trace.usage.decode_s
    if trace.stream or not prefill_s or not decode_s or not trace.first_chunk_at:
        return []
    middle = trace.first_chunk_at - decode_s
    return [
        (Step.PREFILL, middle - prefill_s, middle, {}),
        (Step.DECODE, middle, trace.first_chunk_at, {}),
    ]
