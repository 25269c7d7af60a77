"""Reports whether a gateway's pools can answer, by the state from Serve's controller."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatusOverview, ServeStatus

from serve_app.errors import EngineDown
from serve_app.pool_settings import Pool

T = TypeVar("T")

_STATUS_FOR_S = 1.0


class PoolReadiness:
    """Reports which pools of one application have no replica that runs."""

    def __init__(self, pools: Sequence[Pool], application: str) -> None:
        self._pools = pools
        self._application = application
        self._status = Remembered(_serve_status, _STATUS_FOR_S)

    async def problem(self) -> str:
        """Return why a pool can't answer, or "". Raises EngineDown when the state is unknown."""
        status = await self._status()
        application = status.applications.get(self._application)
        return "; ".join(filter(None, (_pool_problem(pool, application) for pool in self._pools)))


def _pool_problem(pool: Pool, application: ApplicationStatusOverview | None) -> str:
    if pool.autoscaling.min_replicas == 0:
        return ""
    status = application.deployments.get(pool.name) if application else None
    if status is None:
        return f"pool {pool.name} is not deployed"
    if any(state == "RUNNING" for state in status.replica_states):
        return ""
    return f"pool {pool.name} has no replica that runs: {status.message}"


async def _serve_status() -> ServeStatus:
    try:
        return await asyncio.to_thread(serve.status)
    except (RayError, RayServeException) as exc:
        raise EngineDown("the pools' state is unknown: Serve's controller does not answer") from exc


class Remembered(Generic[T]):
    """Fetches a value at most once in `for_s` seconds, however often it is read.

    Concurrent readers share one fetch, and its exception.
    """

    def __init__(self, fetch: Callable[[], Awaitable[T]], for_s: float) -> None:
        self._fetch = fetch
        self._for_s = for_s
        self._until = -math.inf
        self._fetching: asyncio.Future[T] | None = None

    async def __call__(self) -> T:
        running = self._fetching is not None and not self._fetching.done()
        if self._fetching is None or (not running and time.monotonic() > self._until):
            # In no reader's context: a reader that leaves takes nothing from the others.
            self._fetching = asyncio.create_task(self._fetched(), context=Context())
        return await asyncio.shield(self._fetching)

    async def _fetched(self) -> T:
        value = await self._fetch()
        self._until = time.monotonic() + self._for_s
        return value
