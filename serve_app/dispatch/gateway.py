"""From the gateway to the pools: the pool by its model, another replica before the first byte."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import Context
from dataclasses import replace
from typing import Any, Generic, TypeVar

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    RayServeException,
    ReplicaUnavailableError,
)
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatusOverview, ServeStatus

from serve_app.deadline import Deadline
from serve_app.dispatch.listener import Listener
from serve_app.dispatch.replica_pool import ReplicaPool
from serve_app.engines.base import Answer, Call, ModelCard
from serve_app.errors import (
    EngineDown,
    EngineLost,
    EngineSlow,
    Overloaded,
    PoolDown,
    ServiceError,
)
from serve_app.model_names import short_name
from serve_app.ollama_version import OLLAMA_VERSION
from serve_app.settings import Pool, Settings

T = TypeVar("T")

_STATUS_FOR_S = 1.0
_SPARE_S = 10.0


class GatewayDispatcher:
    """Sends each call to a replica of the pool that serves its model."""

    def __init__(
        self,
        settings: Settings,
        handles: Mapping[str, DeploymentHandle[Any]],
        host: str,
        application: str,
    ) -> None:
        self._application = application
        self._pools = settings.all_pools
        self._listener = Listener(host)
        clients = {
            pool.name: _PoolClient(pool, handles[pool.name], self._listener) for pool in self._pools
        }
        self._by_model = {
            short_name(model): clients[pool.name] for pool in self._pools for model in pool.models
        }
        self._hold_s = settings.gateway.hold_s
        # A replica keeps its bounds itself; this is for one that can't any more.
        self._answer_s = settings.queue_timeout_s + settings.generation_timeout_s + _SPARE_S
        self._status = Remembered(_serve_status, _STATUS_FOR_S)

    async def start(self) -> None:
        await self._listener.start()

    async def stop(self) -> None:
        self._listener.close()

    async def send(self, call: Call) -> Answer:
        client = self._by_model[call.model]
        try:
            with Deadline.after(self._hold_s + self._answer_s):
                return await self._persistent(client, call)
        except TimeoutError as exc:
            raise EngineSlow("the pool gave no answer in time") from exc

    async def _persistent(self, client: "_PoolClient", call: Call) -> Answer:
        """Nothing of the answer has come yet, so another replica may be tried.

        A replica that says EngineDown has waited for its engine already: one more try, elsewhere.
        The tries are those of all replicas together, and one is kept for another replica.
        """
        left, again, last = call.tries, False, False
        while True:
            shared = replace(call, tries=max(1, left - 1))
            try:
                return await client.call(shared, self._hold_s, again)
            except EngineDown as exc:
                if last or isinstance(exc, PoolDown):
                    raise
                again = last = True
            except EngineLost as exc:
                left -= exc.engines
                if left <= 0:
                    raise
                again = True

    def cards(self) -> tuple[ModelCard, ...]:
        """From the settings: a listing must not wake a pool."""
        return tuple(
            ModelCard(name, loaded_context_length=pool.engine.context_length)
            for pool in self._pools
            for name in map(short_name, pool.models)
        )

    def version(self) -> str:
        return OLLAMA_VERSION

    async def problem(self) -> str:
        status = await self._status()
        own = status.applications.get(self._application)
        return "; ".join(filter(None, (pool_problem(pool, own) for pool in self._pools)))


class _PoolClient:
    """To one pool."""

    def __init__(self, pool: Pool, handle: DeploymentHandle[Any], listener: Listener) -> None:
        self._handle = handle
        self._by_session = pool.routing == "session"
        self._replicas = ReplicaPool(listener, handle.serve_calls.remote, handle_error)

    async def call(self, call: Call, wait_s: float, again: bool) -> Answer:
        if self._by_session and call.affinity and not again:  # else the same replica again
            handle = self._handle.options(session_id=call.affinity)
            return await self._replicas.call(call, wait_s, open_=handle.serve_calls.remote)
        return await self._replicas.call(call, wait_s, fresh=again)


_UNAVAILABLE = (DeploymentUnavailableError, ReplicaUnavailableError)


def handle_error(exc: Exception) -> ServiceError:
    """What an exception of a Serve handle means for the caller."""
    if isinstance(exc, BackPressureError):
        return Overloaded("server busy, please try again: the pool's queue is full", 1)
    if isinstance(exc, DeploymentUnavailableError):
        return PoolDown("the pool is not available")
    return EngineLost("the replica was lost")


def pool_problem(pool: Pool, own: ApplicationStatusOverview | None) -> str:
    """Return why `pool` can't answer, or "". `own`: the state of its application, from Serve."""
    if pool.autoscaling.min_replicas == 0:
        return ""
    found = own.deployments.get(pool.name) if own else None
    if found is None:
        return f"pool {pool.name} is not deployed"
    if any(state == "RUNNING" for state in found.replica_states):
        return ""
    return f"pool {pool.name} has no replica that runs: {found.message}"


async def _serve_status() -> ServeStatus:
    """Raises EngineDown when Serve does not tell."""
    try:
        return await asyncio.to_thread(serve.status)
    except (RayError, RayServeException) as exc:
        raise EngineDown("the state of the pools is not known: Serve's controller is away") from exc


class Remembered(Generic[T]):
    """An answer that may be asked for often, and is fetched once in `for_s` seconds.

    Those who wait for it share one fetch, and what it raises.
    """

    def __init__(self, fetch: Callable[[], Awaitable[T]], for_s: float) -> None:
        self._fetch = fetch
        self._for_s = for_s
        self._until = -math.inf
        self._fetching: asyncio.Future[T] | None = None

    async def __call__(self) -> T:
        running = self._fetching is not None and not self._fetching.done()
        if self._fetching is None or (not running and time.monotonic() > self._until):
            # Nobody's in particular: whoever leaves takes nothing from the others.
            self._fetching = asyncio.create_task(self._fetched(), context=Context())
        return await asyncio.shield(self._fetching)

    async def _fetched(self) -> T:
        value = await self._fetch()
        self._until = time.monotonic() + self._for_s
        return value
