"""Between uvicorn and Serve, in a replica that HAProxy asks directly.

Serve watches each caller for a hang-up with two tasks and a queue: a tenth of what a short request
costs. Told not to, it calls the API at once, and the API watches with one task of its own.
"""

from ray import serve
from ray.serve._private.constants import RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD
from ray.serve.exceptions import RayServeException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from serve_app.api.http import UNWATCHED


def middlewares() -> list[Middleware]:
    """For `RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH`, which Serve's own proxies read too.

    Only where the application shares uvicorn's event loop: from another it can't watch.
    """
    try:
        serve.get_replica_context()
    except RayServeException:
        return []
    return [] if RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD else [Middleware(Unwatched)]


class Unwatched:
    """Tells Serve, on behalf of each caller, that nobody need watch for a hang-up."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["headers"] = [*scope["headers"], (UNWATCHED, b"?1")]  # the last one counts
        await self._app(scope, receive, send)
