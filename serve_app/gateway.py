"""From the gateway to the pools: the pool by its model, another replica before the first byte."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from ray import serve
from ray.serve.exceptions import (
    BackPressureError,
    DeploymentUnavailableError,
    ReplicaUnavailableError,
)
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ServeStatus

from serve_app.deadline import Deadline
from serve_app.dispatch import API_VERSION
from serve_app.engines.base import Answer, Call, ModelCard
from serve_app.errors import (
    EngineDown,
    EngineLost,
    EngineSlow,
    Overloaded,
    PoolDown,
    ServiceError,
)
from serve_app.leases import Leases
from serve_app.listener import Listener
from serve_app.names import short_name
from serve_app.settings import Pool, Settings

_STATUS_FOR_S = 1.0
_SPARE_S = 10.0


class GatewayDispatcher:
    """Sends each call to a replica of the pool that serves its model."""

    def __init__(
        self, settings: Settings, handles: Mapping[str, DeploymentHandle[Any]], host: str
    ) -> None:
        self._pools = settings.all_pools
        self._listener = Listener(host)
        ways = {pool.name: _Way(pool, handles[pool.name], self._listener) for pool in self._pools}
        self._by_model = {
            short_name(model): ways[pool.name] for pool in self._pools for model in pool.models
        }
        self._hold_s = settings.gateway.hold_s
        # A replica keeps its bounds itself; this is for one that can't any more.
        self._answer_s = settings.queue_timeout_s + settings.generation_timeout_s + _SPARE_S
        self._status = _Remembered(_serve_status, _STATUS_FOR_S)

    async def start(self) -> None:
        await self._listener.start()

    async def stop(self) -> None:
        self._listener.close()

    async def send(self, call: Call) -> Answer:
        way = self._by_model[call.model]
        try:
            with Deadline.after(self._hold_s + self._answer_s):
                return await self._persistent(way, call)
        except TimeoutError as exc:
            raise EngineSlow("the pool gave no answer in time") from exc

    async def _persistent(self, way: "_Way", call: Call) -> Answer:
        """Nothing of the answer has come yet, so another replica may be tried.

        A replica that says EngineDown has waited for its engine already: one more try, elsewhere.
        The tries are those of all replicas together, and one is kept for another replica.
        """
        left, again, last = call.tries, False, False
        while True:
            shared = replace(call, tries=max(1, left - 1))
            try:
                return await way.call(shared, self._hold_s, again)
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
        return API_VERSION

    async def problem(self) -> str:
        status = await self._status()
        return "; ".join(filter(None, (_pool_problem(pool, status) for pool in self._pools)))


class _Way:
    """To one pool."""

    def __init__(self, pool: Pool, handle: DeploymentHandle[Any], listener: Listener) -> None:
        self._handle = handle
        self._by_session = pool.routing == "session"
        self._leases = Leases(listener, handle.lend.remote, handle_error)

    async def call(self, call: Call, wait_s: float, again: bool) -> Answer:
        if self._by_session and call.affinity and not again:  # else the same replica again
            handle = self._handle.options(session_id=call.affinity)
            return await self._leases.call(call, wait_s, open_=handle.lend.remote)
        return await self._leases.call(call, wait_s, fresh=again)


_UNAVAILABLE = (DeploymentUnavailableError, ReplicaUnavailableError)


def handle_error(exc: Exception) -> ServiceError:
    """What an exception of a Serve handle means for the caller."""
    if isinstance(exc, BackPressureError):
        return Overloaded("server busy, please try again: the pool's queue is full", 1)
    if isinstance(exc, DeploymentUnavailableError):
        return PoolDown("the pool is not available")
    return EngineLost("the replica was lost")


def _pool_problem(pool: Pool, status: ServeStatus) -> str:
    if pool.autoscaling.min_replicas == 0:
        return ""
    for application in status.applications.values():
        if found := application.deployments.get(pool.name):
            if any(state == "RUNNING" for state in found.replica_states):
                return ""
            return f"pool {pool.name} has no replica that runs: {found.message}"
    return f"pool {pool.name} is not deployed"


async def _serve_status() -> ServeStatus:
    return await asyncio.to_thread(serve.status)


class _Remembered:
    """An answer that may be asked for often, and fetched once in `for_s` seconds."""

    def __init__(self, fetch: Callable[[], Awaitable[ServeStatus]], for_s: float) -> None:
        self._fetch = fetch
        self._for_s = for_s
        self._until = 0.0
        self._value: ServeStatus | None = None

    async def __call__(self) -> ServeStatus:
        if self._value is None or time.monotonic() > self._until:
            self._value = await self._fetch()
            self._until = time.monotonic() + self._for_s
        return self._value
