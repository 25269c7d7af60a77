"""ASGI middleware between uvicorn and Serve, in a replica that HAProxy connects to.

It spares Serve and uvicorn work that takes a good part of a short request's time.
"""

import os
from typing import Any

from ray import serve
from ray.serve.exceptions import RayServeException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.api.http import UNWATCHED, Headers
from serve_app.ray_serve import http_protocol, private
from serve_app.ray_serve.direct_ingress import DirectIngress

_ID = b"x-request-id"


def middlewares() -> list[Middleware]:
    """Return the middleware of this process, for `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`.

    Serve's own proxies call this as well, and all of them ignore `Upgrade`. The middleware is for
    replicas whose application shares uvicorn's event loop: from another it can't watch callers.
    """
    try:
        serve.get_replica_context()
    except RayServeException:
        http_protocol.install(in_proxy=True)
        return []
    http_protocol.install()
    return [] if private.HAS_OWN_LOOP else [Middleware(UvicornMiddleware)]


class UvicornMiddleware:
    """Prepares each request for Serve, and uvicorn for its answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._short = DirectIngress.behind(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "HEAD":  # no body follows its head
            _join_writes(send)
        scope["headers"] = headers = _prepared(scope["headers"])
        by_name = dict(headers)
        if self._short and self._short.takes(scope, by_name):
            await self._short.serve(scope, receive, send, by_name[_ID])
        else:
            await self._app(scope, receive, send)


def _prepared(headers: Headers) -> Headers:
    """Return the headers with an id for the request, and a sign that Serve need not watch it.

    Serve watches each caller for a hang-up with two tasks and a queue, a tenth of what a short
    request costs; the API does so with one task. Serve also makes an id, at a higher cost.
    """
    if not dict(headers).get(_ID):
        new = (_ID, os.urandom(16).hex().encode())
        headers = [new, *(header for header in headers if header[0] != _ID)]
    return [*headers, (UNWATCHED, b"?1")]  # the last one counts


def _join_writes(send: Any) -> None:
    """Replace the transport of uvicorn's `send` for this answer, see JoinedWrites."""
    cycle: Any = getattr(send, "__self__", None)
    if hasattr(cycle, "transport"):
        cycle.transport = JoinedWrites(cycle.transport)


class JoinedWrites:
    """Writes an answer's head together with the first piece of its body.

    The API sends them one after the other, and uvicorn writes each by itself: two system calls
    here, and HAProxy and the caller wake twice.
    """

    __slots__ = ("_head", "_joined", "_transport")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._head = b""
        self._joined = False

    def write(self, data: bytes) -> None:
        if self._joined or data.startswith(b"HTTP/1.1 100 "):  # nothing follows a 100 by itself
            self._transport.write(data)
        elif not self._head:
            self._head = data
        else:
            self._joined = True
            self._transport.write(self._head + data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)
