"""The short way from uvicorn to the API, in a replica that HAProxy connects to.

Serve's own way prepares each request for features that this application does not use: time-outs,
traces, multiplexed models, an access log, two middlewares and six context managers. That takes a
sixth of a short request's CPU time in its replica. The short way counts a request exactly as Serve
does, so that autoscaling, draining, back-pressure and Serve's metrics see no difference.
"""

import asyncio
import logging
from time import perf_counter
from typing import Any, Self

from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from serve_app.ray_serve import private
from serve_app.ray_serve.answer_writer import AnswerWriter
from serve_app.ray_serve.private_replica import DirectReplica, direct_replica
from serve_app.ray_serve.request_id import ID, valid_id
from serve_app.ray_serve.serve_metrics import ServeMetrics

logger = logging.getLogger(private.SERVE_LOGGER)

# Serve itself answers these paths, and cancels requests with this header after a time-out.
_SERVES_PATHS = "/-/"
_TIMEOUT = b"x-request-timeout-seconds"


class DirectIngress:
    """Passes ordinary requests to the application of this replica."""

    def __init__(self, replica: DirectReplica, metrics: ServeMetrics) -> None:
        self._replica = replica
        self._metrics = metrics

    @classmethod
    def behind(cls, app: ASGIApp) -> Self | None:
        """Return the short way past Serve's application `app`, None where it has no such way."""
        replica = direct_replica(app)
        return cls(replica, ServeMetrics(replica.metrics)) if replica else None

    async def answer(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Answer the request, or let uvicorn pass it on to `app`."""
        scope: Any = cycle.scope
        headers = dict(scope["headers"])
        if self._takes(scope, headers):
            await self._serve(cycle, valid_id(scope, headers))
            if not cycle.response_complete and not cycle.disconnected:
                await _break_off(cycle)
            # Otherwise the cycle, its scope and its connection refer to each other, and collecting
            # this garbage takes a tenth of a short request's CPU time.
            cycle.on_response = _nothing
            scope.clear()
        else:
            await cycle.run_asgi(app)

    def _takes(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        """Tell whether the request needs no feature of Serve's own path."""
        return (
            not scope["path"].startswith(_SERVES_PATHS)
            and _TIMEOUT not in headers
            and self._replica.has_room()
        )

    async def _serve(self, cycle: RequestResponseCycle, request_id: bytes) -> None:
        """Let the application answer. Its exceptions are logged."""
        replica = self._replica
        writer = AnswerWriter(cycle, [(ID, request_id)])
        exception = ""
        started = perf_counter()
        replica.enter(request_id.decode("latin-1"))
        try:
            await replica.app(cycle.scope, cycle.receive, writer)
        except asyncio.CancelledError as exc:
            exception = type(exc).__name__
        except Exception as exc:
            exception = type(exc).__name__
            logger.exception("failed to complete a request")
        finally:
            replica.leave()
        seconds = perf_counter() - started
        self._metrics.record(cycle.scope["method"], writer.status, seconds, exception)


async def _break_off(cycle: RequestResponseCycle) -> None:
    """End a request that the application left unanswered, as uvicorn does."""
    if cycle.response_started:
        cycle.transport.close()
    else:
        await cycle.send_500_response()


def _nothing() -> None:
    """Do nothing after a request."""
