"""The short way from uvicorn to the API, in a replica that HAProxy connects to.

Serve's own way prepares each request for features that this application does not use: time-outs,
traces, multiplexed models, an access log, two middlewares and six context managers. That takes a
sixth of a short request's CPU time in its replica. The short way counts a request exactly as Serve
does, so that autoscaling, draining, back-pressure and Serve's metrics see no difference.
"""

import asyncio
import logging
from time import perf_counter
from typing import Self

from starlette.types import ASGIApp, Receive, Scope

from serve_app.ray_serve import private
from serve_app.ray_serve.answer_writer import AnswerWriter

logger = logging.getLogger(private.SERVE_LOGGER)

# Serve answers these paths itself, and cancels a request that has this header in time.
_SERVES_PATHS = "/-/"
_TIMEOUT = b"x-request-timeout-seconds"


class DirectIngress:
    """Passes ordinary requests to the application of this replica."""

    def __init__(self, replica: private.DirectReplica) -> None:
        self._replica = replica

    @classmethod
    def behind(cls, app: ASGIApp) -> Self | None:
        """Return the short way past Serve's application `app`, None where only Serve's leads on."""
        replica = private.direct_replica(app)
        return cls(replica) if replica else None

    def takes(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        """Tell whether the request needs no feature of Serve's own path."""
        return (
            not scope["path"].startswith(_SERVES_PATHS)
            and _TIMEOUT not in headers
            and self._replica.has_room()
        )

    async def serve(
        self, scope: Scope, receive: Receive, answer: AnswerWriter, request_id: bytes
    ) -> None:
        """Answer the request. Exceptions are logged: uvicorn then breaks the answer off."""
        replica = self._replica
        error: BaseException | None = None
        started = perf_counter()
        await replica.enter(request_id.decode("latin-1"))
        try:
            await replica.app(scope, receive, answer)
        except asyncio.CancelledError as exc:
            error = exc
        except Exception as exc:
            error = exc
            logger.exception("failed to complete a request")
        finally:
            replica.leave()
        replica.record(scope["method"], answer.status, perf_counter() - started, error)
