"""One handler for every inference route: read, check, re-encode, send on, relay."""

from typing import Protocol

import orjson

from serve_app.api.body import encode, model_of, read_object, stream_of
from serve_app.api.endpoint import Bounds, Endpoint, Payload
from serve_app.api.http import Request, Send, read_body, send_body, send_json
from serve_app.api.relay import read_whole, relay_stream
from serve_app.api.request_trace import Outcome, RequestTrace
from serve_app.engines.base import Answer, Call, ModelCard
from serve_app.errors import EngineLost, InternalError, NotFound, ServiceError
from serve_app.model_names import ModelNames, short_name

_STREAMS = (b"text/event-stream", b"application/x-ndjson")
_PASSED_HEADERS = ("anthropic-version", "anthropic-beta")


class Dispatcher(Protocol):
    """Finds the engine for a call; the API does not know where it runs."""

    async def send(self, call: Call) -> Answer:
        """Raises Overloaded, EngineDown, EngineLost, EngineSlow, before the first byte."""

    def cards(self) -> tuple[ModelCard, ...]:
        """Every model of every pool."""

    def version(self) -> str:
        """The version of Ollama's API that callers may rely on."""

    async def problem(self) -> str:
        """Why the service is not ready, or "" when it is."""


class Inference:
    """Answers the requests of one endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        dispatcher: Dispatcher,
        names: ModelNames,
        bounds: Bounds,
        max_body_bytes: int,
        body_timeout_s: float,
    ) -> None:
        self.endpoint = endpoint
        self._dispatcher = dispatcher
        self._names = names
        self._bounds = bounds
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s

    async def __call__(self, request: Request, send: Send, trace: RequestTrace) -> None:
        body = await read_body(request, self._max_body_bytes, self._body_timeout_s)
        request.watch_caller()
        payload = self._check(body, trace)
        if (local := self.endpoint.local(payload)) is not None:
            trace.status = 200
            return await send_json(send, local)
        self.endpoint.shape(payload, self._bounds)
        answer = await self._dispatcher.send(self._call(request, payload, trace))
        try:
            self.endpoint.mend(answer, payload, self._bounds)
            await self._relay(answer, send, trace)
        finally:
            answer.close()

    def _check(self, body: bytes, trace: RequestTrace) -> Payload:
        endpoint = self.endpoint
        payload = read_object(body, endpoint.keys, endpoint.empty_body)
        if endpoint.path == "/api/show" and "model" not in payload:
            payload["model"] = payload.pop("name", None)  # its older spelling
        asked = model_of(payload)
        trace.stream = endpoint.streams is not None and stream_of(payload, endpoint.streams)
        model = self._names.find(asked)
        if model is None:
            name = short_name(asked) if endpoint.tagged_in_errors else asked
            raise NotFound(endpoint.unknown_model.format(name=name[:512]))
        trace.model = payload["model"] = model
        return payload

    def _call(self, request: Request, payload: Payload, trace: RequestTrace) -> Call:
        return Call(
            path=self.endpoint.path,
            model=trace.model,
            body=encode(payload),
            stream=trace.stream,
            takes_slot=self.endpoint.takes_slot,
            request_id=trace.request_id,
            affinity=request.header(b"x-session-id") or None,
            headers=tuple(
                (name, value)
                for name in _PASSED_HEADERS
                if (value := request.header(name.encode()))
            ),
        )

    async def _relay(self, answer: Answer, send: Send, trace: RequestTrace) -> None:
        kind = dict(answer.headers).get(b"content-type", b"")
        if answer.status == 200 and kind.startswith(_STREAMS):
            await self._relay_stream(answer, send, trace)
        else:
            await self._relay_whole(answer, send, trace)

    async def _relay_stream(self, answer: Answer, send: Send, trace: RequestTrace) -> None:
        trace.status = answer.status
        end, error = await relay_stream(
            answer,
            send,
            self.endpoint.stream_end,
            lambda exc, tail: self._event(exc, tail, trace),
            trace.note_chunk,
        )
        trace.usage = end.usage
        if isinstance(error, InternalError) and error.__cause__:
            trace.failed_unexpectedly(error.__cause__)
        elif error:
            trace.failed(error)
        elif not end.complete:
            trace.outcome = Outcome.UPSTREAM_ERROR

    def _event(self, exc: ServiceError, tail: bytes, trace: RequestTrace) -> bytes:
        return self.endpoint.event(self.endpoint.dialect.error(exc, trace.request_id), tail)

    async def _relay_whole(self, answer: Answer, send: Send, trace: RequestTrace) -> None:
        body = await read_whole(answer)
        answer.close()  # the slot is free, however slowly the caller takes the body
        trace.note_chunk()
        if answer.status == 200:
            self._prove(body, trace)
        else:
            client = answer.status < 500
            trace.outcome = Outcome.CLIENT_ERROR if client else Outcome.UPSTREAM_ERROR
        trace.status = answer.status
        await send_body(send, answer.status, body, list(answer.headers))

    def _prove(self, body: bytes, trace: RequestTrace) -> None:
        """Raise EngineLost unless the answer says itself that it is finished."""
        try:
            end = self.endpoint.body_end(orjson.loads(body))
        except (orjson.JSONDecodeError, AttributeError, TypeError) as exc:
            raise EngineLost("the engine's answer can't be read") from exc
        if not end.complete:
            raise EngineLost("the engine ended the answer before it was complete")
        trace.usage = end.usage
