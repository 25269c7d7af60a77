"""One handler for every inference route: read, check, re-encode, send on, relay."""

from typing import Protocol

import orjson

from serve_app.api.bodies import Bodies
from serve_app.api.body import encode, model_of, read_object, stream_of
from serve_app.api.endpoint import Bounds, Endpoint, Payload
from serve_app.api.http import Request, Send, send_body, send_json
from serve_app.api.relay import read_answer, relay_stream
from serve_app.api.request_trace import RequestTrace
from serve_app.api.urgency import deadline_of, flow_of
from serve_app.engines.base import Answer, Call, ModelCard
from serve_app.errors import EngineLost, NotFound, ServiceError
from serve_app.model_names import ModelNames, short_name

_STREAMS = (b"text/event-stream", b"application/x-ndjson")
_PASSED_HEADERS = ("anthropic-version", "anthropic-beta")


class Dispatcher(Protocol):
    """Sends calls to engines, wherever these run."""

    async def send(self, call: Call) -> Answer:
        """Return the begun answer.

        Raises Overloaded, DeadlineExceeded, EngineDown, EngineLost or EngineSlow.
        """

    def cards(self) -> tuple[ModelCard, ...]:
        """Return the card of every model of every pool."""

    def version(self) -> str:
        """Return the version of Ollama's API that callers may rely on."""

    async def problem(self) -> str:
        """Return why the service is not ready, or "" when it is."""


class Inference:
    """Answers the requests of one endpoint."""

    def __init__(
        self,
        endpoint: Endpoint,
        dispatcher: Dispatcher,
        names: ModelNames,
        bounds: Bounds,
        bodies: Bodies,
    ) -> None:
        self.endpoint = endpoint
        self._dispatcher = dispatcher
        self._names = names
        self._bounds = bounds
        self._bodies = bodies

    async def __call__(self, request: Request, send: Send, trace: RequestTrace) -> None:
        body = await self._bodies.read(request, trace.caller)
        request.watch_caller()
        payload = self._check(body, trace)
        local = self.endpoint.local(payload)
        if local is None:
            await self._forward(request, payload, send, trace)
        else:
            trace.note_status(200)
            await send_json(send, local)

    async def _forward(
        self, request: Request, payload: Payload, send: Send, trace: RequestTrace
    ) -> None:
        self.endpoint.shape(payload, self._bounds)
        answer = await self._dispatcher.send(self._call(request, payload, trace))
        try:
            self.endpoint.mend(answer, payload, self._bounds)
            await self._relay(answer, send, trace)
        finally:
            answer.close()

    def _check(self, body: bytes, trace: RequestTrace) -> Payload:
        """Return the payload with its model's canonical name. Raises BadRequest, NotFound."""
        endpoint = self.endpoint
        payload = read_object(body, endpoint.keys, endpoint.empty_body)
        if "model" not in payload and endpoint.model_alias in payload:
            payload["model"] = payload.pop(endpoint.model_alias)
        name = model_of(payload)
        if endpoint.streams != "never":
            trace.note_stream(stream_of(payload, endpoint.streams == "default"))
        model = self._names.find(name)
        if model is None:
            shown = short_name(name) if endpoint.tagged_in_errors else name
            raise NotFound(endpoint.unknown_model.format(name=shown[:512]))
        trace.note_model(model)
        payload["model"] = model
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
            flow=flow_of(request, trace.caller.flow),
            deadline=deadline_of(request, trace.started),
        )

    async def _relay(self, answer: Answer, send: Send, trace: RequestTrace) -> None:
        kind = dict(answer.headers).get(b"content-type", b"")
        if answer.status == 200 and kind.startswith(_STREAMS):
            await self._relay_stream(answer, send, trace)
        else:
            await self._relay_body(answer, send, trace)

    async def _relay_stream(self, answer: Answer, send: Send, trace: RequestTrace) -> None:
        trace.note_status(answer.status)
        end, error = await relay_stream(
            answer,
            send,
            self.endpoint.stream_end,
            lambda exc, tail: self._event(exc, tail, trace),
            trace.note_chunk,
        )
        trace.finish(end, error)

    def _event(self, exc: ServiceError, tail: bytes, trace: RequestTrace) -> bytes:
        return self.endpoint.event(self.endpoint.dialect.error(exc, trace.request_id), tail)

    async def _relay_body(self, answer: Answer, send: Send, trace: RequestTrace) -> None:
        body = await read_answer(answer)
        answer.close()  # frees the slot, however slowly the caller takes the body
        trace.note_chunk()
        if answer.status == 200:
            self._check_end(body, trace)
        else:
            trace.refuse(answer.status)
        trace.note_status(answer.status)
        await send_body(send, answer.status, body, list(answer.headers))

    def _check_end(self, body: bytes, trace: RequestTrace) -> None:
        """Raise EngineLost unless the answer states that it is complete."""
        try:
            end = self.endpoint.body_end(orjson.loads(body))
        except (orjson.JSONDecodeError, AttributeError, TypeError) as exc:
            raise EngineLost("the engine's answer can't be read") from exc
        if not end.complete:
            raise EngineLost("the engine ended the answer before it was complete")
        trace.finish(end)
