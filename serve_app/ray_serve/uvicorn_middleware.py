"""ASGI middleware between uvicorn and Serve, in a replica that HAProxy connects to.

It spares Serve and uvicorn work that takes a good part of a short request's time.
"""

from collections.abc import Awaitable

from ray import serve
from ray.serve.exceptions import RayServeException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.api.http import UNWATCHED
from serve_app.ray_serve import http_protocol, private
from serve_app.ray_serve.answer_writer import AnswerWriter
from serve_app.ray_serve.direct_ingress import DirectIngress
from serve_app.ray_serve.request_id import valid_id


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
    """Prepares each request for Serve, and writes its answer.

    `short_way`: the way of requests past Serve, which http_protocol.py begins.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.short_way = DirectIngress.behind(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _http(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        valid_id(scope, dict(scope["headers"]))
        # Serve watches each caller for a disconnect with two tasks and a queue: a tenth of the CPU
        # time of a short request. The API needs no task for it.
        scope["headers"] = [*scope["headers"], (UNWATCHED, b"?1")]  # the last header counts
        return self._app(scope, receive, AnswerWriter.of(send) or send)
