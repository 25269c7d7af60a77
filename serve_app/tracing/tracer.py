"""Chooses the requests that are traced, and makes spans of the notes on them.

The SDK's spans surround code and take 12 us each. Here all spans of a request are made at its end,
from notes, as the SDK's readable spans, which takes 1 us each. Sampling, identifiers, batches and
export are the SDK's.
"""

from collections.abc import Mapping
from time import perf_counter

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import (
    Decision,
    ParentBased,
    Sampler,
    TraceIdRatioBased,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.trace.status import Status, StatusCode

from serve_app.api.http import Request
from serve_app.api.outcome import Outcome
from serve_app.api.request_trace import RequestTrace
from serve_app.engines.span import Attributes, Step
from serve_app.tracing import genai
from serve_app.tracing.content import content_attributes
from serve_app.tracing.context import TRACEPARENT, TRACESTATE, TraceContext, parse_context
from serve_app.tracing.notes import NotedStep, SpanNotes

_TRACEPARENT, _TRACESTATE = TRACEPARENT.encode(), TRACESTATE.encode()
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
# The running code's context may hold a span of Serve's own tracing.
_NO_PARENT = Context()
_UNSET, _ERROR = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
# Shorter steps explain nothing, and their spans would cost as much as those of long ones.
MIN_STEP_S = 0.001
# Mistakes and disconnects of callers are no errors of the server.
_CALLERS = (Outcome.OK, Outcome.CLIENT_ERROR, Outcome.CANCELLED)


class Tracer:
    """Begins and ends the spans of one process.

    `provider`: has the sampler; never the global one. `processor`: gets the spans.
    `captures_content`: whether prompts and answers become attributes. `min_step_s`: shorter steps
    get no span, except the choice of a replica.
    """

    def __init__(
        self,
        provider: TracerProvider,
        processor: SpanProcessor,
        captures_content: bool = False,
        min_step_s: float = MIN_STEP_S,
    ) -> None:
        self._min_step_s = min_step_s
        self._sampler = provider.sampler
        self._ratio = _ratio_of_new_traces(provider.sampler)
        self._ids = provider.id_generator
        self._resource = provider.resource
        self._processor = processor
        self._captures_content = captures_content
        self._scope = InstrumentationScope(genai.SCOPE)

    def begin(self, request: Request, trace: RequestTrace) -> None:
        """Begin a request's span if it is sampled; the caller's trace goes on in any case."""
        operation = genai.OPERATIONS.get(request.path)
        if operation is None:
            return
        caller = _caller(request)
        trace_id = caller.trace_id if caller else self._ids.generate_trace_id()
        if self._ratio and not caller and not _is_sampled(trace_id, self._ratio):
            return
        parent = _remote(caller) if caller else _NO_PARENT
        result = self._sampler.should_sample(parent, trace_id, operation, SpanKind.SERVER)
        if result.decision is Decision.RECORD_AND_SAMPLE:
            state = caller.state if caller else ""
            own = TraceContext(trace_id, self._ids.generate_span_id(), True, state)
            trace.span = SpanNotes(own, caller.span_id if caller else None, trace.started)
            trace.span.begin(Step.READ_BODY)
            trace.span_headers = own.headers
        elif caller:
            trace.span_headers = caller._replace(is_sampled=False).headers

    def resume(self, headers: Mapping[str, str]) -> SpanNotes | None:
        """Begin the span of another process's call; None unless that process traces it."""
        caller = parse_context(headers.get(TRACEPARENT, ""), headers.get(TRACESTATE, ""))
        if caller is None or not caller.is_sampled:
            return None
        return SpanNotes(caller._replace(span_id=self._ids.generate_span_id()), caller.span_id)

    def end(self, trace: RequestTrace) -> None:
        """Make the spans of a request that has ended."""
        notes = trace.span
        if notes is None:
            return
        if trace.outcome is Outcome.CANCELLED:
            notes.event("client disconnected")
        attributes = genai.request_attributes(trace, notes)
        if self._captures_content:
            attributes |= content_attributes(notes)
        notes.end()
        notes.steps += _timed_by_engine(trace)
        notes.drop_content()
        is_error = trace.outcome not in _CALLERS
        self.emit(notes, genai.span_name(trace), attributes, SpanKind.SERVER, is_error=is_error)

    def emit(
        self,
        notes: SpanNotes,
        name: str,
        attributes: Attributes,
        kind: SpanKind = SpanKind.INTERNAL,
        *,
        is_error: bool = False,
    ) -> None:
        """Send the span of these notes, which ends now, and one for each of its steps."""
        notes.end()
        own = self._context(notes, notes.context.span_id)
        parent = notes.parent_id and self._context(notes, notes.parent_id, is_remote=True)
        for step in notes.steps:
            if step.ended - step.began >= self._min_step_s or step.name == Step.CHOOSE_REPLICA:
                self._processor.on_end(self._step(notes, step, own))
        self._processor.on_end(
            ReadableSpan(
                name,
                own,
                parent or None,
                self._resource,
                attributes,
                [Event(name, of, notes.nanoseconds(at)) for name, at, of in notes.events],
                kind=kind,
                status=_ERROR if is_error else _UNSET,
                start_time=notes.nanoseconds(notes.began),
                end_time=notes.nanoseconds(perf_counter()),
                instrumentation_scope=self._scope,
            )
        )

    def _step(self, notes: SpanNotes, step: NotedStep, parent: SpanContext) -> ReadableSpan:
        return ReadableSpan(
            step.name,
            self._context(notes, self._ids.generate_span_id()),
            parent,
            self._resource,
            step.attributes,
            start_time=notes.nanoseconds(step.began),
            end_time=notes.nanoseconds(step.ended),
            instrumentation_scope=self._scope,
        )

    def _context(self, notes: SpanNotes, span_id: int, *, is_remote: bool = False) -> SpanContext:
        trace_id, state = notes.context.trace_id, notes.context.state
        states = TraceState.from_header([state]) if state else None
        return SpanContext(trace_id, span_id, is_remote, _SAMPLED, states)


def _ratio_of_new_traces(sampler: Sampler) -> TraceIdRatioBased | None:
    """Return the sampler of requests without a caller's trace where it is the SDK's ratio.

    To ask it for each request takes as long as all other work for one that is not traced.
    """
    root = getattr(sampler, "_root", None) if isinstance(sampler, ParentBased) else sampler
    return root if type(root) is TraceIdRatioBased else None


def _is_sampled(trace_id: int, ratio: TraceIdRatioBased) -> bool:
    """Decide as the SDK does, and as every service that the trace goes through."""
    return trace_id & ratio.TRACE_ID_LIMIT < ratio.bound


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
        NotedStep(Step.PREFILL, middle - prefill_s, middle, {}),
        NotedStep(Step.DECODE, middle, trace.first_chunk_at, {}),
    ]
