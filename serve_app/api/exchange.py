"""One request on its way to an engine, and its answer on the way back."""

import orjson

from serve_app.api.affinity import take_affinity
from serve_app.api.body import encode_body
from serve_app.api.charge import Charge
from serve_app.api.counts import lacks_counts, with_counts
from serve_app.api.endpoint import Endpoint, Payload
from serve_app.api.http import Request, Send, send_body
from serve_app.api.relay import Tail, read_answer, relay_stream
from serve_app.api.request_trace import RequestTrace
from serve_app.api.urgency import deadline_of, flow_of
from serve_app.engines.base import Answer, Call
from serve_app.errors import BadRequest, EngineLost, ServiceError

_STREAMS = (b"text/event-stream", b"application/x-ndjson")
_PASSED_HEADERS = (b"anthropic-version", b"anthropic-beta")
_MAX_HEADER = 1024


class Exchange:
    """One checked request. Raises BadRequest for headers without a meaning.

    `charge`: its cost to its caller, None for a caller without a key.
    `hides_counts`: the service requests counts that the caller did not request.
    """

    __slots__ = (
        *(
            "_affinity",
            "_deadline",
            "_flow",
            "_headers",
            "_tail",
            "body",
            "charge",
            "endpoint",
            "hides_counts",
            "payload",
            "request",
            "send",
        ),
        "trace",
    )

    def __init__(
        self,
        endpoint: Endpoint,
        request: Request,
        payload: Payload,
        send: Send,
        trace: RequestTrace,
    ) -> None:
        self.endpoint = endpoint
        self.request = request
        self.payload = payload
        self.send = send
        self.trace = trace
        self.charge: Charge | None = None
        self.hides_counts = endpoint.counts_on_request and trace.stream and lacks_counts(payload)
        self.body = b""
        self._flow = flow_of(request, trace.caller.flow)
        self._affinity = take_affinity(request, payload, self._flow)
        self._deadline = deadline_of(request, trace.started)
        self._headers = _passed_headers(request)
        trace.note_priority(self._flow.priority)
        self._tail = Tail()

    def use(self, model: str) -> None:
        """Encode the request for this model."""
        self.trace.note_model(model)
        self.payload["model"] = model
        self.body = encode_body(with_counts(self.payload) if self.hides_counts else self.payload)
        if self.charge:
            self.charge.use(model)

    def call(self) -> Call:
        """Return the call to an engine."""
        trace = self.trace
        return Call(
            path=self.endpoint.path,
            model=trace.model,
            body=self.body,
            stream=trace.stream,
            takes_slot=self.endpoint.takes_slot,
            request_id=trace.request_id,
            affinity=self._affinity,
            headers=self._headers + trace.span_headers,
            flow=self._flow,
            deadline=self._deadline,
            service=self.charge.service if self.charge else 0.0,
            conversation=self.payload if self.endpoint.converses else None,
            span=trace.span,
        )

    def fail(self, exc: BaseException) -> None:
        """Settle a request that got no answer."""
        if self.charge:
            self.charge.fail(exc)

    async def relay(self, answer: Answer) -> None:
        """Send the answer to the caller; close it on every path."""
        self.trace.placed = answer.placed
        if self.endpoint.takes_slot:
            self.trace.note_queue(answer.queued_s)
        self.trace.replica = answer.replica
        try:
            kind = dict(answer.headers).get(b"content-type", b"")
            if answer.status == 200 and kind.startswith(_STREAMS):
                await self._relay_stream(answer)
            else:
                await self._relay_body(answer)
        except EngineLost:
            answer.broke_off = True
            raise
        finally:
            self.close(answer)

    def close(self, answer: Answer) -> None:
        """Settle the cost of the answer, and close it."""
        answer.usage = self.trace.usage
        if self.charge:
            self.charge.settle(answer, self._tail)
        answer.close()

    async def _relay_stream(self, answer: Answer) -> None:
        self.trace.note_status(answer.status)
        end, error = await relay_stream(
            answer,
            self.send,
            self.endpoint.stream_end,
            self.event,
            self.trace.note_chunk,
            self._tail,
            self.hides_counts,
        )
        # A stream that took too long is left out: its caller may have read it too slowly.
        answer.broke_off = isinstance(error, EngineLost) or (end.error_sent and not end.complete)
        self.trace.finish(end, error)
        if self.trace.span:
            self.trace.span.answer = self._tail.join()

    def event(self, exc: ServiceError, tail: bytes = b"") -> bytes:
        """Return an error as an event of a stream whose last bytes are `tail`."""
        return self.error_event(self.endpoint.dialect.error(exc, self.trace.request_id), tail)

    def error_event(self, error: Payload, tail: bytes = b"") -> bytes:
        return self.endpoint.event(error, tail)

    async def _relay_body(self, answer: Answer) -> None:
        trace = self.trace
        body = await read_answer(answer)
        trace.note_chunk()
        if trace.span:
            trace.span.answer = body
        if answer.status == 200:
            self._check_end(body)
        else:
            trace.refuse(answer.status)
        self.close(answer)  # frees the slot, however slowly the caller takes the body
        trace.note_status(answer.status)
        await send_body(self.send, answer.status, body, list(answer.headers))

    def _check_end(self, body: bytes) -> None:
        """Raise EngineLost unless the answer states that it is complete."""
        try:
            end = self.endpoint.body_end(orjson.loads(body))
        except (orjson.JSONDecodeError, AttributeError, TypeError) as exc:
            raise EngineLost("the engine's answer can't be read") from exc
        if not end.complete:
            raise EngineLost("the engine ended the answer before it was complete")
        self.trace.finish(end)


def _passed_headers(request: Request) -> tuple[tuple[str, str], ...]:
    """Return the headers with a meaning to the engine. Raises BadRequest for a long one."""
    if request.headers.keys().isdisjoint(_PASSED_HEADERS):
        return ()
    headers = [
        (name.decode(), value.decode("latin-1"))
        for name in _PASSED_HEADERS
        if (value := request.headers.get(name))
    ]
    for name, text in headers:
        if len(text) > _MAX_HEADER:
            raise BadRequest(f"{name} has {len(text)} bytes, but at most {_MAX_HEADER} are allowed")
    return tuple(headers)
