"""The span of a call in a replica behind the gateway, below that of the gateway's request."""

from serve_app.dispatch.worker import CallHandler
from serve_app.engines.base import Answer, Call
from serve_app.tracing.context import TRACEPARENT, TRACESTATE
from serve_app.tracing.notes import SpanNotes
from serve_app.tracing.tracer import Tracer

_NAME = "answer call"
_TRACE_HEADERS = (TRACEPARENT, TRACESTATE)


class TracedCalls:
    """Passes calls on; those that the gateway traces get a span, whose steps `handler` notes."""

    def __init__(self, handler: CallHandler, tracer: Tracer, replica: str) -> None:
        self._handler = handler
        self._tracer = tracer
        self._replica = replica

    async def send(self, call: Call) -> Answer:
        span = self._tracer.resume(dict(call.headers))
        if span is None:
            return await self._handler.send(call)
        others = tuple(header for header in call.headers if header[0] not in _TRACE_HEADERS)
        call.headers, call.span = (*others, *span.context.headers), span
        try:
            answer = await self._handler.send(call)
        except BaseException as exc:
            self._end(span, call, type(exc).__name__)
            raise
        answer.on_close(lambda: self._end_answered(span, call, answer))
        return answer

    def _end_answered(self, span: SpanNotes, call: Call, answer: Answer) -> None:
        if not answer.is_last():
            span.event("closed before its end")
        self._end(span, call)

    def _end(self, span: SpanNotes, call: Call, error: str = "") -> None:
        attributes = {
            "serve_app.replica": self._replica,
            "serve_app.model": call.model,
            **({"error.type": error} if error else {}),
        }
        self._tracer.end_call(span, _NAME, attributes, is_error=bool(error))
