"""The ASGI application: explicit routes, a guard before them, errors in the caller's dialect."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import orjson

from serve_app.api.anthropic import ANTHROPIC
from serve_app.api.endpoint import Dialect
from serve_app.api.guard import Guard
from serve_app.api.http import (
    JSON,
    ClientGone,
    Headers,
    Receive,
    Request,
    Scope,
    Send,
    linger,
    send_body,
)
from serve_app.api.ollama import OLLAMA
from serve_app.api.openai import OPENAI
from serve_app.api.request_trace import Observer, RequestTrace
from serve_app.errors import (
    BodyTimeout,
    BodyTooLarge,
    ForeignCaller,
    InternalError,
    MethodNotAllowed,
    NotFound,
    RateLimited,
    ServiceError,
    Unauthorized,
)

logger = logging.getLogger("ray.serve")

_LINGER_S = 1.0
_LONG_WAIT_S = 60

Handler = Callable[[Request, Send, RequestTrace], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path. `path` is literal; a trailing `/*` matches any rest."""

    method: str
    path: str
    handler: Handler
    summary: str
    example: dict[str, Any] | None = None  # a request body without `model`
    open: bool = False  # needs neither a key nor an allowed Host
    hidden: bool = False  # left out of the documentation
    keyless: bool = False  # needs no key, but an allowed Host where there are no keys


class Api:
    """Routes requests. `on_shutdown` runs once, when the server shuts down."""

    def __init__(
        self,
        routes: list[Route],
        guard: Guard,
        observer: Observer,
        on_shutdown: Callable[[], Awaitable[None]],
    ) -> None:
        self._table: dict[str, dict[str, Route]] = {}
        for route in routes:
            self._table.setdefault(route.path, {})[route.method] = route
        self._guard = guard
        self._observer = observer
        self._on_shutdown = on_shutdown

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(Request(scope, receive), send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        authenticator = self._guard.authenticator
        await receive()
        await authenticator.start()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        try:
            authenticator.stop()
            await self._on_shutdown()
        finally:
            self._observer.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, request: Request, send: Send) -> None:
        dialect = dialect_of(request.path)
        trace = RequestTrace(request.method, request.path, dialect.name, request.request_id)
        sender = _Sender(send)
        _notify(self._observer.began, trace)
        try:
            sender.cors = self._guard.cors(request)
            await self._answer(request, sender, trace)
        except ServiceError as exc:
            trace.fail(exc)
            await _fail(exc, sender, dialect, request, trace)
        except (ClientGone, asyncio.CancelledError) as exc:
            trace.cancel()
            if isinstance(exc, asyncio.CancelledError):
                raise
        except Exception as exc:
            trace.fail(exc)
            await _fail(InternalError(), sender, dialect, request, trace)
        finally:
            request.answered()
            trace.end()
            _notify(self._observer.ended, trace)

    async def _answer(self, request: Request, send: Send, trace: RequestTrace) -> None:
        methods = self._methods(request)
        route = methods.get(request.method)
        if route and route.open:
            trace.note_probe()
            await route.handler(request, send, trace)
        elif (headers := self._guard.preflight(request)) is not None:
            trace.note_probe()  # browsers send no key with a preflight
            trace.note_status(204)
            await send({"type": "http.response.start", "status": 204, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
        elif route and route.keyless:
            self._guard.admit_keyless(request)
            await route.handler(request, send, trace)
        else:
            trace.note_caller(self._guard.admit(request))
            if not methods:
                raise NotFound("404 page not found")
            if route is None:
                raise MethodNotAllowed(", ".join(sorted(methods, reverse=True)))
            await route.handler(request, send, trace)

    def _methods(self, request: Request) -> dict[str, Route]:
        path = request.path
        if methods := self._table.get(path):
            # Escaped spellings such as `/api/%70ull` match no route.
            return methods if request.raw_path in (None, path.encode()) else {}
        head, _, rest = path.rpartition("/")
        while head and rest:
            if methods := self._table.get(f"{head}/*"):
                return methods
            head, _, _ = head.rpartition("/")
        return {}


class _Sender:
    """Adds CORS headers to the answer and records whether it has begun."""

    __slots__ = ("_send", "begun", "cors")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.cors: Headers = []
        self.begun = False

    def __call__(self, message: Any) -> Awaitable[None]:
        if not self.begun and message["type"] == "http.response.start":
            self.begun = True
            message["headers"] = [*message["headers"], *self.cors]
        return self._send(message)


def _notify(observe: Callable[[RequestTrace], None], trace: RequestTrace) -> None:
    """Call the observer; log its exceptions, which no caller should see."""
    try:
        observe(trace)
    except Exception:
        logger.exception("failed to observe a request")


def dialect_of(path: str) -> Dialect:
    """Return the dialect of answers for `path`, whether the path is known or not."""
    if path == "/v1/messages" or path.startswith("/v1/messages/"):
        return ANTHROPIC
    return OLLAMA if path == "/" or path == "/api" or path.startswith("/api/") else OPENAI


async def _fail(
    exc: ServiceError, sender: _Sender, dialect: Dialect, request: Request, trace: RequestTrace
) -> None:
    """Answer with `exc`, or raise it if an answer has begun, so that the server breaks it off."""
    if sender.begun:
        raise exc
    trace.note_status(exc.status)
    await _send_error(sender, exc, dialect, request)


async def _send_error(send: Send, exc: ServiceError, dialect: Dialect, request: Request) -> None:
    headers = _error_headers(exc)
    body = orjson.dumps(dialect.error(exc, request.request_id))
    if isinstance(exc, ForeignCaller):
        await send_body(send, exc.status, b"", [])
    elif isinstance(exc, BodyTooLarge | BodyTimeout):
        headers.append((b"connection", b"close"))
        await send_body(send, exc.status, body, headers, more=True)
        await linger(request.receive, _LINGER_S)
        await send({"type": "http.response.body", "body": b""})
    else:
        await send_body(send, exc.status, body, headers)


def _error_headers(exc: ServiceError) -> Headers:
    headers: Headers = [(b"content-type", JSON)]
    if isinstance(exc, MethodNotAllowed):
        headers.append((b"allow", exc.allow.encode()))
    if exc.retry_after_s is not None:
        headers.append((b"retry-after", str(exc.retry_after_s).encode()))
    if isinstance(exc, RateLimited):
        headers += exc.headers
        if exc.retry_after_s is None or exc.retry_after_s > _LONG_WAIT_S:
            headers.append((b"x-should-retry", b"false"))  # official clients would sleep for hours
    if isinstance(exc, Unauthorized):
        headers.append((b"www-authenticate", b"Bearer"))
    return headers
