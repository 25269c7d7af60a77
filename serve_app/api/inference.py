"""One handler for every inference route: read, check, re-encode, send on, relay."""

from typing import Protocol

import orjson

from serve_app.api.body import encode, model_of, read_object, stream_of
from serve_app.api.charge import Charge, Charges
from serve_app.api.counts import lacks_counts, with_counts
from serve_app.api.endpoint import Bounds, Endpoint, Payload
from serve_app.api.http import Request, Send, read_body, send_body, send_json
from serve_app.api.relay import Tail, read_answer, relay_stream
from serve_app.api.request_trace import RequestTrace
from serve_app.engines.base import Answer, Call, ModelCard
from serve_app.errors import EngineLost, NotFound, ServiceError
from serve_app.model_names import ModelNames, short_name

_STREAMS = (b"text/event-stream", b"application/x-ndjson")
_PASSED_HEADERS = ("anthropic-version", "anthropic-beta")


class Dispatcher(Protocol):
    """Sends calls to engines, wherever these run."""

    async def send(self, call: Call) -> Answer:
        """Return the begun answer. Raises Overloaded, EngineDown, EngineLost or EngineSlow."""

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
        charges: Charges,
        bounds: Bounds,
        max_body_bytes: int,
        body_timeout_s: float,
    ) -> None:
        self.endpoint = endpoint
        self._dispatcher = dispatcher
        self._names = names
        self._charges = charges
        self._bounds = bounds
        self._max_body_bytes = max_body_bytes
        self._body_timeout_s = body_timeout_s

    async def __call__(self, request: Request, send: Send, trace: RequestTrace) -> None:
        body = await read_body(request, self._max_body_bytes, self._body_timeout_s)
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
        endpoint = self.endpoint
        endpoint.shape(payload, self._bounds)
        hides = endpoint.counts_on_request and trace.stream and lacks_counts(payload)
        body = encode(with_counts(payload) if hides else payload)
        charge = None
        if trace.caller.name and endpoint.takes_slot:
            charge = await self._charges.begin(endpoint, payload, body, trace)
        answer = await self._send(self._call(request, body, trace, charge), charge)
        tail = Tail()
        try:
            endpoint.mend(answer, payload, self._bounds)
            await self._relay(answer, send, trace, charge, tail, hides)
        finally:
            if charge:
                charge.settle(answer, tail)
            answer.close()

    async def _send(self, call: Call, charge: Charge | None) -> Answer:
        if charge is None:
            return await self._dispatcher.send(call)
        try:
            answer = await self._dispatcher.send(call)
        except BaseException as exc:
            charge.fail(exc)
            raise
        answer.headers += charge.headers
        return answer

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

    def _call(
        self, request: Request, body: bytes, trace: RequestTrace, charge: Charge | None
    ) -> Call:
        return Call(
            path=self.endpoint.path,
            model=trace.model,
            body=body,
            stream=trace.stream,
            takes_slot=self.endpoint.takes_slot,
            request_id=trace.request_id,
            affinity=request.header(b"x-session-id") or None,
            headers=tuple(
                (name, value)
                for name in _PASSED_HEADERS
                if (value := request.header(name.encode()))
            ),
            flow=trace.caller.flow,
            service=charge.service if charge else 0.0,
        )

    async def _relay(
        self,
        answer: Answer,
        send: Send,
        trace: RequestTrace,
        charge: Charge | None,
        tail: Tail,
        hides: bool,
    ) -> None:
        kind = dict(answer.headers).get(b"content-type", b"")
        if answer.status == 200 and kind.startswith(_STREAMS):
            await self._relay_stream(answer, send, trace, tail, hides)
        else:
            await self._relay_body(answer, send, trace, charge)

    async def _relay_stream(
        self, answer: Answer, send: Send, trace: RequestTrace, tail: Tail, hides: bool
    ) -> None:
        trace.note_status(answer.status)
        end, error = await relay_stream(
            answer,
            send,
            self.endpoint.stream_end,
            lambda exc, tail: self._event(exc, tail, trace),
            trace.note_chunk,
            tail,
            hides,
        )
        trace.finish(end, error)

    def _event(self, exc: ServiceError, tail: bytes, trace: RequestTrace) -> bytes:
        return self.endpoint.event(self.endpoint.dialect.error(exc, trace.request_id), tail)

    async def _relay_body(
        self, answer: Answer, send: Send, trace: RequestTrace, charge: Charge | None
    ) -> None:
        body = await read_answer(answer)
        trace.note_chunk()
        if answer.status == 200:
            self._check_end(body, trace)
        else:
            trace.refuse(answer.status)
        if charge:
            charge.settle(answer)
        answer.close()  # frees the slot, however slowly the caller takes the body
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
