"""Makes spans of the notes on a request, in the thread that sends them.

The SDK's spans surround code and take 12 us each. Here all spans of a request are made from notes,
as the SDK's readable spans, which takes 3 us each; and those of many requests one after another,
because code that runs now and then, between other requests, takes several times as long.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState
from opentelemetry.trace.status import Status, StatusCode

from serve_app.engines.span import Attributes, Step
from serve_app.tracing import genai
from serve_app.tracing.notes import NotedStep, SpanNotes

_SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_UNSET, _ERROR = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
# Shorter steps explain nothing, and their spans would cost as much as those of long ones.
MIN_STEP_S = 0.001


class EndedSpan(NamedTuple):
    """A span that has ended at `ended`, on the clock of `perf_counter`.

    `attributes`: are computed when the span is made. Must hold neither a prompt nor an answer.
    """

    notes: SpanNotes
    name: str
    ended: float
    attributes: Callable[[], Attributes]
    kind: SpanKind = SpanKind.INTERNAL
    is_error: bool = False

    @property
    def size(self) -> int:
        """The number of spans, those of steps included."""
        return 1 + len(self.notes.steps)


class SpanMaker:
    """Makes the spans of one process.

    `min_step_s`: shorter steps get no span, except the choice of a replica.
    """

    def __init__(
        self, resource: Resource, ids: IdGenerator, min_step_s: float = MIN_STEP_S
    ) -> None:
        self._resource = resource
        self._ids = ids
        self._min_step_s = min_step_s
        self._scope = InstrumentationScope(genai.SCOPE)

    def spans(self, ended: EndedSpan) -> Iterator[ReadableSpan]:
        """Yield the spans of the steps, then the span that they belong to."""
        notes = ended.notes
        own = _context(notes, notes.context.span_id)
        for step in notes.steps:
            if step.ended - step.began >= self._min_step_s or step.name == Step.CHOOSE_REPLICA:
                yield self._step(notes, step, own)
        yield ReadableSpan(
            ended.name,
            own,
            _context(notes, notes.parent_id, is_remote=True) if notes.parent_id else None,
            self._resource,
            ended.attributes(),
            [Event(name, of, notes.nanoseconds(at)) for name, at, of in notes.events],
            kind=ended.kind,
            status=_ERROR if ended.is_error else _UNSET,
            start_time=notes.nanoseconds(notes.began),
            end_time=notes.nanoseconds(ended.ended),
            instrumentation_scope=self._scope,
        )

    def _step(self, notes: SpanNotes, step: NotedStep, parent: SpanContext) -> ReadableSpan:
        return ReadableSpan(
            step.name,
            _context(notes, self._ids.generate_span_id()),
            parent,
            self._resource,
            step.attributes,
            start_time=notes.nanoseconds(step.began),
            end_time=notes.nanoseconds(step.ended),
            instrumentation_scope=self._scope,
        )


def _context(notes: SpanNotes, span_id: int, *, is_remote: bool = False) -> SpanContext:
    trace_id, state = notes.context.trace_id, notes.context.state
    states = TraceState.from_header([state]) if state else None
    return SpanContext(trace_id, span_id, is_remote, _SAMPLED, states)
