"""One handler for every inference route: read, check, re-encode, send on, relay."""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from serve_app.aliases import AliasTarget
from serve_app.api.affinity import SESSION
from serve_app.api.bodies import Bodies
from serve_app.api.body import model_of, read_object, stream_of
from serve_app.api.charge import Charges
from serve_app.api.endpoint import Endpoint, Payload, RequestBounds
from serve_app.api.exchange import Exchange
from serve_app.api.http import Request, Send, send_json
from serve_app.api.model_route import ModelRoute
from serve_app.api.pings import Pings
from serve_app.api.request_trace import RequestTrace
from serve_app.engines.base import Answer, Call, ModelCard, ServiceQueue
from serve_app.errors import InternalError, NotFound, ServiceError
from serve_app.model_names import ModelNames, short_name

_NO_ALIASES: Mapping[str, tuple[AliasTarget, ...]] = MappingProxyType({})


class Dispatcher(Protocol):
    """Sends calls to engines, wherever these run."""

    async def send(self, call: Call) -> Answer:
        """Return the begun answer. Raises Overloaded, EngineDown, EngineLost or EngineSlow."""

    def queues(self) -> Mapping[str, ServiceQueue]:
        """Return the queues before engines, by the pool; "" for the only one."""

    def cards(self) -> tuple[ModelCard, ...]:
        """Return the card of every model of every pool."""

    def version(self) -> str:
        """Return the version of Ollama's API that callers may rely on."""

    async def problem(self) -> str:
        """Return why the service is not ready, or "" when it is."""


class RequestTracer(Protocol):
    """Traces some of the requests, see tracing/tracer.py."""

    def begin(self, request: Request, trace: RequestTrace) -> None:
        """Decide whether the request is traced, and how its trace goes on."""


class Inference:
    """Answers the requests of one endpoint. `tracer`: None where nothing is traced."""

    def __init__(
        self,
        endpoint: Endpoint,
        dispatcher: Dispatcher,
        names: ModelNames,
        charges: Charges,
        bounds: RequestBounds,
        bodies: Bodies,
        aliases: Mapping[str, tuple[AliasTarget, ...]] = _NO_ALIASES,
        alias_wait_s: float = 0.0,
        pings: bool = False,
        tracer: RequestTracer | None = None,
    ) -> None:
        self.endpoint = endpoint
        self._dispatcher = dispatcher
        self._names = names
        self._charges = charges
        self._bounds = bounds
        self._bodies = bodies
        self._aliases = aliases
        self._alias_wait_s = alias_wait_s
        self._pings = pings and bool(endpoint.dialect.ping)
        self._tracer = tracer

    async def __call__(self, request: Request, send: Send, trace: RequestTrace) -> None:
        if self._tracer:
            self._tracer.begin(request, trace)
        body = await self._bodies.read(request, trace.caller)
        if trace.span:
            trace.span.end()
        request.watch_caller()
        payload = self._check(body, trace)
        local = self.endpoint.local(payload)
        if local is None:
            self.endpoint.shape(payload, self._bounds)
            if trace.span:
                trace.span.ask(payload, request.header(SESSION))
            exchange = Exchange(self.endpoint, request, payload, send, trace)
            if self._pings and trace.stream:
                await self._forward_with_pings(exchange)
            else:
                await self._forward(exchange, await self._send(exchange))
        else:
            trace.note_status(200)
            await send_json(send, local)

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
        if model is None or not trace.caller.may_use(model):
            shown = short_name(name) if endpoint.tagged_in_errors else name
            raise NotFound(endpoint.unknown_model.format(name=shown[:512]))
        trace.note_model(model)
        payload["model"] = model
        if trace.caller.name:
            trace.note_user(_user(payload))
        return payload

    async def _forward_with_pings(self, exchange: Exchange) -> None:
        """Ping while the engine's first byte is awaited; then an error is an event."""
        pings = Pings(
            *(exchange.send, self.endpoint.dialect.ping, exchange.error_event),
            lambda: exchange.charge.headers if exchange.charge else (),
        )
        exchange.send = pings
        try:
            await self._forward(exchange, await pings.until(self._send(exchange)))
        except Exception as exc:  # of any kind, because the status line is out
            if not pings.begun:
                raise
            exchange.trace.fail(exc)
            error = exc if isinstance(exc, ServiceError) else InternalError()
            await pings.end(exchange.event(error))
        finally:
            if pings.begun:
                exchange.trace.note_status(200)

    async def _forward(self, exchange: Exchange, answer: Answer) -> None:
        try:
            self.endpoint.mend(answer, exchange.payload, self._bounds)
        except BaseException:
            exchange.close(answer)
            raise
        await exchange.relay(answer)

    async def _send(self, exchange: Exchange) -> Answer:
        """Charge the caller and return the begun answer. Raises the error that refuses it."""
        name, trace = exchange.payload["model"], exchange.trace
        targets = self._aliases.get(name)
        route = targets and self._route(name, targets, exchange.request)
        exchange.use(route.model if route else name)
        if route:
            self._skip_small(route, exchange)
        # Also without a key: counted prompts show which context can hold the next prompt.
        if (trace.caller.name or route) and self.endpoint.takes_slot:
            exchange.charge = await self._charges.begin(
                self.endpoint, exchange.payload, len(exchange.body), trace
            )
        try:
            if route:
                answer = await self._send_along(route, exchange)
            else:
                answer = await self._dispatcher.send(exchange.call())
        except BaseException as exc:
            exchange.fail(exc)
            raise
        if exchange.charge:
            answer.headers += exchange.charge.headers
        return answer

    def _route(self, alias: str, targets: tuple[AliasTarget, ...], request: Request) -> ModelRoute:
        return ModelRoute(alias, targets, request.header(SESSION), self._alias_wait_s)

    async def _send_along(self, route: ModelRoute, exchange: Exchange) -> Answer:
        """Send the call to the models of an alias until one takes it."""
        while True:
            try:
                return route.mark(await self._dispatcher.send(route.call(exchange.call())))
            except ServiceError as exc:
                if not route.fall_back(exc):
                    raise
                if exchange.trace.span:
                    exchange.trace.span.event("next model", {"error.type": type(exc).__name__})
            exchange.use(route.model)
            self._skip_small(route, exchange)

    def _skip_small(self, route: ModelRoute, exchange: Exchange) -> None:
        """Pass over models whose context is too small: Ollama would shorten the prompt silently."""
        if "num_ctx" in (exchange.payload.get("options") or ()):
            return  # the caller sets its size
        contexts = {card.name: card.usable_context for card in self._dispatcher.cards()}
        request = (self.endpoint, exchange.payload, len(exchange.body), exchange.trace.caller)

        def is_too_small(model: str) -> bool:
            estimate = self._charges.estimate(*request, model)
            context = contexts.get(model) or math.inf
            return estimate.prompt + estimate.answer > context

        if route.skip(is_too_small):
            exchange.use(route.model)


def _user(payload: Payload) -> str:
    """Return the caller's name for its own customer, in OpenAI's field or Anthropic's."""
    metadata = payload.get("metadata")
    user = payload.get("user") or (isinstance(metadata, dict) and metadata.get("user_id"))
    return user if isinstance(user, str) else ""
