"""ASGI middleware between uvicorn and Serve, in a replica that HAProxy connects to.

It spares Serve and uvicorn work that takes a good part of a short request's time.
"""

import os
from collections.abc import Awaitable

from ray import serve
from ray.serve.exceptions import RayServeException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.api.http import UNWATCHED
from serve_app.ray_serve import http_protocol, private
from serve_app.ray_serve.answer_writer import AnswerWriter
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
    """Prepares each request for Serve, or takes it past Serve, and writes its answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._short = DirectIngress.behind(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _http(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        headers = dict(scope["headers"])
        request_id = headers.get(_ID) or _add_id(scope)
        if self._short and self._short.takes(scope, headers):
            writer = AnswerWriter.of(send, [(_ID, request_id)])
            if writer:
                return self._short.serve(scope, receive, writer, request_id)
        # Serve watches each caller for a disconnect with two tasks and a queue, a tenth of what a
        # short request costs. The API does so without a task.
        scope["headers"] = [*scope["headers"], (UNWATCHED, b"?1")]  # the last one counts
        return self._app(scope, receive, AnswerWriter.of(send) or send)


def _add_id(scope: Scope) -> bytes:
    """Give the request an id, as Serve would at a higher cost."""
    request_id = os.urandom(16).hex().encode()
    others = (header for header in scope["headers"] if header[0] != _ID)
    scope["headers"] = [(_ID, request_id), *others]
    return request_id
