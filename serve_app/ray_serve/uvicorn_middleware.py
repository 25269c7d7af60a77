"""Between uvicorn and Serve, in a replica that HAProxy asks directly.

Serve and uvicorn do for each request what a short one feels: here they are told that they need not.
"""

import os
from typing import Any

from ray import serve
from ray.serve.exceptions import RayServeException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.api.http import UNWATCHED, Headers
from serve_app.ray_serve import http_protocol, private

_ID = b"x-request-id"


def middlewares() -> list[Middleware]:
    """For `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`, which Serve's own proxies read too.

    All of them ignore `Upgrade`. The middleware is for replicas only, where the application shares
    uvicorn's event loop: from another it can't watch.
    """
    http_protocol.install()
    try:
        serve.get_replica_context()
    except RayServeException:
        return []
    return [] if private.HAS_OWN_LOOP else [Middleware(UvicornMiddleware)]


class UvicornMiddleware:
    """Prepares each request for Serve, and uvicorn for its answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["headers"] = _prepared(scope["headers"])
            if scope["method"] != "HEAD":  # no body follows its head
                _join_writes(send)
        await self._app(scope, receive, send)


def _prepared(headers: Headers) -> Headers:
    """Serve watches each caller for a hang-up with two tasks and a queue: a tenth of what a short
    request costs. Told not to, it calls the API at once, which watches with one task of its own.
    An id of ours is cheaper than Serve's, which looks for one and appends it on its own."""
    if not dict(headers).get(_ID):
        own = (_ID, os.urandom(16).hex().encode())
        headers = [own, *(header for header in headers if header[0] != _ID)]
    return [*headers, (UNWATCHED, b"?1")]  # the last one counts


def _join_writes(send: Any) -> None:
    """Where `send` is uvicorn's: for this answer, see JoinedWrites."""
    cycle: Any = getattr(send, "__self__", None)
    if hasattr(cycle, "transport"):
        cycle.transport = JoinedWrites(cycle.transport)


class JoinedWrites:
    """uvicorn's transport for one answer: its head waits for the first piece of the body.

    The API and Serve send them one after the other, and uvicorn writes each by itself: two calls
    of the kernel here, and HAProxy and the caller wake twice.
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
