"""Sends each call from the gateway to the pool that serves its model."""

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from serve_app.deadline import Deadline
from serve_app.dispatch.connection import PoolHandle
from serve_app.dispatch.fair_queue import Fairness
from serve_app.dispatch.listener import Listener
from serve_app.dispatch.openings import PoolStartWatch
from serve_app.dispatch.pool_placement import new_placement
from serve_app.dispatch.replica_follower import ReplicaDirectory
from serve_app.dispatch.replica_pool import ReplicaPool
from serve_app.dispatch.retries import Attempts, RetryTarget, replica_failure
from serve_app.engines.base import Answer, Call, ModelCard, Priority, ServiceQueue
from serve_app.errors import CallerLeft, EngineDown, EngineLost, EngineSlow
from serve_app.model_names import short_name
from serve_app.ollama_version import OLLAMA_VERSION
from serve_app.settings import Settings

_SPARE_S = 10.0


class GatewayHandle(PoolHandle, ReplicaDirectory, Protocol):
    """A gateway's access to one pool."""


class GatewayDispatcher:
    """Sends each call to a replica of the pool that serves its model.

    `handles`, `watches`: by the pool's name. `problem`: returns why the pools can't answer, or "".
    """

    def __init__(
        self,
        settings: Settings,
        handles: Mapping[str, GatewayHandle],
        host: str,
        problem: Callable[[], Awaitable[str]],
        watches: Mapping[str, PoolStartWatch] = MappingProxyType({}),
    ) -> None:
        self._problem = problem
        self._watches = watches
        self._pools = settings.all_pools
        self._listener = Listener(host)
        self._placements = {
            pool.name: new_placement(
                pool, self._listener, handles[pool.name], settings.gateway.max_replicas > 1
            )
            for pool in self._pools
            if pool.routing == "affinity"
        }
        self._by_name = {
            pool.name: ReplicaPool(
                self._listener,
                handles[pool.name],
                pool.routing == "session",
                Fairness.of(settings),
                pool.max_waiting,
                self._placements.get(pool.name),
                watches.get(pool.name),
            )
            for pool in self._pools
        }
        self._by_model = {
            short_name(model): self._by_name[pool.name]
            for pool in self._pools
            for model in pool.models
        }
        self._timeouts_s = settings.queue_timeouts_s
        self._hold_s = settings.gateway.hold_s
        self._generation_s = settings.generation_timeout_s

    def waiting_by_flow(self) -> dict[str, dict[tuple[Priority, str, str], int]]:
        """Return how many calls wait for each pool, see `WaitingLine.waiting_by_flow`."""
        return {name: pool.waiting_by_flow() for name, pool in self._by_name.items()}

    async def start(self) -> None:
        await self._listener.start()
        for placement in self._placements.values():
            placement.follower.start()

    async def stop(self) -> None:
        for placement in self._placements.values():
            placement.follower.stop()
        for watch in self._watches.values():
            watch.stop()
        self._listener.close()

    async def send(self, call: Call) -> Answer:
        timeout_s = self._timeouts_s[call.flow.priority]
        hold_s = max(self._hold_s, timeout_s)
        # Replicas enforce the other bounds; this one is for a replica that hangs.
        seconds = hold_s + timeout_s + self._generation_s + _SPARE_S
        try:
            with Deadline.after(seconds):
                return await self._send_with_retries(self._by_model[call.model], call, hold_s)
        except TimeoutError as exc:
            raise EngineSlow(f"the pool gave no answer within {seconds:g} s") from exc

    async def _send_with_retries(self, pool: ReplicaPool, call: Call, hold_s: float) -> Answer:
        """Send the call to one replica after another until retries.py gives it up."""
        attempts, fresh, failed = Attempts(call.tries), False, frozenset[str]()
        while True:
            try:
                return await pool.call(call, hold_s, attempts.share, fresh=fresh, failed=failed)
            except (EngineDown, EngineLost) as exc:
                attempts, retry = attempts.after(replica_failure(exc), exc.engines)
                if retry is None:
                    raise
                fresh = retry.target is RetryTarget.OTHER_REPLICA
                failed |= {exc.replica}
                if call.span:
                    call.span.event("retry", {"error.type": type(exc).__name__})
            except CallerLeft as exc:
                exc.engines = attempts.engines
                raise

    def queues(self) -> Mapping[str, ServiceQueue]:
        return {name: pool.line for name, pool in self._by_name.items()}

    def cards(self) -> tuple[ModelCard, ...]:
        """Return the models from the settings: a listing must not start a replica."""
        return tuple(
            ModelCard(name, loaded_context_length=pool.engine.context_length)
            for pool in self._pools
            for name in map(short_name, pool.models)
        )

    def version(self) -> str:
        return OLLAMA_VERSION

    async def problem(self) -> str:
        return await self._problem()
